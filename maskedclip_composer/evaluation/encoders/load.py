"""One place to name an encoder that is to be evaluated, whoever trained it."""

from collections.abc import Callable
from pathlib import Path

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.base import Encoder
from maskedclip_composer.evaluation.encoders.facebook import load_dinov2, load_mae
from maskedclip_composer.evaluation.encoders.flair import load_flair
from maskedclip_composer.evaluation.encoders.hub import load_hugging_face
from maskedclip_composer.evaluation.encoders.published import load_timm
from maskedclip_composer.evaluation.encoders.vit import ViTEncoder
from maskedclip_composer.export.encoder import NEWEST, load_encoder


def load(source: str, *, image_size: int | None = None) -> Encoder:
    """Load an encoder with a check of every weight: nothing may be missing, left over or of another shape.

    What follows the colon is handed to the function of that prefix in `LOADERS`; a source without a prefix is a run
    folder, `RUN/latest` for its newest checkpoint in place of its exported encoder, an exported `.safetensors`, or a
    Composer `.pt` inside a run folder.

    Args:
        source: The encoder.
        image_size: Side of the square input in pixels; None takes the encoder's own.

    Raises:
        UserError: The source is unknown, absent or refused, or its weights are not exactly those of the architecture.
    """
    prefix, colon, name = source.partition(":")
    if colon and prefix in LOADERS:
        if not name:
            raise UserError(f"encoder={source} names nothing after the colon.\n{KINDS}")
        return LOADERS[prefix](name, image_size)
    path = Path(source)
    if path.name == "latest" and not path.exists():
        path = path.parent / NEWEST
    if not path.exists() and (colon or path.suffix not in (".safetensors", ".pt")):
        what = f"{prefix}: is no kind of encoder" if colon else "there is no such run folder or file"
        raise UserError(f"encoder={source}: {what}.\n{KINDS}")
    return _load_own(str(path), image_size)


def _load_own(source: str, image_size: int | None) -> ViTEncoder:
    loaded = load_encoder(source, image_size=image_size)
    patch_size = int(loaded.vit.patch_embed.patch_size[0])
    return ViTEncoder(
        module=loaded.vit,
        image_size=loaded.image_size,
        mean=loaded.mean,
        std=loaded.std,
        description=loaded.description,
        architecture={
            "kind": "own",
            "name": loaded.name,
            "image_size": loaded.image_size,
            "patch_size": patch_size,
            "depth": len(loaded.vit.blocks),
        },
    )


def _load_random(name: str, image_size: int | None) -> ViTEncoder:
    return _load_own(f"random:{name}", image_size)


LOADERS: dict[str, Callable[[str, int | None], Encoder]] = {
    "random": _load_random,
    "timm": load_timm,
    "mae": load_mae,
    "retfound": load_mae,
    "dinov2": load_dinov2,
    "flair": load_flair,
    "hf": load_hugging_face,
}
KINDS = (
    "Give a run folder, RUN/latest, an encoder .safetensors, a Composer .pt, random:NAME, timm:NAME, timm:NAME@FILE, "
    "mae:FILE, retfound:FILE, dinov2:FILE, flair:FILE, or hf:FOLDER_OR_ID."
)
