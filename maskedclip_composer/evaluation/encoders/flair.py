"""FLAIR's released file: a ResNet-50 beside a BERT (Silva-Rodriguez et al., Medical Image Analysis 2025)."""

from pathlib import Path

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.timm_model import TimmEncoder, build_headless
from maskedclip_composer.evaluation.encoders.weights import read_weights, without
from maskedclip_composer.export.exact import listed, load_exactly

NETWORK = "resnet50"  # FLAIR builds torchvision's; timm's has the same layers under the same names
IMAGE_ENCODER = "vision_model.model."
# What else the file holds: the projection to the space shared with text, the text encoder and the temperature.
DROPPED = ("vision_model.projection_head_vision.", "text_model.", "logit_scale")


def load_flair(file: str, image_size: int | None = None) -> TimmEncoder:
    """Load FLAIR's image encoder; its feature is the pooled one before the projection, 2048 numbers.

    The names and the input are those of github.com/jusiro/FLAIR (flair/modeling/model.py): images of 512 pixels in
    units of 0 to 1, without mean and deviation.
    Deviation: FLAIR shrinks a photograph to fit the square and fills up with black at the right and at the bottom;
    here all encoders get the same crop, resized to `image_size`.

    Args:
        file: What follows `flair:`.
        image_size: Side of the input in pixels, None for 512.

    Raises:
        UserError: The file cannot be read safely, or its weights are not exactly those of FLAIR.
    """
    path = Path(file)
    weights = without(read_weights(path), DROPPED)
    strangers = [f"unexpected: {key}" for key in weights if not key.startswith(IMAGE_ENCODER)]
    if strangers or not weights:
        raise UserError(
            f"{path} is no file of FLAIR, whose weights lie under {', '.join((IMAGE_ENCODER, *DROPPED))}:\n"
            f"{listed(strangers) or f'missing: {IMAGE_ENCODER}*'}\n"
            "Give FLAIR's flair_resnet.pth, or the model.safetensors of its page at Hugging Face."
        )
    network = build_headless(NETWORK)
    load_exactly(
        network,
        {key.removeprefix(IMAGE_ENCODER): value for key, value in weights.items()},
        source=str(path),
        architecture=f"FLAIR's {NETWORK}",
    )
    return TimmEncoder(
        module=network,
        name=NETWORK,
        arguments={},
        stochastic_depth=True,
        image_size=image_size or 512,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        description=f"FLAIR, weights of {path}, without its projection",
    )
