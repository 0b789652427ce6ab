"""Statistics of several seeds in one piece, from the probabilities; the report does it in steps, cell by cell."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskedclip_composer.evaluation.statistics.bootstrap import weighted_scores
from maskedclip_composer.evaluation.statistics.paired import Contrast, contrast


@dataclass(frozen=True)
class Difference:
    roc: Contrast
    prc: Contrast


def seed_mean_scores(
    probabilities: np.ndarray, one_hot: np.ndarray, weights: np.ndarray, skipped: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds of macro ROC and macro PRC in every draw; probabilities are [seeds, images, classes]."""
    roc, prc = zip(*(weighted_scores(seed, one_hot, weights, skipped) for seed in probabilities), strict=True)
    return np.mean(roc, axis=0), np.mean(prc, axis=0)


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, one_hot: np.ndarray, weights: np.ndarray, skipped: Sequence[int]
) -> Difference:
    """Compare the means over seeds of two models on the same draws."""
    once = np.ones((1, len(one_hot)), dtype=weights.dtype)
    parts = []
    for draws in (once, weights):
        own, other = (seed_mean_scores(model, one_hot, draws, skipped) for model in (ours, theirs))
        parts.append(np.subtract(own, other))
    observed, drawn = parts
    return Difference(*(contrast(float(observed[score, 0]), drawn[score]) for score in (0, 1)))
