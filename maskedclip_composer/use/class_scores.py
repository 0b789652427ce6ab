"""Scores of photographs against classes in words, and how much they depend on the wording."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.class_prompts import ClassPrompts
from maskedclip_composer.use.class_texts import check_classes, class_features, class_scores
from maskedclip_composer.use.load import load
from maskedclip_composer.use.one_photograph import Photograph, Photographs
from maskedclip_composer.use.photographs import batches
from maskedclip_composer.use.prepared_shards import prepared_with

_ALIKE = 0.9999
"""Cosine of two classes' features from which on their order says little."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Photographs with their scores.

    Attributes:
        photographs: All of them, those that cannot be read too.
        columns: Of theirs, carried along.
        classes: Names of the classes.
        multilabel: Whether each class was scored for itself.
        scores: Of the photographs that can be read.
        means_by_template: Mean score over the photographs of each class with each single template.
        changed: Share of photographs whose highest class is another one with a single template, mean over templates.
        alike: Pairs of classes that the text encoder hardly tells apart, with their cosine.
    """

    photographs: list[Photograph]
    columns: tuple[str, ...]
    classes: list[str]
    multilabel: bool
    scores: Float[np.ndarray, "readable classes"]
    means_by_template: Float[np.ndarray, "templates classes"]
    changed: float
    alike: list[tuple[str, str, float]]


def score(
    photographs: Photographs,
    prompts: ClassPrompts,
    source: str,
    *,
    multilabel: bool,
    batch_size: int,
    workers: int,
    device: str,
) -> Scored:
    """Score photographs with the model at `source`.

    Raises:
        UserError: The model cannot be loaded, was trained without texts, or cannot tell two classes apart.
    """
    # Texts are read before the processes that read photographs begin, of which tokenizers 0.21 would warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    model, transform, tokenizer = load(source, device=device)
    if tokenizer is None:
        raise UserError(
            f"{source} was trained without texts, so words mean nothing to it.\nGive a run with objectives.lg_clip."
        )
    prepared_with(photographs, transform.recipe)
    words = prompts.prompts
    check_classes(tokenizer, words)
    texts = class_features(model, tokenizer, words)
    single = [class_features(model, tokenizer, own) for own in prompts.by_template().values()]
    scale, classes = model.logit_scale, list(words)
    seen: list[Photograph] = []
    scores = [np.empty((0, len(classes)), np.float32)]
    sums, changed = np.zeros((len(single), len(classes))), 0
    bar = tqdm(total=len(photographs), desc="score", unit=" images", leave=False)
    for batch in batches(photographs, transform, batch_size=batch_size, workers=workers, device=device):
        bar.update(len(batch.photographs))
        seen += batch.photographs
        if not len(batch.images):
            continue
        images = model.encode_image(batch.images).cpu()
        own = class_scores(images, texts, scale, multilabel=multilabel).numpy()
        scores.append(own)
        for number, template in enumerate(single):
            others = class_scores(images, template, scale, multilabel=multilabel).numpy()
            sums[number] += others.sum(axis=0)
            changed += int((others.argmax(axis=1) != own.argmax(axis=1)).sum())
    bar.close()
    whole = np.concatenate(scores)
    count = max(1, len(whole))
    return Scored(
        photographs=seen,
        columns=photographs.columns,
        classes=classes,
        multilabel=multilabel,
        scores=whole,
        means_by_template=sums / count,
        changed=changed / count / len(single),
        alike=_alike(classes, texts),
    )


def _alike(classes: list[str], texts: Float[torch.Tensor, "classes dim"]) -> list[tuple[str, str, float]]:
    cosines = (texts @ texts.T).triu(diagonal=1)
    return [(classes[i], classes[j], float(cosines[i, j])) for i, j in (cosines > _ALIKE).nonzero().tolist()]
