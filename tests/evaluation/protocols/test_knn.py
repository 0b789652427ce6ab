import numpy as np
import pytest

from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.protocols.config import KnnConfig
from maskedclip_composer.evaluation.protocols.knn import knn
from tests.evaluation.problems import feature_problem
from tests.evaluation.protocols.test_linear_probe import drawn


def naive(train, labels, query, k, temperature):
    result = []
    for feature in query:
        cosines = [float(feature @ other / np.linalg.norm(feature) / np.linalg.norm(other)) for other in train]
        nearest = sorted(range(len(train)), key=lambda index: -cosines[index])[:k]
        votes = [np.exp(cosines[index] / temperature) for index in nearest]
        result.append(sum(vote * labels[index] for vote, index in zip(votes, nearest, strict=True)) / sum(votes))
    return np.array(result)


@pytest.mark.parametrize("kind", ["nominal", "multilabel"])
def test_votes_are_those_of_the_definition_and_k_is_chosen_on_validation(kind):
    parts = drawn(0)
    rows = np.arange(5, 60)
    fit = knn(KnnConfig(k_grid=[1, 3, 20], temperature=0.1), feature_problem(parts, kind), rows)
    train, labels = parts["train"][0][rows].astype(float), parts["train"][1][rows]
    rocs = {
        k: classification_metrics(naive(train, labels, parts["val"][0], k, 0.1), parts["val"][1], kind)["roc"]
        for k in (1, 3, 20)
    }
    assert fit.val_roc == pytest.approx(list(rocs.values()))
    assert fit.details["k"] == max(rocs, key=lambda k: rocs[k])
    expected = naive(train, labels, parts["test"][0], fit.details["k"], 0.1)
    np.testing.assert_allclose(fit.probabilities, expected, atol=1e-4)


def test_more_neighbours_than_rows_are_all_rows():
    fit = knn(KnnConfig(k_grid=[50, 100]), feature_problem(drawn(1)), np.arange(7))
    assert fit.details["k"] == 7
    assert len(fit.val_roc) == 1


def test_a_small_temperature_does_not_overflow():
    fit = knn(KnnConfig(k_grid=[5], temperature=1e-4), feature_problem(drawn(2)), np.arange(60))
    np.testing.assert_allclose(fit.probabilities.sum(axis=1), 1)
