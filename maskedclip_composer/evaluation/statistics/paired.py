"""Whether one model is better than another on the same test images, by resampling patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

from maskedclip_composer.evaluation.statistics.bootstrap import interval
from maskedclip_composer.evaluation.statistics.over_seeds import seed_mean_scores

# Below this a difference is what rounding leaves of zero.
_ZERO = 1e-12


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


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs in macro ROC and in macro PRC."""

    roc: Contrast
    prc: Contrast


def paired_difference(
    ours: Float[np.ndarray, "our_seeds images classes"],
    theirs: Float[np.ndarray, "their_seeds images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    weights: Integer[np.ndarray, "draws images"],
    skipped: Sequence[int],
) -> Difference:
    """Compare the means over seeds of two models on the same draws.

    An image that is hard is hard for both, so the difference varies far less than the two scores do; two intervals that
    overlap therefore do not say that the models are equal.

    p asks how often a draw falls on the other side of zero: min(1, 2 (1 + min(#(d <= 0), #(d >= 0))) / (draws + 1)). It
    inverts the percentile interval (p below 0.05 about where the interval leaves zero out), the one added to either
    count keeping it above zero as in every Monte Carlo test. It takes over the error of that interval, which is rather
    too narrow where a class has few positives.

    Args:
        ours: Probabilities of each seed.
        theirs: The same images in the same order; the number of seeds may differ.
        one_hot: Which classes each image has.
        weights: From `resampling_weights`.
        skipped: Classes left out of both, as in `Metrics`.

    Returns:
        Difference, interval and p of both scores.

    Raises:
        ValueError: The models were not scored on the same images and classes.
    """
    if not ours.shape[1:] == theirs.shape[1:] == one_hot.shape:
        raise ValueError(f"{ours.shape[1:]} and {theirs.shape[1:]} probabilities for {one_hot.shape} labels")
    once = np.ones((1, len(one_hot)), dtype=weights.dtype)
    observed = _differences(ours, theirs, one_hot, once, skipped)
    drawn = _differences(ours, theirs, one_hot, weights, skipped)
    return Difference(roc=contrast(float(observed[0, 0]), drawn[0]), prc=contrast(float(observed[1, 0]), drawn[1]))


def contrast(observed: float, drawn: Float[np.ndarray, " draws"]) -> Contrast:
    """Put a difference together with its values in every draw, for scores that were computed elsewhere.

    Args:
        observed: On the split itself.
        drawn: Per draw, both sides on the same draw; NaN is passed over.

    Returns:
        As in `paired_difference`.
    """
    drawn = drawn[np.isfinite(drawn)]
    low, high = interval(drawn)
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Contrast(difference=observed, low=low, high=high, p=float(min(1, 2 * (1 + beyond) / (len(drawn) + 1))))


def _differences(
    ours: Float[np.ndarray, "our_seeds images classes"],
    theirs: Float[np.ndarray, "their_seeds images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    weights: Integer[np.ndarray, "draws images"],
    skipped: Sequence[int],
) -> Float[np.ndarray, "2 draws"]:
    own, other = (seed_mean_scores(model, one_hot, weights, skipped) for model in (ours, theirs))
    return np.subtract(own, other)
