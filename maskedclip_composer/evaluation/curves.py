"""Pictures of a classifier's scores.

All but the gallery take the same arguments, so that a suite draws them in a loop: probabilities, labels with one column
per class, the classes' names, the metrics of these probabilities, and the kind of labels.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix, precision_recall_curve, roc_curve

from maskedclip_composer.evaluation.kinds import TargetKind
from maskedclip_composer.evaluation.metrics import Metrics

# A legend longer than this hides the curves; JSIEC has 39 classes.
_MAX_LEGEND = 12
# A matrix larger than this has no room for names of a usual size.
_MANY = 20
_THRESHOLD = 0.5  # of a label in a multi-label set, as in the metrics
_BINS = 15  # of the reliability picture, as in the metrics


def roc_picture(
    probabilities: Float[np.ndarray, "images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    names: Sequence[str],
    metrics: Metrics,
    kind: TargetKind,
) -> Figure:
    """Draw one ROC curve per class that counts, with the area under each in the legend."""
    figure, axes = _square(
        f"ROC, {_each(kind)}, macro {metrics['roc']:.3f}", "false positive rate", "true positive rate"
    )
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", linewidth=1)
    for index in _counted(names, metrics):
        false_positive, true_positive, _ = roc_curve(one_hot[:, index], probabilities[:, index])
        label = f"{_short(names[index])} {metrics['roc_per_class'][index]:.3f}"
        axes.plot(false_positive, true_positive, label=label, **_look(index))
    _legend(figure, axes)
    return figure


def pr_picture(
    probabilities: Float[np.ndarray, "images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    names: Sequence[str],
    metrics: Metrics,
    kind: TargetKind,
) -> Figure:
    """Draw one precision-recall curve per class that counts, with each average precision in the legend."""
    figure, axes = _square(f"Precision and recall, {_each(kind)}, macro {metrics['prc']:.3f}", "recall", "precision")
    for index in _counted(names, metrics):
        precision, recall, _ = precision_recall_curve(one_hot[:, index], probabilities[:, index])
        label = f"{_short(names[index])} {metrics['prc_per_class'][index]:.3f}"
        # Average precision sums steps, so the curve it belongs to is drawn in steps.
        axes.step(recall, precision, where="post", label=label, **_look(index))
    _legend(figure, axes)
    return figure


def confusion_picture(
    probabilities: Float[np.ndarray, "images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    names: Sequence[str],
    metrics: Metrics,
    kind: TargetKind,
) -> Figure:
    """Draw the counts of true class (rows) by most probable class (columns); of several labels a small 2x2 each."""
    if kind == "multilabel":
        return _small_confusions(probabilities > _THRESHOLD, one_hot, names, metrics)
    many = len(names) > _MANY
    side = 3 + 0.5 * min(len(names), _MANY) + (0.2 * (len(names) - _MANY) if many else 0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot(title=f"Accuracy {metrics['accuracy']:.3f}")
    counts = confusion_matrix(one_hot.argmax(axis=1), probabilities.argmax(axis=1), labels=range(len(names)))
    # Shades by share of the row: a rare class's errors would be invisible beside a common class's.
    shades = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1)
    ticks = [_short(name) for name in names]
    axes.set_xticks(range(len(names)), ticks, rotation="vertical", fontsize=7 if many else 9)
    axes.set_yticks(range(len(names)), ticks, fontsize=7 if many else 9)
    axes.set(xlabel="predicted", ylabel="true")
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shades[row, column] > 0.5 else "black"
        size = 6 if many else 9
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=size)
    return figure


def reliability_picture(
    probabilities: Float[np.ndarray, "images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    names: Sequence[str],
    metrics: Metrics,
    kind: TargetKind,
) -> Figure:
    """Draw, by confidence, how often the classifier is right, over how often it is that confident.

    Confidence is the probability of the predicted class; of several labels, the probability of each label, and right
    means that the photograph has it.
    """
    if kind == "multilabel":
        confidence, right = probabilities.ravel(), one_hot.ravel()
        x_label, y_label = "probability of a label", "share that has it"
    else:
        confidence = probabilities.max(axis=1)
        right = one_hot[np.arange(len(one_hot)), probabilities.argmax(axis=1)]
        x_label, y_label = "probability of the predicted class", "share that is right"
    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    filled = np.flatnonzero(counts)
    means, shares = (np.bincount(bins, weights=values, minlength=_BINS)[filled] for values in (confidence, right))
    upper.plot([0, 1], [0, 1], color="0.7", linestyle=":", linewidth=1)
    upper.plot(means / counts[filled], shares / counts[filled], marker="o", color="#0072B2")
    upper.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), ylabel=y_label)
    upper.set_title(f"Calibration error {metrics['ece']:.3f}, Brier score {metrics['brier']:.3f}")
    lower.bar((np.arange(_BINS) + 0.5) / _BINS, counts, width=0.9 / _BINS, color="#56B4E9")
    lower.set(xlabel=x_label, ylabel="labels" if kind == "multilabel" else "photographs")
    return figure


def gallery_picture(images: Sequence[UInt8[np.ndarray, "height width 3"]], captions: Sequence[str]) -> Figure:
    """Draw photographs, four in a row, each with its caption below; their sizes may differ."""
    across = min(4, len(images))
    down = math.ceil(len(images) / across)
    lines = max(caption.count("\n") + 1 for caption in captions)
    figure = Figure(figsize=(2.4 * across, (2.4 + 0.2 * lines) * down), layout="constrained")
    places = figure.subplots(down, across, squeeze=False).ravel()
    for place in places:
        place.set_axis_off()
    for place, image, caption in zip(places, images, captions, strict=False):
        place.imshow(image)
        # Not a title: a long one would widen the figure instead of being cut.
        place.text(0.5, -0.03, caption, transform=place.transAxes, ha="center", va="top", fontsize=8, wrap=True)
    return figure


def _small_confusions(
    predicted: Bool[np.ndarray, "images classes"],
    one_hot: Bool[np.ndarray, "images classes"],
    names: Sequence[str],
    metrics: Metrics,
) -> Figure:
    across = min(6, math.ceil(math.sqrt(len(names))))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(2.2 * across, 2.4 * down + 0.4), layout="constrained")
    figure.suptitle(f"Labels right {metrics['accuracy']:.3f}")
    places = figure.subplots(down, across, squeeze=False).ravel()
    for index, place in enumerate(places):
        if index >= len(names):
            place.remove()
            continue
        counts = confusion_matrix(one_hot[:, index], predicted[:, index], labels=[False, True])
        display = ConfusionMatrixDisplay(counts, display_labels=["no", "yes"])
        display.plot(ax=place, cmap="Blues", colorbar=False, values_format="d")
        place.set_title(_short(names[index]), fontsize=9)
        place.set(xlabel="predicted" if index >= len(names) - across else "")
        place.set(ylabel="true" if index % across == 0 else "")
    return figure


def _square(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x_label, ylabel=y_label)
    axes.set_title(title, fontsize=11)
    axes.set_aspect("equal")
    return figure, axes


def _each(kind: TargetKind) -> str:
    return "each label" if kind == "multilabel" else "each class against the rest"


def _counted(names: Sequence[str], metrics: Metrics) -> list[int]:
    return [index for index in range(len(names)) if index not in metrics["skipped"]]


def _look(index: int) -> dict[str, Any]:
    """Ten colours in four kinds of line tell forty classes apart."""
    return {"color": f"C{index % 10}", "linestyle": ("-", "--", "-.", ":")[index // 10 % 4]}


def _short(name: str, length: int = 28) -> str:
    name = name if len(name) <= length else f"{name[: length - 1]}…"
    return name.replace("$", r"\$")  # which matplotlib takes for mathematics


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= _MAX_LEGEND:
        axes.legend(loc="best", fontsize="small")
    else:
        figure.set_size_inches(13, 6.5)
        figure.legend(handles, labels, loc="outside right center", fontsize="x-small", ncols=2)
