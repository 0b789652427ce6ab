"""Golden inputs of an exported model, and what it made of them when it was exported."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.tokenizer import Tokenizer

FORMAT = "maskedclip-golden-1"
TENSORS, DESCRIPTION = "golden.safetensors", "golden.json"
PROMPTS = (
    "fundus photograph",
    "normal fundus",
    "diabetic retinopathy",
    "glaucoma",
    "age-related macular degeneration",
)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Inputs and outputs.

    Attributes:
        target: What the folder was exported to.
        prompts: Texts, where the exported model reads texts.
        logit_scale: Of the joint space; 1 where there is none.
        inputs: `images` [3, 3, size, size] uint8; with texts `text_ids` and `text_mask` [5, tokens].
        outputs: `features`; with texts `image_features`, `text_features` and `logits` [3, 5].
        versions: Of the libraries that computed them.
    """

    target: str
    prompts: tuple[str, ...]
    logit_scale: float
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    versions: dict[str, str]


def draw_images(size: int, count: int = 3) -> UInt8[Tensor, "count 3 size size"]:
    """Draw discs of smooth, strong colours on black: nobody's photographs, and the same in every export."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True).clamp(0, 1)
    place = torch.linspace(-1, 1, size)
    disc = (place[:, None] ** 2 + place[None] ** 2) <= 0.95**2
    return (smooth * disc * 255).round().to(torch.uint8)


def compute_golden(target: str, model: DualTower, tokenizer: Tokenizer | None) -> Golden:
    """Compute what `model` makes of the golden inputs.

    Args:
        target: What is exported to.
        model: On the CPU.
        tokenizer: None where the exported model does not read texts.
    """
    from importlib.metadata import version

    inputs: dict[str, Tensor] = {"images": draw_images(model.image_size)}
    outputs = {"features": model.encode_features(inputs["images"])}
    scale = 1.0
    if tokenizer is not None:
        inputs |= tokenizer(PROMPTS)
        scale = model.logit_scale
        image, text = model.encode_image(inputs["images"]), model.encode_text(inputs["text_ids"], inputs["text_mask"])
        outputs |= {"image_features": image, "text_features": text, "logits": scale * image @ text.T}
    return Golden(
        target=target,
        prompts=PROMPTS if tokenizer is not None else (),
        logit_scale=scale,
        inputs=inputs,
        outputs=outputs,
        versions={name: version(name) for name in ("torch", "timm", "transformers")},
    )


def write_golden(folder: Path, golden: Golden) -> None:
    """Write the tensors and the rest into two files of `folder`."""
    plain = asdict(golden)
    tensors = plain.pop("inputs") | plain.pop("outputs")
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / TENSORS)
    (folder / DESCRIPTION).write_text(json.dumps({"format": FORMAT, **plain}, indent=2) + "\n")


def read_golden(folder: Path) -> Golden:
    """Read what `write_golden` wrote.

    Raises:
        UserError: A file is absent, damaged or of another kind.
    """
    try:
        plain: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
        tensors = load_file(folder / TENSORS)
        if plain.pop("format") != FORMAT:
            raise ValueError("another format")
        inputs = {name: tensors.pop(name) for name in ("images", "text_ids", "text_mask") if name in tensors}
        return Golden(**plain | {"prompts": tuple(plain["prompts"])}, inputs=inputs, outputs=tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{folder / DESCRIPTION} and {TENSORS} cannot be read ({error}).\n"
            "Give a folder that `python -m maskedclip_composer export` wrote."
        ) from error
