"""What several seeds of one model say together."""

import statistics
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from maskedclip_composer.evaluation.statistics.bootstrap import weighted_scores


def summary(scores: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and sample standard deviation (n - 1), None for one seed. Nothing is rounded.

    The deviation tells how much a run depends on its seed. It says nothing about the patients of the test split, which
    all seeds share: see `seed_mean_scores`.

    Raises:
        statistics.StatisticsError: There is no score.
    """
    return statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else None


def seed_mean_scores(
    probabilities: Float[np.ndarray, "seeds images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    weights: Integer[np.ndarray, "draws images"],
    skipped: Sequence[int],
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Mean over seeds of macro ROC and macro PRC in every draw: `interval` of it is that of the mean over seeds.

    All seeds are scored on the same draw, because they share the test split. The seeds themselves are not resampled:
    the interval is for these runs on other patients.

    Args:
        probabilities: Of each seed, on the same images in the same order.
        one_hot: Which classes each image has.
        weights: From `resampling_weights`.
        skipped: Classes left out, as in `Metrics`.

    Returns:
        ROC and PRC per draw, as `weighted_scores` gives them.
    """
    roc, prc = zip(*(weighted_scores(seed, one_hot, weights, skipped) for seed in probabilities), strict=True)
    return np.mean(roc, axis=0), np.mean(prc, axis=0)
