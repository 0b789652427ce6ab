"""When a number of the diagnostics is a sign that training goes wrong. Without Composer, for what reads a run."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from maskedclip_composer.callbacks.config import WatchConfig

MOMENTUM = 0.8  # of the mean over records: one batch says little
RECOVERY = 1.5  # times its threshold a number is well again: one that hovers about it is warned of once
# So far above a collapsed model's the best has to be for a fall to mean something: pairs find each other by chance too.
LEAST = {"variance": 0.0, "effective_rank": 0.5, "retrieval": 0.2}

Kind = Literal["logit_scale", "variance", "effective_rank", "retrieval"]


@dataclass
class Watched:
    """A number over the run: its mean over the newest records, the best of that mean, and whether it is bad now."""

    mean: float
    best: float
    is_bad: bool = False

    def add(self, value: float) -> None:
        """Take a record in."""
        self.mean += (1 - MOMENTUM) * (value - self.mean)
        self.best = max(self.best, self.mean)

    def is_bad_now(self, kind: Kind, share: float) -> bool:
        """Tell whether it is beyond its threshold, after what it was at the record before.

        Args:
            kind: What it measures.
            share: `WatchConfig`'s of that kind.
        """
        if kind == "logit_scale":
            return self.mean >= share
        if self.is_bad:
            return self.mean < min(1.0, RECOVERY * share) * self.best
        return self.best > LEAST[kind] and self.mean < share * self.best


def judged_numbers(
    numbers: Mapping[str, float], config: WatchConfig, limits: Mapping[str, float]
) -> Iterator[tuple[str, Kind, float, float]]:
    """Yield those of a step's numbers that are watched and finite: name, kind, threshold, value.

    The value is how far a number is above that of a collapsed model: 0 for a variance, 1 for an effective rank, chance
    for retrieval; of a logit scale it is the share of its limit.

    Args:
        numbers: By name, `<objective>/<number>`.
        config: The thresholds.
        limits: Of the logit scale, by objective.
    """
    for name, value in numbers.items():
        objective, _, number = name.partition("/")
        kind = _kind(number)
        share = None if kind is None else getattr(config, kind)
        if kind is None or share is None or not math.isfinite(value):
            continue
        if kind == "logit_scale":
            value /= limits.get(objective, math.inf)
        elif kind == "retrieval":
            value -= numbers.get(f"{objective}/retrieval_chance", 0.0)
        elif kind == "effective_rank":
            value -= 1
        yield name, kind, share, value


def _kind(number: str) -> Kind | None:
    if number.endswith("retrieval_at_1"):
        return "retrieval"
    kinds: tuple[Kind, ...] = ("logit_scale", "variance", "effective_rank")
    return next((kind for kind in kinds if number.endswith(kind)), None)
