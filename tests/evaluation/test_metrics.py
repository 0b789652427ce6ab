import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.metrics import METRIC_NAMES, TITLES, Metrics, classification_metrics

MEANS_OVER_CLASSES = ("roc", "prc", "balanced_accuracy", "f1")


def draw(classes: int, images: int = 60, decimals: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and targets that cover every class."""
    rng = np.random.default_rng(classes)
    scores = rng.dirichlet(np.ones(classes), images).round(decimals)
    return scores, np.concatenate([np.arange(classes), rng.integers(classes, size=images - classes)])


def draw_labels(labels: int, images: int = 60, decimals: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels, any number per image; the last label is rare."""
    rng = np.random.default_rng(labels)
    carried = rng.random((images, labels)) < np.linspace(0.6, 0.1, labels)
    carried[:2] = [[True] * labels, [False] * labels]
    return (0.7 * rng.random((images, labels)) + 0.3 * carried).round(decimals), carried


def score(scores: np.ndarray, targets: np.ndarray, kind="nominal", **options) -> Metrics:
    return classification_metrics(scores, np.eye(scores.shape[1], dtype=bool)[targets], kind, **options)


@pytest.mark.parametrize("decimals", [6, 1])  # with one decimal most scores are tied
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_single_labels_equal_sklearn(classes, decimals):
    scores, targets = draw(classes, decimals=decimals)
    one_hot, predictions = np.eye(classes, dtype=int)[targets], scores.argmax(1)
    metrics = score(scores, targets, "ordinal")
    expected = {
        "roc": sklearn_metrics.roc_auc_score(one_hot, scores, average="macro"),
        "prc": sklearn_metrics.average_precision_score(one_hot, scores, average="macro"),
        "accuracy": sklearn_metrics.accuracy_score(targets, predictions),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(targets, predictions),
        "f1": sklearn_metrics.f1_score(targets, predictions, average="macro"),
        "kappa": sklearn_metrics.cohen_kappa_score(targets, predictions),
        "quadratic_kappa": sklearn_metrics.cohen_kappa_score(
            targets, predictions, labels=range(classes), weights="quadratic"
        ),
        "brier": sum((scores[i, c] - (targets[i] == c)) ** 2 for i in range(60) for c in range(classes)) / 60,
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert metrics["skipped"] == []
    assert "exact_match" not in metrics


@pytest.mark.parametrize("decimals", [6, 1])
@pytest.mark.parametrize("labels", [1, 2, 8])
def test_multilabel_equals_sklearn(labels, decimals):
    scores, carried = draw_labels(labels, decimals=decimals)
    predictions = scores > 0.5
    metrics = classification_metrics(scores, carried, "multilabel")
    columns = [(carried[:, label], predictions[:, label]) for label in range(labels)]
    expected = {
        "roc": sklearn_metrics.roc_auc_score(carried, scores, average="macro"),
        "prc": sklearn_metrics.average_precision_score(carried, scores, average="macro"),
        "accuracy": np.mean([sklearn_metrics.accuracy_score(*column) for column in columns]),
        "exact_match": sklearn_metrics.accuracy_score(carried, predictions),
        "balanced_accuracy": np.mean([sklearn_metrics.balanced_accuracy_score(*column) for column in columns]),
        "f1": np.mean([sklearn_metrics.f1_score(*column) for column in columns]),
        "kappa": sklearn_metrics.cohen_kappa_score(carried.flatten(), predictions.flatten()),
        "brier": np.mean([sklearn_metrics.brier_score_loss(carried[:, i], scores[:, i]) for i in range(labels)]),
        "ece": np.mean([binned_error(scores[:, i], carried[:, i]) for i in range(labels)]),
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert "quadratic_kappa" not in metrics
    assert "positive_prc" not in metrics


def binned_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Calibration error by loops; a confidence of 1 is a bin of its own."""
    edges = torch.linspace(0, 1, 16, dtype=torch.float64).tolist()
    bins: dict[int, list[int]] = {}
    for image, value in enumerate(confidence):
        bins.setdefault(sum(edge <= value for edge in edges), []).append(image)
    gaps = [abs(sum(right[i] - confidence[i] for i in members)) for members in bins.values()]
    return sum(gaps) / len(confidence)


@pytest.mark.parametrize("classes", [2, 5])
def test_calibration_error_is_of_the_top_label_in_fifteen_bins(classes):
    scores, targets = draw(classes, images=200)
    scores[:3] = np.eye(classes)[0]  # certain
    metrics = score(scores, targets)
    theirs = multiclass_calibration_error(torch.tensor(scores), torch.tensor(targets), classes, n_bins=15)
    assert metrics["ece"] == pytest.approx(theirs.item(), abs=1e-6)  # single precision
    assert metrics["ece"] == pytest.approx(binned_error(scores.max(1), scores.argmax(1) == targets), abs=1e-12)


def test_roc_is_the_share_of_ordered_pairs_and_a_tie_counts_half():
    scores = np.array([[0.2, 0.8], [0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.7, 0.3]])
    targets = np.array([1, 1, 0, 0, 1])
    positive, negative = scores[targets == 1, 1], scores[targets == 0, 1]
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert score(scores, targets)["roc"] == pytest.approx(np.mean(pairs))


def test_binary_prc_is_the_mean_of_both_classes_and_the_positive_one_is_given():
    scores, targets = draw(2)
    metrics = score(scores, targets)
    negative = sklearn_metrics.average_precision_score(targets == 0, scores[:, 0])
    positive = sklearn_metrics.average_precision_score(targets == 1, scores[:, 1])
    assert metrics["prc"] == pytest.approx((negative + positive) / 2)
    assert metrics.get("positive_prc") == pytest.approx(positive)
    assert "positive_prc" not in score(*draw(3))


def test_a_class_that_was_never_trained_is_left_out_of_every_mean_but_its_images_count_as_errors():
    scores, targets = draw(4)
    scores[:, 2] = 0
    metrics = score(scores, targets, trained=np.array([True, True, False, True]))
    assert metrics["skipped"] == [2]
    assert np.isnan(metrics["roc_per_class"][2])
    assert np.isnan(metrics["prc_per_class"][2])
    everything = score(scores, targets)
    recalls = sklearn_metrics.recall_score(targets, scores.argmax(1), average=None)
    assert metrics["balanced_accuracy"] == pytest.approx(recalls[[0, 1, 3]].mean())
    for key in MEANS_OVER_CLASSES:
        assert metrics[key] != pytest.approx(everything[key])
    for key in ("accuracy", "kappa", "brier", "ece"):
        assert metrics[key] == everything[key]


def test_a_label_of_every_image_and_one_of_none_are_left_out_of_the_means():
    scores, carried = draw_labels(5)
    carried[:, 1], carried[:, 3] = True, False
    metrics = classification_metrics(scores, carried, "multilabel", trained=np.ones(5, dtype=bool))
    assert metrics["skipped"] == [1, 3]
    kept = classification_metrics(scores[:, [0, 2, 4]], carried[:, [0, 2, 4]], "multilabel")
    assert [metrics[key] for key in MEANS_OVER_CLASSES] == pytest.approx([kept[key] for key in MEANS_OVER_CLASSES])
    assert metrics["accuracy"] == pytest.approx(((scores > 0.5) == carried).mean())


@st.composite
def adversarial(draw):
    """Any labels, absent ones among them, and scores of which many are tied."""
    images, classes = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    levels = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    return (
        draw(arrays.arrays(np.float32, (images, classes), elements=levels)),
        draw(arrays.arrays(bool, (images, classes))),
        draw(arrays.arrays(np.int64, images, elements=st.integers(0, classes - 1))),
    )


@settings(deadline=None, max_examples=60)
@given(adversarial(), st.sampled_from(["nominal", "ordinal", "multilabel"]))
def test_every_split_with_a_defined_class_has_finite_means_equal_to_sklearn(case, kind):
    scores, carried, targets = case
    if kind != "multilabel":
        carried = np.eye(scores.shape[1], dtype=bool)[targets]
    defined = [c for c in range(scores.shape[1]) if len(set(carried[:, c])) == 2]
    assume(defined)
    metrics = classification_metrics(scores, carried, kind)
    assert metrics["skipped"] == [c for c in range(scores.shape[1]) if c not in defined]
    for key, reference in (
        ("roc", sklearn_metrics.roc_auc_score),
        ("prc", sklearn_metrics.average_precision_score),
    ):
        assert metrics[key] == pytest.approx(np.mean([reference(carried[:, c], scores[:, c]) for c in defined]))
    present = [name for name in METRIC_NAMES if name in metrics and name != "positive_prc"]
    assert np.isfinite([metrics[name] for name in present]).all()


def test_constant_scores_are_chance():
    targets = np.array([0, 1, 2, 2, 1, 0, 0, 1, 2])
    metrics = score(np.full((9, 3), 1 / 3), targets, "ordinal")
    assert metrics["roc"] == 0.5
    assert metrics["prc"] == pytest.approx(1 / 3)
    assert metrics["kappa"] == metrics.get("quadratic_kappa") == 0


def test_single_precision_that_leaves_the_unit_interval_is_no_logit():
    """torchmetrics would take one value above 1 for a logit and squash all of them."""
    scores, targets = draw(3)
    scores[0] = [1, 0, 0]
    above = scores.astype(np.float32)
    above[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert score(above, targets)["ece"] == pytest.approx(score(scores, targets)["ece"], abs=1e-6)


def test_every_scalar_has_a_title():
    scalars = {*Metrics.__annotations__} - {"roc_per_class", "prc_per_class", "skipped"}
    assert set(METRIC_NAMES) == set(TITLES) == scalars


@pytest.mark.parametrize("images", [0, 1, 3])
def test_refuses_a_split_without_a_defined_class(images):
    with pytest.raises(UserError, match="the same class"):
        score(np.full((images, 2), 0.5), np.zeros(images, dtype=int))
    with pytest.raises(UserError, match="the same labels"):
        classification_metrics(np.full((images, 2), 0.5), np.ones((images, 2), dtype=bool), "multilabel")


def test_refuses_what_has_no_answer():
    with pytest.raises(UserError, match="No training image"):
        score(*draw(3), trained=np.zeros(3, dtype=bool))
    with pytest.raises(UserError, match="diverged"):
        score(np.full((3, 2), np.nan), np.array([0, 1, 0]))
    with pytest.raises(ValueError, match="no probabilities"):
        score(np.array([[2.5, -1.0], [0.0, 1.0]]), np.array([0, 1]))
    with pytest.raises(ValueError, match="several"):
        classification_metrics(np.full((2, 2), 0.5), np.array([[True, True], [True, False]]), "nominal")
