"""What an objective is, and what its config says of it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from maskedclip_composer.compute import ComputeConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.models.views import Views
from maskedclip_composer.models.vit import ImageEncoder

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


class Objective(nn.Module, ABC):
    """One term of the training loss: heads of its own, and a pure loss of what they return.

    `forward(views)` asks the views for the encodings that it needs and returns exactly the keyword arguments of
    `loss`. All parameters are used in `forward`: Composer calls losses outside the wrapped model.

    Args:
        weight: Factor of the loss in the total.
    """

    loss: Callable[..., Tensor]  # of the class, or of an instance whose settings choose it

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return the keyword arguments of `loss` for one batch."""

    def diagnose(self, **outputs: Tensor) -> dict[str, Tensor]:
        """Return numbers that show whether the loss does what it should, from a step's detached outputs."""
        return {}

    def on_progress(self, done: float) -> None:
        """Set what follows a schedule; called before each step with the share of training that is done."""

    def momentum_pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Return (teacher, student) for each module of this objective that follows another by momentum."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the heads of an objective are built for.

    Attributes:
        image_encoder: E_I.
        text_encoder: E_T; None where no objective reads texts.
        tokenizer: E_T's; None likewise.
        categories: Names of the categories that the texts are drawn from, in the words of the prompt pack.
        compute: How a step is computed.
    """

    image_encoder: ImageEncoder
    text_encoder: TextEncoder | None = None
    tokenizer: "PreTrainedTokenizerBase | None" = None
    categories: tuple[str, ...] = ()
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    @property
    def text_dim(self) -> int:
        """Width of E_T's tokens."""
        assert self.text_encoder is not None  # the config makes sure of it where an objective reads texts
        return self.text_encoder.embed_dim


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(ABC):
    """An objective's settings, and the facts that a run's config is checked by.

    Attributes:
        key: Name in the yaml.
        needs: Keys of `data` that have to be given.
        uses_unpaired: Whether images without texts take part.
        trains_bridge: Whether the bridge receives a gradient.
        needs_teacher: Whether it reads features of the momentum teacher.
        is_two_tower: Whether it is a `TwoTower`: images and texts meet in one space.
        needs_joint_space: Whether it looks something up in the space of a two-tower objective.
        masks_at_random: Whether it reads views whose patches `mask_ratio` removes.
        reads_whole: Whether it reads whole paired images of the student.
        has_decoder: Whether it has a decoder, whose activations can be computed again.
        weight: Factor of the loss in the total.
    """

    key: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    uses_unpaired: ClassVar[bool] = False
    trains_bridge: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    is_two_tower: ClassVar[bool] = False
    needs_joint_space: ClassVar[bool] = False
    masks_at_random: ClassVar[bool] = False
    reads_whole: ClassVar[bool] = False
    has_decoder: ClassVar[bool] = False

    weight: float = 1.0

    def __post_init__(self) -> None:
        # Zero would silently switch the objective off, a negative weight would turn it round.
        if not 0 < self.weight < math.inf:
            raise UserError(
                f"objectives.{self.key}.weight={self.weight} is not positive.\n"
                f"Remove objectives.{self.key} from the yaml to leave the objective out."
            )

    @abstractmethod
    def build(self, parts: Parts) -> Objective:
        """Build the objective with its heads.

        Raises:
            UserError: Sizes do not fit together.
        """


def reads_both_views(objectives: Iterable[ObjectiveConfig]) -> bool:
    """Return whether each step encodes visible patches and whole paired images, which can then be packed."""
    objectives = list(objectives)
    return any(o.masks_at_random for o in objectives) and any(o.reads_whole for o in objectives)
