import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.protocols.config import LinearProbeConfig
from maskedclip_composer.evaluation.protocols.linear_probe import linear_probe
from tests.evaluation.problems import feature_problem, one_hot, whole_problem


def drawn(seed: int, classes: int = 3, dim: int = 6, shift: float = 1.0):
    rng = np.random.default_rng(seed)
    parts = {}
    for name, size in (("train", 60), ("val", 40), ("test", 50)):
        targets = np.concatenate([np.arange(classes), rng.integers(classes, size=size - classes)])
        features = rng.normal(3, 2, size=(size, dim)) + shift * targets[:, None] * np.linspace(0, 1, dim)
        parts[name] = (features.astype(np.float32), one_hot(targets, classes))
    return parts


@pytest.mark.parametrize("kind", ["nominal", "multilabel"])
def test_separable_classes_are_separated(mds, multilabel_mds, tmp_path, kind):
    problem = whole_problem(multilabel_mds if kind == "multilabel" else mds, tmp_path, kind=kind)
    fit = linear_probe(LinearProbeConfig(), problem, np.arange(len(problem.data.train)))
    assert classification_metrics(fit.probabilities, problem.data.test.one_hot, kind)["roc"] > 0.95
    assert fit.details["converged"]


def test_shuffled_labels_teach_nothing():
    values = []
    for seed in range(8):
        problem = feature_problem(drawn(seed, dim=20, shift=0))
        fit = linear_probe(LinearProbeConfig(), problem, np.arange(60))
        values.append(classification_metrics(fit.probabilities, problem.data.test.one_hot, "nominal")["roc"])
    assert abs(np.mean(values) - 0.5) < 0.06


def test_strength_is_chosen_on_validation_and_fitted_on_the_rows_alone():
    parts = drawn(1)
    rows = np.arange(0, 60, 2)
    problem = feature_problem(parts)
    fit = linear_probe(LinearProbeConfig(c_grid=[1e-4, 1.0, 100.0]), problem, rows)
    expected = {}
    for c in (1e-4, 1.0, 100.0):
        scaler = StandardScaler().fit(parts["train"][0][rows])
        model = LogisticRegression(C=c, max_iter=2000)
        model.fit(scaler.transform(parts["train"][0][rows]), parts["train"][1][rows].argmax(axis=1))
        val = model.predict_proba(scaler.transform(parts["val"][0]))
        roc = classification_metrics(val, parts["val"][1], "nominal")["roc"]
        expected[c] = (roc, model.predict_proba(scaler.transform(parts["test"][0])))
    assert fit.val_roc == pytest.approx([roc for roc, _ in expected.values()])
    assert fit.details["c"] == max(expected, key=lambda c: expected[c][0])
    np.testing.assert_allclose(fit.probabilities, expected[fit.details["c"]][1], atol=1e-6)


def test_the_test_split_has_no_say_in_the_choice():
    parts = drawn(2)
    chosen = linear_probe(LinearProbeConfig(), feature_problem(parts), np.arange(60)).details["c"]
    rng = np.random.default_rng(0)
    parts["test"] = (rng.normal(size=(50, 6)).astype(np.float32), parts["test"][1])
    assert linear_probe(LinearProbeConfig(), feature_problem(parts), np.arange(60)).details["c"] == chosen


def test_flairs_probe_weights_classes_and_leaves_features_as_they_are():
    parts = drawn(3)
    config = LinearProbeConfig(c_grid=[0.316], standardise=False, balanced=True)
    fit = linear_probe(config, feature_problem(parts), np.arange(60))
    model = LogisticRegression(C=0.316, class_weight="balanced", max_iter=2000)
    model.fit(parts["train"][0], parts["train"][1].argmax(axis=1))
    np.testing.assert_allclose(fit.probabilities, model.predict_proba(parts["test"][0]), atol=1e-6)


@pytest.mark.parametrize("kind", ["nominal", "multilabel"])
def test_a_class_without_a_row_gets_probability_zero_in_its_own_column(kind):
    parts = drawn(4, classes=4)
    rows = np.flatnonzero(~parts["train"][1][:, 1])
    fit = linear_probe(LinearProbeConfig(c_grid=[1.0]), feature_problem(parts, kind), rows)
    assert (fit.probabilities[:, 1] == 0).all()
    assert (fit.probabilities[:, [0, 2, 3]] > 0).all()


def test_one_class_alone_is_certain():
    parts = drawn(5)
    rows = np.flatnonzero(parts["train"][1][:, 2])
    fit = linear_probe(LinearProbeConfig(c_grid=[1.0]), feature_problem(parts), rows)
    assert fit.probabilities.tolist() == [[0, 0, 1]] * 50


def test_labels_of_several_are_fitted_each_for_itself():
    parts = drawn(6)
    rng = np.random.default_rng(7)
    parts = {name: (features, rng.random(labels.shape) < 0.4) for name, (features, labels) in parts.items()}
    fit = linear_probe(
        LinearProbeConfig(c_grid=[1.0], standardise=False), feature_problem(parts, "multilabel"), np.arange(60)
    )
    for column in range(3):
        model = LogisticRegression(C=1.0, max_iter=2000).fit(parts["train"][0], parts["train"][1][:, column])
        np.testing.assert_allclose(fit.probabilities[:, column], model.predict_proba(parts["test"][0])[:, 1], atol=1e-6)


def test_a_solver_that_stops_early_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        fit = linear_probe(LinearProbeConfig(c_grid=[10.0], max_iterations=1), feature_problem(drawn(8)), np.arange(60))
    assert not fit.details["converged"]
    assert "linear_probe.max_iterations=1" in caplog.text
