"""Mistakes of public code for retinal images in its metrics: each test shows one, and that it is not ours.

RETFound as of RETFound_MAE@f5ab012 and RETFound@ae9a9ec; FLAIR as of its `flair/utils/metrics.py`.
"""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, multilabel_confusion_matrix, recall_score, roc_auc_score

from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.statistics.bootstrap import weighted_scores


def certain(predictions: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[predictions]


def test_retfound_skips_class_0_in_its_per_class_terms():
    """`for i in range(1, n)` over the confusion matrices: healthy eyes that are called ill cost nothing."""
    targets = np.array([0] * 6 + [1] * 4 + [2] * 4)
    predictions = np.array([1, 1, 1, 2, 2, 2] + [1] * 4 + [2] * 4)
    confusion = multilabel_confusion_matrix(targets, predictions)
    theirs = np.mean([confusion[i, 1, 1] / confusion[i, 1].sum() for i in range(1, 3)])
    assert theirs == 1
    metrics = classification_metrics(certain(predictions, 3), certain(targets, 3).astype(bool), "nominal")
    assert metrics["balanced_accuracy"] == pytest.approx(recall_score(targets, predictions, average="macro"))
    assert metrics["balanced_accuracy"] == pytest.approx(2 / 3)
    assert len(metrics["roc_per_class"]) == len(metrics["prc_per_class"]) == 3
    assert metrics["roc_per_class"][0] == 0.5


def test_retfound_stops_at_a_split_without_one_of_the_classes():
    """`roc_auc_score(targets, scores, multi_class="ovr")` raises; ours names the class and goes on without it."""
    rng = np.random.default_rng(0)
    targets = np.array([0, 1, 3] * 8)
    scores = rng.dirichlet(np.ones(4), 24)
    with pytest.raises(ValueError, match="Number of classes"):
        roc_auc_score(targets, scores, multi_class="ovr", average="macro")
    one_hot = certain(targets, 4).astype(bool)
    metrics = classification_metrics(scores, one_hot, "ordinal")
    rest = np.mean([roc_auc_score(targets == c, scores[:, c]) for c in (0, 1, 3)])
    assert metrics["skipped"] == [2]
    assert metrics["roc"] == pytest.approx(rest)
    roc, _ = weighted_scores(scores, one_hot, np.ones((1, 24), dtype=int), metrics["skipped"])
    assert roc.item() == pytest.approx(rest)


def test_flair_rounds_to_three_decimals_before_it_averages():
    """Rounding first moves the mean and hides small spreads. (That means use n - 1: `tests/report/test_tables.py`.)"""
    targets = np.array([0] * 1000 + [1] * 1100)
    scores = []
    for wrong in (1, 2, 3, 4, 5):
        predictions = targets.copy()
        predictions[:wrong] = 1
        one_hot = certain(targets, 2).astype(bool)
        metrics = classification_metrics(certain(predictions, 2), one_hot, "nominal")
        assert metrics["accuracy"] == 1 - wrong / 2100
        scores.append(metrics["accuracy"])
    assert np.mean(scores) == pytest.approx(1 - 3 / 2100, abs=1e-15)
    assert abs(np.mean(np.round(scores, 3)) - np.mean(scores)) > 1e-5


def test_retfound_reports_grades_by_a_kappa_that_does_not_know_their_order():
    """Healthy called mild and healthy called proliferative are the same error to the unweighted kappa."""
    targets = np.repeat(np.arange(5), 6)
    near, far = targets.copy(), targets.copy()
    near[::6], far[::6] = np.array([1, 2, 3, 4, 3]), np.array([4, 3, 0, 1, 2])
    one_hot = certain(targets, 5).astype(bool)
    mild, grave = (classification_metrics(certain(wrong, 5), one_hot, "ordinal") for wrong in (near, far))
    assert mild["kappa"] == pytest.approx(cohen_kappa_score(targets, near))
    assert mild["kappa"] == pytest.approx(grave["kappa"], abs=0.02)
    assert mild.get("quadratic_kappa", 0) > grave.get("quadratic_kappa", 1) + 0.15
    assert mild.get("quadratic_kappa") == pytest.approx(cohen_kappa_score(targets, near, weights="quadratic"))
    assert "quadratic_kappa" not in classification_metrics(certain(near, 5), one_hot, "nominal")
