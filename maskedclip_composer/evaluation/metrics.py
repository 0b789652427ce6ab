"""The numbers reported for a classifier, from its probabilities."""

from typing import NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    recall_score,
    roc_auc_score,
)
from torchmetrics.functional.classification import binary_calibration_error

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.kinds import TargetKind

TITLES = {
    "roc": "ROC",
    "prc": "PRC",
    "positive_prc": "PRC of class 1",
    "accuracy": "Accuracy",
    "exact_match": "Exact match",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "kappa": "Kappa",
    "quadratic_kappa": "Quadratic kappa",
    "brier": "Brier score",
    "ece": "Calibration error",
}
"""How each scalar of `Metrics` is printed, in the order of display."""

METRIC_NAMES = tuple(TITLES)

_CALIBRATION_BINS = 15
THRESHOLD = 0.5
# Softmax in single precision leaves [0, 1] by less than this.
_SLACK = 1e-4


class Metrics(TypedDict):
    """What `classification_metrics` returns and explains; lists have one entry per class, NaN where skipped.

    In [0, 1] but for the kappas, in [-1, 1], and the Brier score of single labels, in [0, 2]. Lower is better for
    `brier` and `ece` only.
    """

    roc: float
    prc: float
    roc_per_class: list[float]
    prc_per_class: list[float]
    skipped: list[int]
    accuracy: float
    balanced_accuracy: float
    f1: float
    kappa: float
    brier: float
    ece: float
    quadratic_kappa: NotRequired[float]
    positive_prc: NotRequired[float]
    exact_match: NotRequired[float]


