"""DeLong's test of two areas under the ROC curve, extended to means over classes and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm, rankdata

# Below this a standard error is what rounding leaves of zero.
_ZERO = 1e-12


@dataclass(frozen=True)
class DeLong:
    """Ours minus theirs in macro ROC.

    Attributes:
        difference: Of the means over seeds.
        standard_error: Of the difference.
        z: Their ratio, 0 where the standard error is 0.
        p: Two-sided, from the normal distribution; 1 where the standard error is 0.
    """

    difference: float
    standard_error: float
    z: float
    p: float


def delong_test(
    ours: Float[np.ndarray, "our_seeds images classes"],
    theirs: Float[np.ndarray, "their_seeds images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    skipped: Sequence[int],
) -> DeLong:
    """Test the difference of two macro ROC, each a mean over seeds, on the same images.

    DeLong, DeLong & Clarke-Pearson (Biometrics 1988), by the midranks of Sun & Xu (IEEE Signal Processing Letters
    2014). For one class and one seed the area A over m positives and n negatives is a mean over pairs. Let V(i) be, for
    a positive i, the share of negatives it beats (ties count half) and, for a negative, the share of positives that
    beat it. Their estimate of the variance is S+ / m + S- / n, with S+ and S- the sample variances of V within
    positives and within negatives. That is a sum of squares over images, sum_i a(i)^2 with

        a(i) = (V(i) - A) / sqrt(m (m - 1)) for a positive, (V(i) - A) / sqrt(n (n - 1)) for a negative:

    the influence of the image on A. Influence is linear: the influence on a mean over classes and seeds is the mean
    of the influences, that on a difference their difference, and the variance is again the sum of squares. For two
    classes whose probabilities add up to one, both columns give the same a(i), and this is the classical test.

    Deviation, beyond two classes: an image is a positive of one class and a negative of others, so the two groups of
    DeLong are not fixed across classes. Here images, labels included, are independent draws; that the number of images
    per class then varies too is counted, where the stratified bootstrap holds it fixed.

    It assumes independent images: with several images per patient the standard error is too small, and the paired
    bootstrap over whole patients is the one to report. It also needs some positives: a class with a single
    positive adds no variance for it. If the standard error is 0 nothing can be tested, and p is 1: identical rankings,
    but also two models that both rank every pair alike (all right, all tied).

    Args:
        ours: Probabilities of each seed.
        theirs: The same images in the same order; the number of seeds may differ.
        one_hot: Which classes each image has.
        skipped: Classes left out of the means, as in `Metrics`; every other class has positives and negatives.

    Returns:
        The difference and its test.

    Raises:
        ValueError: A class has no positive or no negative, or all are skipped.
    """
    classes = [index for index in range(one_hot.shape[1]) if index not in set(skipped)]
    if not classes or (one_hot[:, classes].all(axis=0) | ~one_hot[:, classes].any(axis=0)).any():
        raise ValueError(f"classes {classes} of which one has no positive or no negative")
    own, other = (
        [_area_and_influence(seed[:, index], one_hot[:, index]) for seed in model for index in classes]
        for model in (ours, theirs)
    )
    difference = float(np.mean([area for area, _ in own]) - np.mean([area for area, _ in other]))
    influence = np.mean([part for _, part in own], axis=0) - np.mean([part for _, part in other], axis=0)
    standard_error = float(np.sqrt((influence**2).sum()))
    if standard_error < _ZERO:
        return DeLong(difference=difference, standard_error=0.0, z=0.0, p=1.0)
    z = difference / standard_error
    return DeLong(difference=difference, standard_error=standard_error, z=z, p=float(2 * norm.sf(abs(z))))


def _area_and_influence(
    scores: Float[np.ndarray, " images"], positive: Bool[np.ndarray, " images"]
) -> tuple[float, Float[np.ndarray, " images"]]:
    """A and a(i) of one class and seed."""
    m, n = positive.sum(), (~positive).sum()
    # An image's midrank among all, less that among its own kind, counts the other kind below it, ties half.
    below = rankdata(scores)
    below[positive] -= rankdata(scores[positive])
    below[~positive] -= rankdata(scores[~positive])
    placement = np.where(positive, below / n, 1 - below / m)
    area = placement[positive].mean()
    scale = np.where(positive, m * max(m - 1, 1), n * max(n - 1, 1))
    return float(area), (placement - area) / np.sqrt(scale)
