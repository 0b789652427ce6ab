"""The numbers reported for a classifier, from its probabilities."""

from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    recall_score,
    roc_auc_score,
)

from maskedclip_composer.errors import UserError


class Metrics(TypedDict):
    """All in [0, 1] but the kappa, which is in [-1, 1]; lists have one entry per class, NaN where undefined."""

    roc: float
    prc: float
    roc_per_class: list[float]
    prc_per_class: list[float]
    skipped: list[int]
    accuracy: float
    balanced_accuracy: float
    quadratic_kappa: float
    positive_prc: NotRequired[float]


def classification_metrics(
    probabilities: Float[np.ndarray, "images classes"], targets: Int[np.ndarray, " images"]
) -> Metrics:
    """Score a classifier the way RETFound and MaskedCLIP report it.

    `roc` is the area under the ROC curve and `prc` the average precision, each class against the rest, averaged over
    classes without weights: scikit-learn's `average="macro"` on the one-hot targets. For two classes `prc` is therefore
    the mean over both classes and 0.5 for a random scorer; `positive_prc` is the usual average precision of class 1.
    A class that no image or every image of the split has is left out of both means and listed in `skipped`.

    Args:
        probabilities: One row per image; only the order within a column matters to `roc` and `prc`.
        targets: Class of each image, in [0, classes).

    Returns:
        The means, the values per class, accuracy, accuracy averaged over the classes present, and Cohen's kappa with
        quadratic weights, which means something only where the classes are ordered (grades).

    Raises:
        UserError: A probability is not finite, or all images have the same class.
    """
    if not np.isfinite(probabilities).all():
        raise UserError("The classifier's scores are not finite: training diverged.\nLower finetune.lr.")
    one_hot = targets[:, None] == np.arange(probabilities.shape[1])
    counts = one_hot.sum(axis=0)
    defined = np.flatnonzero((counts > 0) & (counts < len(targets)))
    if len(defined) == 0:
        raise UserError(
            "All images of the split have the same class, so ROC and PRC are undefined.\nUse a larger split."
        )
    roc = np.full(probabilities.shape[1], np.nan)
    prc = np.full(probabilities.shape[1], np.nan)
    for index in defined:
        roc[index] = roc_auc_score(one_hot[:, index], probabilities[:, index])
        prc[index] = average_precision_score(one_hot[:, index], probabilities[:, index])
    predictions = probabilities.argmax(axis=1)
    present = np.flatnonzero(counts)
    metrics = Metrics(
        roc=float(np.nanmean(roc)),
        prc=float(np.nanmean(prc)),
        roc_per_class=roc.tolist(),
        prc_per_class=prc.tolist(),
        skipped=[index for index in range(len(counts)) if index not in defined],
        accuracy=float(accuracy_score(targets, predictions)),
        balanced_accuracy=float(recall_score(targets, predictions, labels=present, average="macro")),
        quadratic_kappa=float(
            cohen_kappa_score(targets, predictions, labels=np.arange(len(counts)), weights="quadratic")
        ),
    )
    if len(counts) == 2:
        metrics["positive_prc"] = float(prc[1])
    return metrics
