import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import average_precision_score, roc_auc_score

from maskedclip_composer.evaluation.statistics.bootstrap import interval, resampling_weights, weighted_scores
from tests.evaluation.statistics import splits
from tests.evaluation.statistics.whole import paired_difference


def naive(ours, theirs, carried, score, weights) -> float:
    means = []
    for model in (ours, theirs):
        seeds = [
            np.mean([score(carried[:, c], seed[:, c], sample_weight=weights) for c in range(carried.shape[1])])
            for seed in model
        ]
        means.append(np.mean(seeds))
    return means[0] - means[1]


@pytest.mark.parametrize("name", ["roc", "prc"])
def test_equals_the_differences_of_seed_means_by_sklearn(name):
    rng = np.random.default_rng(0)
    carried = splits.one_label(rng, 50, 3)
    ours, theirs = splits.related(rng, carried, seeds=(3, 2))
    weights = resampling_weights(carried, [""] * 50, draws=40, seed=0)
    score = {"roc": roc_auc_score, "prc": average_precision_score}[name]
    contrast = getattr(paired_difference(ours, theirs, carried, weights, []), name)
    drawn = np.array([naive(ours, theirs, carried, score, draw) for draw in weights])
    assert contrast.difference == pytest.approx(naive(ours, theirs, carried, score, None))
    assert (contrast.low, contrast.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    assert contrast.p == pytest.approx(2 * (1 + min(sum(drawn <= 0), sum(drawn >= 0))) / 41)


def test_a_model_does_not_differ_from_itself():
    rng = np.random.default_rng(0)
    carried = splits.one_label(rng, 40, 3)
    ours, _ = splits.related(rng, carried, seeds=(3, 1))
    weights = resampling_weights(carried, [""] * 40, draws=200, seed=0)
    difference = paired_difference(ours, ours.copy(), carried, weights, [])
    for contrast in (difference.roc, difference.prc):
        assert (contrast.difference, contrast.low, contrast.high) == (0, 0, 0)
        assert contrast.p == 1


def test_exchanging_the_models_turns_the_sign_only():
    rng = np.random.default_rng(5)
    carried = splits.one_label(rng, 60, 2)
    ours, theirs = splits.related(rng, carried, seeds=(2, 2))
    weights = resampling_weights(carried, [""] * 60, draws=200, seed=0)
    there = paired_difference(ours, theirs, carried, weights, []).roc
    back = paired_difference(theirs, ours, carried, weights, []).roc
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))
    assert there.p == back.p


def test_finds_a_difference_that_the_two_intervals_hide():
    """The paper's 10 % IDRiD gap is smaller than an unpaired half-width."""
    rng = np.random.default_rng(1)
    carried = splits.one_label(rng, 150, 2)
    (theirs,), _ = splits.related(rng, carried, seeds=(1, 1))
    exponentials = theirs * np.exp(0.5 * carried)  # the same model with a little more signal
    ours = exponentials / exponentials.sum(axis=1, keepdims=True)
    weights = resampling_weights(carried, [""] * 150, draws=500, seed=0)
    difference = paired_difference(ours[None], theirs[None], carried, weights, [])
    our_low, _ = interval(weighted_scores(ours, carried, weights, [])[0])
    _, their_high = interval(weighted_scores(theirs, carried, weights, [])[0])
    assert our_low < their_high
    assert difference.roc.low > 0
    assert difference.roc.p == pytest.approx(2 / 501)


def test_equal_models_are_told_apart_about_as_often_as_the_level_says():
    rng = np.random.default_rng(7)
    trials, draws = 200, 300
    values = []
    for trial in range(trials):
        carried = splits.one_label(rng, 100, 2)
        ours, theirs = splits.related(rng, carried, seeds=(1, 1))
        weights = resampling_weights(carried, [""] * 100, draws=draws, seed=trial)
        values.append(paired_difference(ours, theirs, carried, weights, []).roc.p)
    low, high = scipy.stats.binom.ppf([0.005, 0.995], trials, 0.05)
    assert low <= sum(p <= 0.05 for p in values) <= high
