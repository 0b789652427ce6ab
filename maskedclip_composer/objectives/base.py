"""What an objective is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.views import Views


class Objective(nn.Module, ABC):
    """One term of the training loss: heads of its own, and a pure loss of what they return.

    `forward(views)` asks the views for the encodings that it needs and returns exactly the keyword arguments of
    `loss`. All parameters are used in `forward`: Composer calls losses outside the wrapped model.

    Args:
        weight: Factor of the loss in the total.
    """

    loss: ClassVar[Callable[..., Tensor]]

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return the keyword arguments of `loss` for one batch."""


def check_weight(objective: str, weight: float) -> None:
    """Refuse a weight that would silently switch an objective off or turn it round."""
    if not 0 < weight < math.inf:
        raise UserError(
            f"objectives.{objective}.weight={weight} is not positive.\n"
            f"Remove objectives.{objective} from the yaml to leave the objective out."
        )
