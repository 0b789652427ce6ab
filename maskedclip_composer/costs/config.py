"""What a dry run assumes."""

from dataclasses import dataclass, field

from maskedclip_composer.costs.devices import DEVICES
from maskedclip_composer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """What a dry run (`dry_run=true`) assumes; training ignores it.

    Attributes:
        mfu: Share of a device's peak that the step reaches. Public marks: 0.45 on A100 and 0.3 on Hopper
            (docs/costs.md).
        ranks: Number of GPUs; null takes the number of processes that the dry run was started with.
        price_per_gpu_hour: In any currency; null says nothing of money.
        gpus: Names of devices to estimate for (`costs/devices.py`), in this order; the machine's own comes on top.
    """

    mfu: float = 0.4
    ranks: int | None = None
    price_per_gpu_hour: float | None = None
    gpus: list[str] = field(default_factory=lambda: list(DEVICES))

    def __post_init__(self) -> None:
        if not 0 < self.mfu <= 1:
            raise UserError(f"estimate.mfu={self.mfu} is no share, 0 to 1.\nA step reaches 0.3 to 0.6 of a GPU's peak.")
        if self.ranks is not None and self.ranks < 1:
            raise UserError(f"estimate.ranks={self.ranks} is not positive.\nLeave it out for the processes started.")
        if self.price_per_gpu_hour is not None and self.price_per_gpu_hour < 0:
            raise UserError(f"estimate.price_per_gpu_hour={self.price_per_gpu_hour} is negative.\nUse 0 or more.")
        for name in self.gpus:
            if name not in DEVICES:
                raise UserError(f"estimate.gpus: {name} is not known.\nKnown: {', '.join(DEVICES)}.")
