"""Pictures of a classifier's scores."""

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, precision_recall_curve, roc_curve

from maskedclip_composer.evaluation.metrics import Metrics

# A legend longer than this hides the curves; JSIEC has 39 classes.
_MAX_LEGEND = 12


def roc_picture(
    probabilities: Float[np.ndarray, "images classes"],
    targets: Int[np.ndarray, " images"],
    classes: tuple[str, ...],
    metrics: Metrics,
) -> Figure:
    """Draw one ROC curve per class against the rest, with the area under each in the legend."""
    figure, axes = _axes(f"ROC, macro {metrics['roc']:.3f}", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", linewidth=1)
    for index, name in _defined(classes, metrics):
        false_positive, true_positive, _ = roc_curve(targets == index, probabilities[:, index])
        axes.plot(false_positive, true_positive, label=f"{name} {metrics['roc_per_class'][index]:.3f}")
    _legend(figure, axes)
    return figure


def pr_picture(
    probabilities: Float[np.ndarray, "images classes"],
    targets: Int[np.ndarray, " images"],
    classes: tuple[str, ...],
    metrics: Metrics,
) -> Figure:
    """Draw one precision-recall curve per class against the rest, with each average precision in the legend."""
    figure, axes = _axes(f"Precision and recall, macro {metrics['prc']:.3f}", "recall", "precision")
    for index, name in _defined(classes, metrics):
        precision, recall, _ = precision_recall_curve(targets == index, probabilities[:, index])
        # Average precision sums steps, so the curve it belongs to is drawn in steps.
        axes.step(recall, precision, where="post", label=f"{name} {metrics['prc_per_class'][index]:.3f}")
    _legend(figure, axes)
    return figure


def confusion_picture(
    probabilities: Float[np.ndarray, "images classes"], targets: Int[np.ndarray, " images"], classes: tuple[str, ...]
) -> Figure:
    """Draw the counts of true class (rows) by most probable class (columns)."""
    side = min(14, 3 + 0.5 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    few = len(classes) <= _MAX_LEGEND
    ConfusionMatrixDisplay.from_predictions(
        targets,
        probabilities.argmax(axis=1),
        labels=np.arange(len(classes)),
        display_labels=list(classes),
        include_values=few,
        xticks_rotation="vertical",
        cmap="Blues",
        colorbar=not few,
        ax=axes,
    )
    return figure


def _axes(title: str, x_label: str, y_label: str):
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x_label, ylabel=y_label, title=title)
    axes.set_aspect("equal")
    return figure, axes


def _defined(classes: tuple[str, ...], metrics: Metrics) -> list[tuple[int, str]]:
    return [(index, name) for index, name in enumerate(classes) if index not in metrics["skipped"]]


def _legend(figure: Figure, axes) -> None:
    if len(axes.get_legend_handles_labels()[0]) <= _MAX_LEGEND:
        axes.legend(loc="best", fontsize="small")
    else:
        figure.set_size_inches(10, 6)
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize="xx-small", ncols=2)
