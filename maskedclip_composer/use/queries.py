"""What is searched for in a table of embeddings: texts and photographs, as features of its own model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.load import LOADERS
from maskedclip_composer.use.class_texts import check_classes
from maskedclip_composer.use.embedder import FEATURES, IMAGE_FEATURES, Embedder, Space, embedder_of, open_embedder
from maskedclip_composer.use.embedding_table import read_about
from maskedclip_composer.use.image_files import one_file
from maskedclip_composer.use.load import load
from maskedclip_composer.use.one_photograph import shown
from maskedclip_composer.use.transform import PhotographTransform


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query.

    Attributes:
        words: The text, or the file's name; its path as given where two files have one name.
        feature: In the space that is searched.
        file: Of a photograph; None for a text.
        sha256: Of its content.
    """

    words: str
    feature: Float[np.ndarray, " dim"]
    file: Path | None = None
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Queries:
    """All queries, the column of the table that they are compared with, and the transform of the model."""

    queries: list[Query]
    column: str
    transform: PhotographTransform


def embed_queries(
    index: Path, source: str, *, texts: Sequence[str], images: Sequence[str], space: Space | None, device: str
) -> Queries:
    """Embed texts and photographs with the model of a table.

    Args:
        index: The table.
        source: Of the model.
        texts: Queries in words.
        images: Files of photographs.
        space: masked or clip; None is clip where there are texts, else masked.
        device: Where the model goes.

    Raises:
        UserError: The table is of another model, the model has no texts, a photograph cannot be read, or two texts are
            the same to the text encoder.
    """
    about = read_about(index)
    space = space or ("clip" if texts else "masked")
    if texts and space == "masked":
        raise UserError("--space masked: texts are in the CLIP space alone.\nLeave --space out, or --text.")
    if repeated := [text for text in texts if list(texts).count(text) > 1]:
        raise UserError(f"--text {repeated[0]!r} is given twice.\nTake one out.")
    of_others = ":" in source and source.partition(":")[0] in LOADERS
    if of_others and texts:
        raise UserError(f"--text: {source} reads no texts.\nGive --image, or a model that was trained with texts.")
    if of_others or space == "masked":
        embedder, found = open_embedder(source, space=space, device=device), []
        _check_model(index, about, embedder, source, space)
    else:
        model, transform, tokenizer = load(source, device=device)
        if tokenizer is None:
            raise UserError(
                f"{source} was trained without texts, so it has no CLIP space.\nGive --image, and leave --space out."
            )
        embedder, found = embedder_of(model, transform, tokenizer, space), []
        _check_model(index, about, embedder, source, space)
        if texts:
            tokens = tokenizer(texts)
            check_classes(tokenizer, {text: [text] for text in texts})
            features = model.encode_text(**tokens).cpu().numpy()
            found = [Query(words=text, feature=feature) for text, feature in zip(texts, features, strict=True)]
    column = IMAGE_FEATURES if space == "clip" else FEATURES
    names = [Path(image).name for image in images]
    for image, name in zip(images, names, strict=True):
        found.append(_of_file(Path(image), embedder, column, as_given=names.count(name) > 1))
    return Queries(queries=found, column=column, transform=embedder.transform)


def _check_model(index: Path, about: dict, embedder: Embedder, source: str, space: Space) -> None:
    of_clip = {"model_sha256": "weights are not those", "tokenizer_sha256": "tokenizer is not that"}
    for key, differ in (of_clip if space == "clip" else {"encoder_sha256": "weights are not those"}).items():
        if about.get(key) != embedder.about[key]:  # earlier tables do not tell the tokenizer
            raise UserError(
                f"{index} was made with {about['model']}, whose {differ} of {source}.\n"
                "Features of two models cannot be compared: give that model, or embed the photographs again."
            )


def _of_file(path: Path, embedder: Embedder, column: str, *, as_given: bool) -> Query:
    photograph, image = one_file(path).read(0, embedder.transform)
    if image is None:
        raise UserError(f"--image {path}: {photograph.reason}.\nGive the file of a photograph.")
    (feature,) = embedder.embed(image[None])[column]
    return Query(
        words=shown(str(path)) if as_given else photograph.name, feature=feature, file=path, sha256=photograph.sha256
    )
