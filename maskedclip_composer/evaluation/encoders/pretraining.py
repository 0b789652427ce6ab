"""What files of facebook's MAE and DINOv2 hold beside the encoder, under the names that it has here."""

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.weights import read_weights
from maskedclip_composer.export.parts import Part
from maskedclip_composer.models.transformer import sincos_positions

# Of all decoders that MAE has published: 512 channels in 16 heads.
DECODER_HEAD_DIM = 32
_DECODER = {
    "decoder_embed.": "embed.",
    "decoder_blocks.": "transformer.blocks.",
    "decoder_norm.": "transformer.norm.",
    "decoder_pred.": "predict.",
}
_POSITIONS = "decoder_pos_embed"
# Weights whose columns read the channels that positions are added to; the rows of all others write them.
_READING = ("attn.qkv.weight", "mlp.fc1.weight", "predict.weight")
_APART = ("attn.qkv.bias", "mlp.fc1.bias", "predict.bias")


def mae_parts(file: str) -> dict[str, Part]:
    """Read the pixel decoder of a pre-training file of MAE or RETFound as objective `mim` has it.

    MAE's positions are fixed sines and cosines too, but column before row, and sine beside cosine of the same axis. To
    reorder the decoder's channels gives the positions of this project and changes no prediction, so no positions are
    stored, and other image sizes have their own.

    Returns:
        Nothing where the file has no decoder, as after fine-tuning.

    Raises:
        UserError: The file cannot be read safely, or its decoder has other positions.
    """
    weights = read_weights(Path(file), ("model",))
    theirs = {key: value for key, value in weights.items() if key.startswith("decoder_")}
    if not theirs:
        return {}
    ours = {_renamed(key): value for key, value in theirs.items() if key != _POSITIONS}
    if "mask_token" in weights:
        ours["mask_token"] = weights["mask_token"]
    embed = ours.get("embed.weight")
    if embed is None or embed.ndim != 2 or _POSITIONS not in theirs:
        missing = _POSITIONS if _POSITIONS not in theirs else "decoder_embed.weight"
        raise UserError(f"The decoder in {file} is not whole.\nmissing: {missing}")
    dim = len(embed)
    order = _channels(dim)
    _check_positions(theirs[_POSITIONS], order, file)
    blocks = [int(found[1]) for key in ours if (found := re.match(r"transformer\.blocks\.(\d+)\.", key))]
    settings = {"dim": dim, "depth": 1 + max(blocks, default=-1), "num_heads": max(1, dim // DECODER_HEAD_DIM)}
    reordered = {f"pixel_decoder.{key}": _reordered(key, value, order) for key, value in ours.items()}
    return {"mim": Part(weights=reordered, settings=settings)}


def dinov2_parts(file: str) -> dict[str, Part]:
    """Read the heads of a training file of DINOv2 as objective `dinov2` has them, for student and teacher alike.

    DINOv2 scores with a linear layer of normalised rows, each times a length of its own; here there are no lengths.

    Returns:
        Nothing where the file has no heads, as those that facebook has published.

    Raises:
        UserError: The file cannot be read safely, or its prototypes have lengths other than 1.
    """
    weights = {
        key.removeprefix("backbone."): value for key, value in read_weights(Path(file), ("teacher", "model")).items()
    }
    found: dict[str, Tensor] = {}
    for name in ("dino", "ibot"):
        prefix = f"{name}_head."
        for key, value in weights.items():
            if key == f"{prefix}last_layer.weight_g":
                if not torch.allclose(value.float(), torch.ones(()), atol=1e-6):
                    raise UserError(
                        f"The prototypes of {prefix[:-1]} in {file} have lengths other than 1, which `dinov2` cannot "
                        "have.\nLeave dinov2 out of from_weights: its heads then start anew."
                    )
            elif key.startswith(prefix):
                ours = f"{name}.{key.removeprefix(prefix)}".replace("last_layer.weight_v", "prototypes")
                found |= {f"heads.{ours}": value, f"teacher_heads.{ours}": value}
    if found and "mask_token" in weights:
        found["mask_token"] = weights["mask_token"].reshape(1, 1, -1)
    return {"dinov2": Part(weights=found)} if found else {}


def _renamed(key: str) -> str:
    prefix = next((prefix for prefix in _DECODER if key.startswith(prefix)), None)
    return key if prefix is None else _DECODER[prefix] + key.removeprefix(prefix)


def _channels(dim: int) -> Tensor:
    """Return where each channel of our positions lies in MAE's: four blocks, one a function of one axis."""
    quarter = torch.arange(dim // 4)
    return torch.cat([quarter + block * (dim // 4) for block in (2, 0, 3, 1)])


def _check_positions(positions: Tensor, order: Tensor, file: str) -> None:
    side = math.isqrt(max(positions.shape[1] - 1, 0)) if positions.ndim == 3 else 0
    dim = len(order)
    if side and positions.shape == (1, 1 + side * side, dim):
        expected = sincos_positions((side, side), dim)
        if torch.allclose(positions[:, :, order].float(), expected, atol=1e-4):
            return
    raise UserError(
        f"{_POSITIONS} in {file} are not MAE's fixed sines and cosines of a square, which the decoder here has.\n"
        "Leave mim out of from_weights: its decoder then starts anew."
    )


def _reordered(key: str, value: Tensor, order: Tensor) -> Tensor:
    if key.endswith(_APART):
        return value
    axis = -1 if key.endswith(_READING) or key == "mask_token" else 0
    fits = value.ndim > 0 and value.shape[axis] == len(order)
    return value.index_select(axis, order) if fits else value  # what does not fit is named where it is loaded
