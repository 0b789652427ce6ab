"""Several tests at once: p values that hold for all of them together."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that a false alarm among all of them has at most the level's probability.

    Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of Statistics 1979). The
    smallest of n is multiplied by n, the next by n - 1, and so on; none falls below the one before it, none exceeds 1.
    It holds however the tests depend on each other, as tests that share a baseline do.

    Of its own because statsmodels, which has it, is 12 MB for these lines.

    Args:
        p_values: One per test, in [0, 1].

    Returns:
        Adjusted, in the given order.

    Raises:
        ValueError: A value is not in [0, 1].
    """
    values = np.asarray(p_values, dtype=float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p values must lie in [0, 1], not {list(p_values)}")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted.tolist()
