"""What a kind of picture is drawn of, and what it gives."""

import textwrap
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from maskedclip_composer.objectives.mim import MaskedImageModelling
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.tokenizer import Tokenizer

_TITLE = 32  # characters that fit above a photograph


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model whose pictures are drawn.

    Attributes:
        name: Of its run, or of its folder.
        step: Optimiser steps it was trained for; None where its source does not say.
        model: In evaluation mode.
        tokenizer: None where it was trained without texts.
        mim: Masked image modelling with its pixel decoder; None where the source has none.
        mask_ratio: Of its training; None likewise.
    """

    name: str
    step: int | None
    model: DualTower
    tokenizer: Tokenizer | None
    mim: MaskedImageModelling | None = None
    mask_ratio: float | None = None

    def title(self, what: str) -> str:
        """Return the title of a picture."""
        step = "" if self.step is None else f", step {self.step}"
        return f"{self.name}{step}: {what}"


@dataclass(frozen=True)
class Shown:
    """The photographs that are drawn.

    Attributes:
        images: The model's input.
        rows: What stands beside each.
    """

    images: UInt8[Tensor, "images 3 size size"]
    rows: list[str]

    @property
    def pixels(self) -> Float[Tensor, "images 3 size size"]:
        """In [0, 1]."""
        return self.images.float() / 255

    @property
    def pale(self) -> Float[Tensor, "images 3 size size"]:
        """Without colours and in light greys, to lie under a heat map: its colours are then nearly those of its bar."""
        return 0.5 + 0.5 * self.pixels.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A picture with what is to be said about it.

    Attributes:
        name: Of its file, without suffix.
        heading: In the page.
        png: The file.
        reading: How to read it.
        limits: What it does not show.
        numbers: For `pictures.json`.
    """

    name: str
    heading: str
    png: bytes
    reading: str
    limits: str
    numbers: dict[str, Any] = field(default_factory=dict)


def wrapped(text: str, width: int = _TITLE, lines: int = 3) -> str:
    """Break a text into short lines, and end it with an ellipsis where it is too long for them."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …") or [""])
