import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.metrics import classification_metrics


def draw(classes: int, images: int = 60, decimals: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    scores = rng.dirichlet(np.ones(classes), images).round(decimals)
    return scores, np.concatenate([np.arange(classes), rng.integers(classes, size=images - classes)])


@pytest.mark.parametrize("decimals", [6, 1])  # with one decimal most scores are tied
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_equals_sklearn_macro_on_one_hot(classes, decimals):
    scores, targets = draw(classes, decimals=decimals)
    one_hot = np.eye(classes, dtype=int)[targets]
    metrics = classification_metrics(scores, targets)
    assert metrics["roc"] == pytest.approx(roc_auc_score(one_hot, scores, average="macro"), abs=1e-12)
    assert metrics["prc"] == pytest.approx(average_precision_score(one_hot, scores, average="macro"), abs=1e-12)
    expected = balanced_accuracy_score(targets, scores.argmax(1))
    assert metrics["balanced_accuracy"] == pytest.approx(expected)
    assert metrics["skipped"] == []


def test_roc_is_the_share_of_ordered_pairs_and_a_tie_counts_half():
    scores = np.array([[0.2, 0.8], [0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.7, 0.3]])
    targets = np.array([1, 1, 0, 0, 1])
    positive, negative = scores[targets == 1, 1], scores[targets == 0, 1]
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert classification_metrics(scores, targets)["roc"] == pytest.approx(np.mean(pairs))


def test_binary_prc_is_the_mean_of_both_classes_and_the_positive_one_is_given():
    scores, targets = draw(2)
    metrics = classification_metrics(scores, targets)
    negative = average_precision_score(targets == 0, scores[:, 0])
    positive = average_precision_score(targets == 1, scores[:, 1])
    assert metrics["prc"] == pytest.approx((negative + positive) / 2)
    assert metrics["positive_prc"] == pytest.approx(positive)
    assert "positive_prc" not in classification_metrics(*draw(3))


def test_an_absent_class_is_left_out_of_the_means_and_named():
    scores, targets = draw(4)
    keep = targets != 2
    metrics = classification_metrics(scores[keep], targets[keep])
    assert metrics["skipped"] == [2]
    assert np.isnan(metrics["roc_per_class"][2])
    assert np.isnan(metrics["prc_per_class"][2])
    rest = [roc_auc_score(targets[keep] == c, scores[keep, c]) for c in (0, 1, 3)]
    assert metrics["roc"] == pytest.approx(np.mean(rest))


def test_quadratic_kappa_punishes_by_squared_distance():
    targets = np.array([0, 1, 2, 3] * 5)
    near, far = np.eye(4)[np.minimum(targets + 1, 3)], np.eye(4)[(targets + 2) % 4]
    perfect = classification_metrics(np.eye(4)[targets], targets)
    assert perfect["quadratic_kappa"] == 1
    near_kappa = classification_metrics(near, targets)["quadratic_kappa"]
    assert classification_metrics(far, targets)["quadratic_kappa"] < near_kappa < 1


def test_refuses_what_has_no_answer():
    with pytest.raises(UserError, match="same class"):
        classification_metrics(np.full((3, 2), 0.5), np.zeros(3, dtype=int))
    with pytest.raises(UserError, match="diverged"):
        classification_metrics(np.full((3, 2), np.nan), np.array([0, 1, 0]))
