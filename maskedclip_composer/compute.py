"""How a training step is computed: what makes it faster or smaller and leaves the result as it is."""

import re
from dataclasses import dataclass, field
from typing import Literal

from maskedclip_composer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ActivationConfig:
    """What of a tower's forward pass is kept for its backward pass.

    `none` keeps everything. `full` keeps the input of each block and computes the block again, which costs about a
    quarter of the step's time for all towers together. `budget:0.5` lets torch.compile choose what is cheap to compute
    again until the given share of the memory is left; it needs `compute.compile`.

    Attributes:
        image: E_I and the bridge.
        text: E_T; a budget is not available, because E_T is not compiled.
        decoders: Of all objectives.
    """

    image: str = "none"
    text: str = "none"
    decoders: str = "none"

    def __post_init__(self) -> None:
        for key in ("image", "text", "decoders"):
            value = getattr(self, key)
            share = budget(value)
            if value not in ("none", "full") and (share is None or share >= 1):
                raise UserError(
                    f"compute.activation.{key}={value} is not available.\nUse none, full or budget: with a share of "
                    "the memory between 0 and 1, for example budget:0.5."
                )
        if budget(self.text) is not None:
            raise UserError(
                f"compute.activation.text={self.text}: the text encoder is not compiled, so nothing keeps a budget.\n"
                "Use none or full."
            )


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How a step is computed. No key but `residual` and `fp8` changes a loss or a gradient by more than rounding.

    Attributes:
        packed: Encode the visible patches and the whole images of the student in one pass, where a recipe has both.
        masked_only: Let the pixel decoder predict the removed patches alone, the only ones with a loss.
        distinct_texts: Encode each text of a device batch once, padded to the longest of them; false encodes one text
            a pair, padded to `data.max_tokens`.
        distinct_logits: Compare images with distinct texts and with the means of labels; false compares all pairs.
        fused_optimizer: AdamW in one kernel for many parameters; false updates them one by one.
        compile: blocks compiles the transformer blocks of the image side; auto does so on CUDA and goes on without
            where the compiler fails; none does not.
        activation: What is kept for the backward pass.
        chunk_size: Encode and decode so many images at a time and compute each chunk again in the backward pass; null
            takes the device batch as a whole. The contrastive loss still sees all pairs.
        residual: autocast hands tokens from block to block in the type that autocast computes in; float32 is what
            autocast does by itself. Fewer bytes, sums rounded to 16 bits; no effect with `trainer.precision=fp32`.
        fp8: teacher computes the teacher's linear layers in 8 bits, linears those of the student's image side too. This
            changes the result (docs/performance.md) and needs the extra `fp8`.
    """

    packed: bool = True
    masked_only: bool = True
    distinct_texts: bool = True
    distinct_logits: bool = True
    fused_optimizer: bool = True
    compile: Literal["auto", "blocks", "none"] = "auto"
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    chunk_size: int | None = None
    residual: Literal["float32", "autocast"] = "float32"
    fp8: Literal["none", "teacher", "linears"] = "none"

    def __post_init__(self) -> None:
        if self.chunk_size is not None and self.chunk_size < 1:
            raise UserError(f"compute.chunk_size={self.chunk_size} is not positive.\nLeave it out for the whole batch.")
        for key in ("image", "decoders"):
            if self.compile == "none" and budget(getattr(self.activation, key)) is not None:
                raise UserError(
                    f"compute.activation.{key}={getattr(self.activation, key)} is kept by the compiler, but "
                    "compute.compile=none.\nSet compute.compile=blocks, or use full."
                )


def budget(activation: str) -> float | None:
    """Return the share of memory that `budget:0.5` names, None for anything else."""
    found = re.fullmatch(r"budget:(\d*\.?\d+)", activation)
    return float(found[1]) if found else None
