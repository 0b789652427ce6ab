from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure

from maskedclip_composer.evaluation.curves import (
    confusion_picture,
    gallery_picture,
    pr_picture,
    reliability_picture,
    roc_picture,
)
from maskedclip_composer.evaluation.metrics import classification_metrics


def scored(kind: str, classes: int, images: int = 120):
    rng = np.random.default_rng(classes)
    if kind == "multilabel":
        one_hot = rng.random((images, classes)) < 0.4
        scores = 1 / (1 + np.exp(-(rng.normal(size=one_hot.shape) + 2 * one_hot - 1)))
    else:
        # The last class has no image.
        one_hot = np.eye(classes, dtype=bool)[np.arange(images) % (classes - 1)]
        logits = rng.normal(size=one_hot.shape) + 2 * one_hot
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = [f"class {index}" for index in range(classes)]
    return scores, one_hot, names, classification_metrics(scores, one_hot, kind), kind


def drawn(figure: Figure) -> RendererAgg:
    """Draw for good: a layout that does not fit warns, which is an error here."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


@pytest.mark.parametrize("kind", ["nominal", "multilabel"])
def test_curves_enclose_the_areas_that_their_legends_name(kind):
    _, _, names, metrics, _ = case = scored(kind, 5)
    counted = [index for index in range(5) if index not in metrics["skipped"]]
    assert len(counted) == (5 if kind == "multilabel" else 4)
    roc = roc_picture(*case).axes[0]
    lines = {line.get_label(): line for line in roc.lines if not line.get_label().startswith("_")}
    assert len(lines) == len(counted)
    for index in counted:
        area = metrics["roc_per_class"][index]
        line = lines[f"{names[index]} {area:.3f}"]
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(area)
    pr = pr_picture(*case).axes[0]
    assert len(pr.lines) == len(counted)
    for index, line in zip(counted, pr.lines, strict=True):
        recall, precision = line.get_xdata(), line.get_ydata()
        assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(metrics["prc_per_class"][index])


def test_thirty_nine_classes_are_told_apart_and_named():
    scores, one_hot, _, metrics, kind = scored("nominal", 39, images=300)
    names = [f"{index}. a name as long as some are" for index in range(39)]
    case = (scores, one_hot, names, metrics, kind)
    for picture in (roc_picture, pr_picture):
        figure = picture(*case)
        axes = figure.axes[0]
        assert len(figure.legends[0].get_texts()) == 38  # the absent class has no curve
        looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines if line.get_label()[0] != "_"}
        assert len(looks) == 38
        legend = figure.legends[0].get_window_extent(drawn(figure))
        assert legend.x0 > axes.get_window_extent().x1
        assert legend.x1 <= figure.bbox.x1
        assert legend.y0 >= 0
    figure = confusion_picture(*case)
    renderer = drawn(figure)
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [f"{name[:27]}…" for name in names]
    boxes = [label.get_window_extent(renderer) for label in labels]
    assert all(above.y0 >= below.y1 - 0.5 for above, below in pairwise(boxes))


def test_a_dollar_sign_is_no_mathematics():
    scores, one_hot, _, metrics, kind = scored("nominal", 3)
    names = ["$", "a$b", "$x$"]
    drawn(roc_picture(scores, one_hot, names, metrics, kind))
    drawn(confusion_picture(scores, one_hot, names, metrics, kind))


def test_the_confusion_matrix_counts_true_by_predicted_classes():
    scores, one_hot, *_ = case = scored("ordinal", 4)
    texts = {
        (text.get_position()[1], text.get_position()[0]): text.get_text()
        for text in confusion_picture(*case).axes[0].texts
    }
    for true in range(4):
        for predicted in range(4):
            count = sum(one_hot[row, true] and scores[row].argmax() == predicted for row in range(len(scores)))
            assert texts.get((true, predicted), "0") == str(count)


def test_several_labels_have_a_small_matrix_each():
    scores, one_hot, names, *_ = case = scored("multilabel", 5)
    figure = confusion_picture(*case)
    assert [axes.get_title() for axes in figure.axes] == names
    for index, axes in enumerate(figure.axes):
        shown = [int(text.get_text()) for text in axes.texts]
        assert sum(shown) == len(scores)
        hits = sum(one_hot[row, index] and scores[row, index] > 0.5 for row in range(len(scores)))
        misses = sum(one_hot[row, index] and scores[row, index] <= 0.5 for row in range(len(scores)))
        assert shown[2:] == [misses, hits]
    drawn(figure)


@pytest.mark.parametrize("kind", ["nominal", "multilabel"])
def test_reliability_is_the_calibration_error_of_the_metrics(kind):
    *_, metrics, _ = case = scored(kind, 4)
    upper, lower = reliability_picture(*case).axes
    confidence, share = upper.lines[1].get_data()
    heights = np.array([bar.get_height() for bar in lower.patches])
    counts = heights[heights > 0]
    assert counts.sum() == (120 * 4 if kind == "multilabel" else 120)
    if kind == "nominal":
        assert np.sum(counts * np.abs(confidence - share)) / counts.sum() == pytest.approx(metrics["ece"], abs=1e-6)
    assert f"{metrics['ece']:.3f}" in upper.get_title()


def test_full_confidence_is_in_the_last_bin():
    one_hot = np.eye(2, dtype=bool)[[0, 1, 0, 1]]
    scores = one_hot.astype(float)
    metrics = classification_metrics(scores, one_hot, "nominal")
    lower = reliability_picture(scores, one_hot, ["a", "b"], metrics, "nominal").axes[1]
    assert [bar.get_height() for bar in lower.patches][-1] == 4


def test_the_gallery_shows_every_photograph_with_its_caption():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8) for index in range(6)]
    captions = [f"true {index}\npredicted {index}" for index in range(6)]
    figure = gallery_picture(images, captions)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 6
    for axes, image, caption in zip(shown, images, captions, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
        assert [text.get_text() for text in axes.texts] == [caption]
    drawn(figure)
