import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from maskedclip_composer.evaluation.statistics.bootstrap import resampling_weights
from maskedclip_composer.evaluation.statistics.delong import delong_test
from tests.evaluation.statistics import splits
from tests.evaluation.statistics.whole import seed_mean_scores


def placements(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """[positives, negatives]: 1 where the positive is above, one half where they tie."""
    gap = scores[positive][:, None] - scores[~positive][None, :]
    return (gap > 0) + 0.5 * (gap == 0)


def classical(ours: np.ndarray, theirs: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Difference and standard error as the paper of 1988 writes them, from the covariances of the components."""
    pairs = [placements(scores, positive) for scores in (ours, theirs)]
    m, n = pairs[0].shape
    s10 = np.cov([pair.mean(axis=1) for pair in pairs])
    s01 = np.cov([pair.mean(axis=0) for pair in pairs])
    contrast = np.array([1, -1])
    return pairs[0].mean() - pairs[1].mean(), np.sqrt(contrast @ (s10 / m + s01 / n) @ contrast)


@pytest.mark.parametrize("decimals", [8, 1])  # with one decimal most scores are tied
@pytest.mark.parametrize("columns", [[0, 1], [1]], ids=["both classes", "one scorer"])
def test_two_classes_are_the_classical_test(columns, decimals):
    rng = np.random.default_rng(0)
    carried = splits.one_label(rng, 70, 2)
    ours, theirs = (scores.round(decimals) for scores in splits.related(rng, carried, seeds=(1, 1)))
    ours, theirs = (np.stack([1 - scores[..., 1], scores[..., 1]], axis=-1) for scores in (ours, theirs))
    result = delong_test(ours[..., columns], theirs[..., columns], carried[:, columns], [])
    difference, error = classical(ours[0, :, 1], theirs[0, :, 1], carried[:, 1])
    assert (result.difference, result.standard_error) == pytest.approx((difference, error), rel=1e-9)
    assert result.z == pytest.approx(difference / error)
    assert result.p == pytest.approx(2 * scipy.stats.norm.cdf(-abs(difference / error)))


def test_a_skipped_class_takes_no_part():
    rng = np.random.default_rng(1)
    carried = splits.one_label(rng, 50, 3)
    ours, theirs = splits.related(rng, carried, seeds=(2, 1))
    expected = delong_test(ours[..., [0, 2]], theirs[..., [0, 2]], carried[:, [0, 2]], [])
    assert delong_test(ours, theirs, carried, [1]) == expected


def test_the_difference_is_that_of_macro_roc_over_seeds():
    rng = np.random.default_rng(2)
    carried = splits.one_label(rng, 60, 4)
    ours, theirs = splits.related(rng, carried, seeds=(3, 2))
    means = [np.mean([roc_auc_score(carried, seed, average="macro") for seed in model]) for model in (ours, theirs)]
    assert delong_test(ours, theirs, carried, []).difference == pytest.approx(means[0] - means[1])


@pytest.mark.parametrize("classes", [2, 4])
def test_the_standard_error_is_the_spread_over_fresh_splits(classes):
    """Labels are drawn too; the mean of the estimated variances against the variance of the differences."""
    rng = np.random.default_rng(3)
    differences, variances = [], []
    for _ in range(600):
        carried = np.eye(classes, dtype=bool)[rng.choice(classes, size=160)]
        ours, theirs = splits.related(rng, carried, seeds=(2, 1))
        result = delong_test(ours, theirs, carried, [])
        differences.append(result.difference)
        variances.append(result.standard_error**2)
    # The variance of 600 values is itself known to sqrt(2 / 600) = 6 %.
    assert np.mean(variances) == pytest.approx(np.var(differences), rel=0.15)


def test_agrees_with_the_bootstrap_of_independent_images():
    rng = np.random.default_rng(4)
    carried = splits.one_label(rng, 400, 2)
    ours, theirs = splits.related(rng, carried, seeds=(2, 3))
    weights = resampling_weights(carried, [""] * 400, draws=1500, seed=0)
    drawn = seed_mean_scores(ours, carried, weights, [])[0] - seed_mean_scores(theirs, carried, weights, [])[0]
    assert delong_test(ours, theirs, carried, []).standard_error == pytest.approx(drawn.std(), rel=0.1)


def test_equal_rankings_do_not_differ():
    rng = np.random.default_rng(5)
    carried = splits.one_label(rng, 40, 3)
    ours, _ = splits.related(rng, carried, seeds=(3, 1))
    for theirs in (ours, ours**2, ours[[1, 2, 0]]):
        result = delong_test(ours, theirs, carried, [])
        assert (result.difference, result.z, result.p) == pytest.approx((0, 0, 1), abs=1e-12)


def test_two_models_without_an_error_leave_nothing_to_test():
    carried = np.eye(2, dtype=bool)[[0, 0, 1, 1]]
    result = delong_test(carried[None].astype(float), np.full((1, 4, 2), 0.5), carried, [])
    assert (result.difference, result.standard_error, result.p) == (0.5, 0, 1)


def test_refuses_what_has_no_area():
    carried = np.eye(3, dtype=bool)[[0, 1, 1, 0]]
    scores = np.random.default_rng(0).random((1, 4, 3))
    with pytest.raises(ValueError, match="no positive"):
        delong_test(scores, scores, carried, [])
    with pytest.raises(ValueError, match="no positive"):
        delong_test(scores, scores, carried, [0, 1, 2])