def classification_metrics(
    probabilities: Float[np.ndarray, "images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    kind: TargetKind,
    *,
    trained: Bool[np.ndarray, " classes"] | None = None,
) -> Metrics:
    """Score a classifier the way RETFound and MaskedCLIP report it, and by what they leave out.

    `roc` is the area under the ROC curve and `prc` the average precision, each class against the rest, averaged over
    classes without weights: scikit-learn's `average="macro"` on the one-hot targets. For two classes `prc` is therefore
    the mean over both classes and 0.5 for a random scorer; `positive_prc` is the usual average precision of class 1.

    Skipped classes. Every mean over classes (`roc`, `prc`, `balanced_accuracy`, `f1`) goes over the same classes. A
    class is left out, and listed in `skipped`, if no image of the split has it or every image has it (ROC is then
    undefined), or if `trained` says that no training image had it (its score is arbitrary). What is not a mean over
    classes (`accuracy`, `exact_match`, the kappas, `brier`, `ece`) covers all images and all classes, so an image of a
    class that was never trained counts there as the error it is.

    Single labels (nominal, ordinal): the prediction is the most probable class, the first of equals.
    `balanced_accuracy` is the mean recall; `kappa` is Cohen's without weights; `quadratic_kappa`, for ordinal labels
    only, weighs an error by its squared distance in grades. `brier` is the mean over images of the sum over classes of
    the squared error, in [0, 2] (for two classes twice scikit-learn's binary score). `ece` is the calibration error of
    the predicted class's probability in 15 bins of equal width; a probability of exactly 1 has a bin of its own, as in
    torchmetrics.

    Multilabel (probabilities of sigmoids): a label is predicted above 0.5. `accuracy` is the share of right cells
    (image and label), which is the mean accuracy over labels, and `exact_match` the share of images with every label
    right. `balanced_accuracy` is the mean of (sensitivity + specificity) / 2 and `f1` the mean F1 over labels. `kappa`
    is Cohen's over all cells as one list, the kappa of the ODIR-2019 challenge. `brier` is the mean squared error of a
    cell, in [0, 1], and `ece` the mean over labels of the calibration error of the label's probability.

    Args:
        probabilities: One row per image, in [0, 1].
        one_hot: Which classes each image has; exactly one unless `kind` is multilabel.
        kind: Of the labels.
        trained: Whether any training image had the class; None for all.

    Returns:
        All of it as fractions, unrounded.

    Raises:
        UserError: A probability is not finite, or no class is left.
        ValueError: Shapes differ, a value is no probability, or a single label is not single.
    """
    _check(probabilities, one_hot, kind)
    probabilities = np.clip(probabilities.astype(np.float64), 0, 1)
    defined = _defined(one_hot, kind, trained)
    roc = np.full(one_hot.shape[1], np.nan)
    prc = np.full(one_hot.shape[1], np.nan)
    for index in defined:
        roc[index] = roc_auc_score(one_hot[:, index], probabilities[:, index])
        prc[index] = average_precision_score(one_hot[:, index], probabilities[:, index])
    metrics = Metrics(
        roc=float(roc[defined].mean()),
        prc=float(prc[defined].mean()),
        roc_per_class=roc.tolist(),
        prc_per_class=prc.tolist(),
        skipped=sorted(set(range(one_hot.shape[1])) - set(defined.tolist())),
        **(_cells if kind == "multilabel" else _decisions)(probabilities, one_hot, defined),
    )
    if kind == "ordinal":
        metrics["quadratic_kappa"] = float(
            cohen_kappa_score(
                one_hot.argmax(axis=1),
                probabilities.argmax(axis=1),
                labels=np.arange(one_hot.shape[1]),
                weights="quadratic",
            )
        )
    if kind != "multilabel" and one_hot.shape[1] == 2:
        metrics["positive_prc"] = float(prc[1])
    return metrics


class _Decided(TypedDict):
    accuracy: float
    balanced_accuracy: float
    f1: float
    kappa: float
    brier: float
    ece: float
    exact_match: NotRequired[float]


def _decisions(
    probabilities: Float[np.ndarray, "images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    defined: Int[np.ndarray, " some"],
) -> _Decided:
    targets, predictions = one_hot.argmax(axis=1), probabilities.argmax(axis=1)
    return _Decided(
        accuracy=float(accuracy_score(targets, predictions)),
        balanced_accuracy=float(recall_score(targets, predictions, labels=defined, average="macro")),
        f1=float(f1_score(targets, predictions, labels=defined, average="macro")),
        kappa=float(cohen_kappa_score(targets, predictions)),
        brier=float(((probabilities - one_hot) ** 2).sum(axis=1).mean()),
        ece=_calibration_error(probabilities.max(axis=1), targets == predictions),
    )


def _cells(
    probabilities: Float[np.ndarray, "images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    defined: Int[np.ndarray, " some"],
) -> _Decided:
    predictions = probabilities > THRESHOLD
    right = predictions == one_hot
    columns = [(one_hot[:, index], predictions[:, index]) for index in defined]
    return _Decided(
        accuracy=float(right.mean()),
        exact_match=float(right.all(axis=1).mean()),
        # Recall of either value of the label: sensitivity and specificity.
        balanced_accuracy=float(np.mean([recall_score(*column, average="macro") for column in columns])),
        # A label that is never predicted, rightly or wrongly, has an F1 of 0 because some image has it.
        f1=float(np.mean([f1_score(*column) for column in columns])),
        kappa=float(cohen_kappa_score(one_hot.ravel(), predictions.ravel())),
        brier=float(((probabilities - one_hot) ** 2).mean()),
        ece=float(np.mean([_calibration_error(*column) for column in zip(probabilities.T, one_hot.T, strict=True)])),
    )


def _calibration_error(confidence: Float[np.ndarray, " images"], right: Bool[np.ndarray, " images"]) -> float:
    """Mean over images of |share right - mean confidence| of the image's bin."""
    error = binary_calibration_error(
        torch.tensor(confidence), torch.tensor(right, dtype=torch.int64), n_bins=_CALIBRATION_BINS, norm="l1"
    )
    return float(error)


def _defined(
    one_hot: Bool[np.ndarray, "images classes"], kind: TargetKind, trained: Bool[np.ndarray, " classes"] | None
) -> Int[np.ndarray, " some"]:
    counts = one_hot.sum(axis=0)
    varied = (counts > 0) & (counts < len(one_hot))
    defined = np.flatnonzero(varied if trained is None else varied & trained)
    if len(defined):
        return defined
    if varied.any():
        raise UserError("No training image had any of the classes of the split.\nTrain on a larger part.")
    if kind == "multilabel":
        raise UserError(
            "All images of the split have the same labels, so ROC and PRC are undefined.\nUse a larger split."
        )
    raise UserError("All images of the split have the same class, so ROC and PRC are undefined.\nUse a larger split.")


def _check(
    probabilities: Float[np.ndarray, "images classes"], one_hot: Bool[np.ndarray, "images classes"], kind: TargetKind
) -> None:
    if probabilities.shape != one_hot.shape:
        raise ValueError(f"{probabilities.shape} probabilities for {one_hot.shape} labels")
    if not np.isfinite(probabilities).all():
        raise UserError("The classifier's scores are not finite: training diverged.\nLower its learning rate.")
    if probabilities.size and (probabilities.min() < -_SLACK or probabilities.max() > 1 + _SLACK):
        raise ValueError(f"values from {probabilities.min():g} to {probabilities.max():g} are no probabilities")
    if kind != "multilabel" and (one_hot.sum(axis=1) != 1).any():
        raise ValueError(f"an image has no label, or several, in a {kind} set")
