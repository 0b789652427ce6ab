"""Whether a metric falls, rises or does neither, and when it is too short for a word about it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

BLOCKS = 15
FEWEST = 30
"""Records under which nothing is said: a block is then a mean of two."""
LEVEL = 0.05
SMALL = 0.02
"""Share of the range of a metric's means under which a change says nothing, however sure it is."""

Direction = Literal["falling", "rising", "level", "short"]


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Of a metric.

    Attributes:
        first: Mean of the first tenth of the records.
        last: Mean of the last tenth.
        overall: Direction from the first third of the run to its last.
        lately: Direction within the last third.
    """

    first: float
    last: float
    overall: Direction
    lately: Direction


def trend(values: Float[np.ndarray, " records"]) -> Trend:
    """Judge the values of a metric in the order of their steps; those that are not finite are left out.

    The records are averaged in 15 blocks of equal length. Of the whole run the first five means are tested against the
    last five (Mann and Whitney, two-sided, 5 %), of its last third Kendall's tau of the means against their order:
    both ask for no shape of the curve and are not moved by single bad batches. What is not significant is called
    level, which a slow trend in much noise is too.

    Args:
        values: Of one metric.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return Trend(first=float("nan"), last=float("nan"), overall="short", lately="short")
    tenth = max(1, len(values) // 10)
    first, last = float(values[:tenth].mean()), float(values[-tenth:].mean())
    if len(values) < FEWEST:
        return Trend(first=first, last=last, overall="short", lately="short")
    from scipy.stats import kendalltau, mannwhitneyu  # takes a second to import

    means = _means(values)
    third = BLOCKS // 3
    begin, end = means[:third], means[-third:]
    overall = _direction(float(end.mean() - begin.mean()), float(mannwhitneyu(begin, end).pvalue), np.ptp(means))
    newest = values[-(len(values) // 3) :]
    if len(newest) < FEWEST:
        return Trend(first=first, last=last, overall=overall, lately="short")
    late = _means(newest)
    order: Any = kendalltau(range(BLOCKS), late) if np.ptp(late) else None
    p = 1.0 if order is None else float(order.pvalue)
    change = float(late[-third:].mean() - late[:third].mean())
    return Trend(first=first, last=last, overall=overall, lately=_direction(change, p, np.ptp(means)))


def _means(values: Float[np.ndarray, " records"]) -> Float[np.ndarray, " blocks"]:
    return np.array([block.mean() for block in np.array_split(values, BLOCKS)])


def _direction(change: float, p: float, extent: float) -> Direction:
    if p >= LEVEL or abs(change) <= SMALL * extent:
        return "level"
    return "falling" if change < 0 else "rising"
