"""How slowly the teacher follows the student."""

import math
from dataclasses import dataclass

from maskedclip_composer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The momentum teacher of mfd and dinov2.

    Attributes:
        momentum: The teacher keeps this share of itself in each step.
        final_momentum: Where a cosine over the whole training takes it, as in DINO; null keeps it constant.
    """

    momentum: float = 0.999
    final_momentum: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise UserError(f"teacher.momentum={self.momentum} is outside [0, 1).\nMaskedCLIP's value is 0.999.")
        if self.final_momentum is not None and not self.momentum <= self.final_momentum <= 1:
            raise UserError(
                f"teacher.final_momentum={self.final_momentum} is outside [{self.momentum}, 1]: the teacher slows "
                "down, it does not speed up.\nDINO's value is 1.0."
            )

    def at(self, done: float) -> float:
        """Return the momentum when the share `done` (0 to 1) of the steps is done."""
        if self.final_momentum is None:
            return self.momentum
        return self.final_momentum - (self.final_momentum - self.momentum) * (math.cos(math.pi * done) + 1) / 2
