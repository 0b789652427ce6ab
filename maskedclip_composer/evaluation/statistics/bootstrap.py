"""How far a score would move if the test split had been drawn again, by resampling its patients.

Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 (data that come in units) and 13 (percentiles).
A draw is a weight per image, so one draw serves all seeds and models that are compared on the split.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

# Cells (draw and image) that are scored at a time: half a dozen arrays of eight bytes each, which stay in the cache.
# With 40 times as many it took twice as long, half of it in the kernel for fresh memory.
_CHUNK = 50_000


def resampling_weights(
    one_hot: Bool[np.ndarray, "images classes"], patients: Sequence[str], *, draws: int = 2000, seed: int
) -> Integer[np.ndarray, "draws images"]:
    """Draw patients with replacement and say how often each image then occurs.

    Patients are the units because two images of one patient say less than two of strangers. They are drawn within
    strata, so that no draw loses a rare class to chance: the stratum of a patient is, of the labels that any of their
    images has, the one that the fewest images of the split have (the first of equals); patients without a label are a
    stratum too. Every stratum keeps its number of patients; its number of images varies with theirs.

    The price: variance between strata is not counted, and a patient alone in a stratum is in every draw once, so an
    interval is too narrow for a class that only a few patients have.

    Args:
        one_hot: Which classes each image has.
        patients: Of each image; '' where unknown, which makes the image a patient of its own.
        draws: Number of resampled splits.
        seed: Equal seeds give equal weights.

    Returns:
        Multiplicity of each image in each draw.

    Raises:
        ValueError: Images and patients differ in number.
    """
    if len(patients) != len(one_hot):
        raise ValueError(f"{len(patients)} patients for {len(one_hot)} images")
    numbers: dict[str | int, int] = {}
    patient = np.array([numbers.setdefault(name or image, len(numbers)) for image, name in enumerate(patients)], int)
    strata = _strata(one_hot, patient)
    rng = np.random.default_rng(seed)
    # Far beyond any multiplicity that chance gives, and a quarter of the memory of eight bytes.
    multiplicity = np.empty((draws, len(strata)), dtype=np.int16)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        share = np.full(len(members), 1 / len(members))
        multiplicity[:, members] = rng.multinomial(len(members), share, size=draws)
    return multiplicity[:, patient]


def weighted_scores(
    probabilities: Float[np.ndarray, "images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    weights: Integer[np.ndarray, "draws images"],
    skipped: Sequence[int],
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Macro ROC and macro PRC of every draw, as scikit-learn gives them with `sample_weight`, ties included.

    A class without a positive or without a negative in a draw is left out of that draw's mean.

    Args:
        probabilities: One row per image.
        one_hot: Which classes each image has.
        weights: Multiplicity of each image in each draw; ones give the scores of the split itself.
        skipped: Classes left out of every mean, as in `Metrics`.

    Returns:
        Means over classes of the area under the ROC curve and of the average precision, per draw; NaN for a draw in
        which no class is left.
    """
    roc, prc = np.empty(len(weights)), np.empty(len(weights))
    rows = max(1, _CHUNK // max(1, len(one_hot)))
    classes = [index for index in range(one_hot.shape[1]) if index not in set(skipped)]
    for start in range(0, len(weights), rows):
        chunk = slice(start, start + rows)
        scores = np.zeros((2, len(weights[chunk])))
        defined = np.zeros(len(weights[chunk]))
        for index in classes:
            of_class = _one_against_rest(probabilities[:, index], one_hot[:, index], weights[chunk])
            defined += np.isfinite(of_class[0])
            scores += np.nan_to_num(of_class)
        with np.errstate(invalid="ignore"):
            roc[chunk], prc[chunk] = scores / defined
    return roc, prc


def interval(values: Float[np.ndarray, " draws"], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a statistic from its value in every draw.

    Args:
        values: One per draw; NaN (undefined in the draw) is passed over.
        level: Share of the draws inside, equally many left out at either end.

    Returns:
        Lower and upper end; NaN if no draw has a value.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _strata(
    one_hot: Bool[np.ndarray, "images classes"], patient: Int[np.ndarray, " images"]
) -> Int[np.ndarray, " patients"]:
    """The rarest label of each patient, -1 without one."""
    has = np.zeros((int(patient.max(initial=-1)) + 1, one_hot.shape[1]), dtype=bool)
    np.logical_or.at(has, patient, one_hot)
    rarest = np.where(has, one_hot.sum(axis=0), len(one_hot) + 1).argmin(axis=1)
    return np.where(has.any(axis=1), rarest, -1)


def _one_against_rest(
    scores: Float[np.ndarray, " images"],
    positive: Bool[np.ndarray, " images"],
    weights: Integer[np.ndarray, "draws images"],
) -> Float[np.ndarray, "2 draws"]:
    """Area under the ROC curve and average precision of one class, NaN where a draw has only one kind of image."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    # Equal scores enter the curve together.
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    weights = weights[:, order]
    found = np.add.reduceat(weights * positive[order], starts, axis=1, dtype=np.float64)
    false = np.add.reduceat(weights * ~positive[order], starts, axis=1, dtype=np.float64)
    all_found, all_false = found.cumsum(axis=1), false.cumsum(axis=1)
    positives, negatives = all_found[:, -1], all_false[:, -1]
    # Trapezoids: a negative loses to the positives above it, and half to those it ties with.
    area = np.einsum("dg,dg->d", false, all_found - found / 2)
    # An empty beginning of the list (weights of zero) has no precision and adds no recall.
    precision = all_found / np.maximum(all_found + all_false, 1)
    steps = np.einsum("dg,dg->d", found, precision)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = np.stack([area / (positives * negatives), steps / positives])
    result[:, (positives == 0) | (negatives == 0)] = np.nan
    return result
