import statistics

import numpy as np
import pytest

from maskedclip_composer.evaluation.statistics.bootstrap import resampling_weights, weighted_scores
from maskedclip_composer.evaluation.statistics.over_seeds import seed_mean_scores, summary
from tests.evaluation.statistics import splits


def test_summary_is_the_mean_and_the_deviation_of_a_sample():
    values = [0.71, 0.64, 0.69]
    mean, deviation = summary(values)
    assert mean == pytest.approx(np.mean(values))
    assert deviation == pytest.approx(np.std(values, ddof=1))
    assert summary([0.5]) == (0.5, None)
    with pytest.raises(statistics.StatisticsError):
        summary([])


def test_a_draw_of_the_seed_mean_is_the_mean_over_seeds_of_that_draw():
    rng = np.random.default_rng(0)
    carried = splits.one_label(rng, 40, 3)
    ours, _ = splits.related(rng, carried, seeds=(4, 1))
    weights = resampling_weights(carried, [""] * 40, draws=30, seed=0)
    per_seed = [weighted_scores(seed, carried, weights, [1]) for seed in ours]
    np.testing.assert_allclose(seed_mean_scores(ours, carried, weights, [1]), np.mean(per_seed, axis=0), atol=1e-12)


def test_averaging_seeds_does_not_average_the_patients_away():
    """Five copies of a run are no more certain than one: the test split is the same."""
    rng = np.random.default_rng(0)
    carried = splits.one_label(rng, 40, 3)
    scores = splits.scores(rng, carried, 1)
    weights = resampling_weights(carried, [""] * 40, draws=100, seed=0)
    one, five = (
        seed_mean_scores(scores[None], carried, weights, []),
        seed_mean_scores(np.stack([scores] * 5), carried, weights, []),
    )
    np.testing.assert_allclose(one, five, atol=1e-12)
