"""One row per task, protocol, amount and encoder: means over seeds with what surrounds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from maskedclip_composer.evaluation.cells import Outcome
from maskedclip_composer.evaluation.metrics import METRIC_NAMES
from maskedclip_composer.evaluation.statistics.bootstrap import interval
from maskedclip_composer.report.groups import Key, Results
from maskedclip_composer.report.resampling import Draws, mean_over_seeds


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All seeds of a group.

    Attributes:
        seeds: That are finished.
        mean: Over seeds, of every metric that the task has.
        deviation: Sample standard deviation over seeds; empty for one seed.
        intervals: 95 % interval of the mean of `roc` and `prc` when the test patients are drawn anew.
        train_images: Least and most over seeds.
        steps: Likewise.
        contaminated: Test photographs that pre-training has seen; None where unknown.
        skipped: Classes, by column, that the means of any seed leave out.
    """

    seeds: list[int]
    mean: dict[str, float]
    deviation: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    train_images: tuple[int, int]
    steps: tuple[int, int]
    contaminated: int | None
    skipped: list[int]

    @property
    def half_width(self) -> float:
        """Of the interval of ROC."""
        low, high = self.intervals["roc"]
        return (high - low) / 2


def summarise(results: Results, resampled: Mapping[Key, Mapping[int, Draws]]) -> dict[Key, Summary]:
    """Return a row per group: tasks, protocols and encoders in the suite's order, amounts ascending."""
    keys = [
        Key(task=task, protocol=protocol, amount=amount, encoder=encoder)
        for protocol, amount in results.settings
        for task in results.tasks
        for encoder in results.encoders
    ]
    return {key: _summary(results, key, resampled[key]) for key in keys if key in results.groups}


def _summary(results: Results, key: Key, resampled: Mapping[int, Draws]) -> Summary:
    outcomes = results.groups[key]
    draws = mean_over_seeds(resampled, outcomes)
    values = {name: _values(list(outcomes.values()), name) for name in METRIC_NAMES}
    return Summary(
        seeds=sorted(outcomes),
        mean={name: float(np.mean(column)) for name, column in values.items() if column},
        deviation={name: float(np.std(column, ddof=1)) for name, column in values.items() if len(column) > 1},
        intervals={"roc": interval(draws.roc), "prc": interval(draws.prc)},
        train_images=_extent([outcome.train_images for outcome in outcomes.values()]),
        steps=_extent([outcome.steps for outcome in outcomes.values()]),
        contaminated=results.suite.encoders[key.encoder].contaminated.get(key.task),
        skipped=sorted({index for outcome in outcomes.values() for index in outcome.metrics["skipped"]}),
    )


def _values(outcomes: list[Outcome], name: str) -> list[float]:
    """Return one value per seed; none where a seed's is undefined, since a mean over the rest misleads."""
    values = [cast(Mapping[str, Any], outcome.metrics).get(name) for outcome in outcomes]
    found = [float(value) for value in values if value is not None and np.isfinite(value)]
    return found if len(found) == len(outcomes) else []


def _extent(values: list[int]) -> tuple[int, int]:
    return min(values), max(values)
