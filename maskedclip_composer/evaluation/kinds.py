"""Words that all of the evaluation shares: what a label is, and how much of the training split is used."""

from dataclasses import dataclass
from typing import Literal

from maskedclip_composer.errors import UserError

TargetKind = Literal["nominal", "ordinal", "multilabel"]
"""nominal: one class each. ordinal: one grade each, in the order of the classes. multilabel: any number of labels."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """A part of the training split: a fraction of it, or so many images of each class, or none of it (zero-shot).

    Attributes:
        fraction: In (0, 1].
        shots: Images of each class, from 1.
    """

    fraction: float | None = None
    shots: int | None = None

    def __post_init__(self) -> None:
        if self.fraction is not None and self.shots is not None:
            raise ValueError("an amount is a fraction or a number of shots")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise UserError(f"fractions={self.fraction:g} must lie above 0 and at most at 1; ten per cent is 0.1.")
        if self.shots is not None and self.shots < 1:
            raise UserError(f"shots={self.shots} must be at least 1.")

    @property
    def name(self) -> str:
        """Name in folders and tables: 10%, 5-shot, zero-shot."""
        if self.fraction is not None:
            return f"{100 * self.fraction:g}%"
        return f"{self.shots}-shot" if self.shots is not None else "zero-shot"

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing to draw."""
        return self.fraction == 1 or (self.fraction is None and self.shots is None)
