"""Whether one model is better than another on the same test images, by resampling patients."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from maskedclip_composer.evaluation.statistics.bootstrap import interval


@dataclass(frozen=True)
class Contrast:
    """Ours minus theirs in one score.

    Attributes:
        difference: On the split itself.
        low: Lower end of the 95 % percentile interval.
        high: Upper end.
        p: Two-sided; at least 2 / (draws + 1).
    """

    difference: float
    low: float
    high: float
    p: float


def contrast(observed: float, drawn: Float[np.ndarray, " draws"]) -> Contrast:
    """Put a difference together with its values when the test patients are drawn anew.

    An image that is hard is hard for both, so the difference varies far less than the two scores do; two intervals that
    overlap therefore do not say that the models are equal.

    p asks how often a draw falls on the other side of zero: min(1, 2 (1 + min(#(d <= 0), #(d >= 0))) / (draws + 1)). It
    inverts the percentile interval (p below 0.05 about where the interval leaves zero out), the one added to either
    count keeping it above zero as in every Monte Carlo test. It takes over the error of that interval, which is rather
    too narrow where a class has few positives.

    Args:
        observed: Ours minus theirs on the split itself, for example of means over seeds.
        drawn: The same in each draw, both sides on the same one; NaN is passed over.
    """
    drawn = drawn[np.isfinite(drawn)]
    low, high = interval(drawn)
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Contrast(difference=observed, low=low, high=high, p=float(min(1, 2 * (1 + beyond) / (len(drawn) + 1))))
