import tracemalloc

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.statistics import bootstrap
from maskedclip_composer.evaluation.statistics.bootstrap import interval, resampling_weights, weighted_scores
from tests.evaluation.statistics import splits


def by_sklearn(scores: np.ndarray, carried: np.ndarray, weights: np.ndarray, skipped=()) -> tuple[float, float]:
    """Macro ROC and PRC over the classes that have a positive and a negative among the images drawn."""
    drawn = weights > 0
    classes = [c for c in range(carried.shape[1]) if c not in skipped and len(set(carried[drawn, c])) == 2]
    if not classes:
        return np.nan, np.nan
    return tuple(
        np.mean([score(carried[:, c], scores[:, c], sample_weight=weights) for c in classes])
        for score in (roc_auc_score, average_precision_score)
    )


@pytest.mark.parametrize("decimals", [8, 1])  # with one decimal most scores are tied
@pytest.mark.parametrize("classes", [2, 5])
def test_every_draw_equals_sklearn_with_sample_weight(classes, decimals):
    rng = np.random.default_rng(classes)
    carried = splits.one_label(rng, 40, classes)
    scores = splits.scores(rng, carried, 1, decimals)
    weights = resampling_weights(carried, [""] * 40, draws=50, seed=0)
    expected = [by_sklearn(scores, carried, draw) for draw in weights]
    np.testing.assert_allclose(np.transpose(weighted_scores(scores, carried, weights, [])), expected, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 4), st.integers(1, 5))
def test_every_draw_equals_sklearn_on_few_images_with_absent_labels(seed, images, labels, levels):
    rng = np.random.default_rng(seed)
    carried = rng.random((images, labels)) < rng.random(labels)
    scores = rng.integers(levels, size=(images, labels)) / 4
    weights = rng.integers(3, size=(6, images)) * (rng.random((6, 1)) < 0.9)  # a draw may be of nothing
    skipped = [0] if labels > 2 else []
    expected = [by_sklearn(scores, carried, draw, skipped) for draw in weights]
    np.testing.assert_allclose(np.transpose(weighted_scores(scores, carried, weights, skipped)), expected, atol=1e-12)


def test_weights_of_one_give_the_reported_metrics():
    rng = np.random.default_rng(0)
    carried = splits.one_label(rng, 60, 4)
    carried = np.concatenate([carried, np.zeros((60, 1), dtype=bool)], axis=1)  # a class that nobody has
    scores = splits.scores(rng, carried, 1)
    metrics = classification_metrics(scores, carried, "nominal")
    roc, prc = weighted_scores(scores, carried, np.ones((1, 60), dtype=int), metrics["skipped"])
    assert (roc.item(), prc.item()) == pytest.approx((metrics["roc"], metrics["prc"]), abs=1e-12)


def test_scoring_in_chunks_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    carried = splits.one_label(rng, 30, 3)
    scores = splits.scores(rng, carried, 1)
    weights = resampling_weights(carried, [""] * 30, draws=23, seed=0)
    whole = weighted_scores(scores, carried, weights, [])
    monkeypatch.setattr(bootstrap, "_CHUNK", 5 * 30)
    np.testing.assert_array_equal(weighted_scores(scores, carried, weights, []), whole)


def test_interval_agrees_with_scipy():
    """Positives and negatives resampled on their own are the two strata of independent images."""
    rng = np.random.default_rng(1)
    carried = splits.one_label(rng, 120, 2)
    scores = splits.scores(rng, carried, 1)
    samples = scores[carried[:, 1], 1], scores[carried[:, 0], 1]

    def area(positive, negative, axis):
        above = positive[..., :, None] > negative[..., None, :]
        return above.mean(axis=(-2, -1))

    theirs = scipy.stats.bootstrap(samples, area, n_resamples=8000, method="percentile", batch=500, rng=rng)
    roc, _ = weighted_scores(scores, carried, resampling_weights(carried, [""] * 120, draws=8000, seed=0), [])
    # An end is a quantile at 2.5 %, whose own error over 8,000 draws is about 0.03 standard deviations of the draws.
    tolerance = 4 * 2**0.5 * 0.03 * theirs.standard_error
    assert interval(roc) == pytest.approx(theirs.confidence_interval, abs=tolerance)
    assert roc.std(ddof=1) == pytest.approx(theirs.standard_error, rel=0.05)


def test_interval_leaves_out_equally_many_draws_at_both_ends():
    values = np.random.default_rng(0).permutation(np.r_[np.arange(1001.0), np.nan])
    assert interval(values) == pytest.approx((25, 975))
    assert interval(values, level=0.5) == pytest.approx((250, 750))
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_images_of_a_patient_stay_together():
    carried = splits.one_label(np.random.default_rng(0), 30, 3)
    patients = [f"p{image % 11}" for image in range(30)]
    weights = resampling_weights(carried, patients, draws=200, seed=0)
    for image in range(30):
        np.testing.assert_array_equal(weights[:, image], weights[:, image % 11])


def test_a_second_photograph_of_every_patient_does_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    carried = splits.one_label(rng, 80, 3)
    scores = splits.scores(rng, carried, 1)
    patients = [str(index) for index in range(80)]
    once = weighted_scores(scores, carried, resampling_weights(carried, patients, draws=1000, seed=0), [])
    scores, carried, patients = (np.repeat(values, 2, axis=0) for values in (scores, carried, patients))
    twice = weighted_scores(scores, carried, resampling_weights(carried, patients.tolist(), draws=1000, seed=0), [])
    np.testing.assert_allclose(twice, once, atol=1e-12)
    images = weighted_scores(scores, carried, resampling_weights(carried, [""] * 160, draws=1000, seed=0), [])
    assert images[0].std() < 0.85 * once[0].std()  # counting images would claim about 1 / sqrt(2) of it


def test_every_stratum_keeps_its_patients():
    rng = np.random.default_rng(3)
    carried = rng.random((80, 4)) < [0.5, 0.3, 0.1, 0]
    carried[:3, 3] = True
    patients = [str(rng.integers(45)) for _ in range(80)]
    members: dict[int | None, list[int]] = {}
    for patient in sorted(set(patients)):
        images = [image for image in range(80) if patients[image] == patient]
        labels = {label for image in images for label in range(4) if carried[image, label]}
        rarest = min(labels, key=lambda label: sum(carried[:, label]), default=None)
        members.setdefault(rarest, []).append(images[0])
    assert len(members) == 5
    weights = resampling_weights(carried, patients, draws=300, seed=0)
    for firsts in members.values():
        assert (weights[:, firsts].sum(axis=1) == len(firsts)).all()


def test_a_rare_label_is_in_every_draw():
    carried = np.zeros((40, 2), dtype=bool)
    carried[:, 0] = True
    carried[:2, 1] = True  # and label 0 as well
    weights = resampling_weights(carried, [""] * 40, draws=500, seed=0)
    assert (weights[:, :2].sum(axis=1) == 2).all()


def test_multiplicities_are_those_of_drawing_with_replacement():
    carried = np.ones((25, 1), dtype=bool)
    weights = resampling_weights(carried, [""] * 25, draws=20_000, seed=0)
    counts = np.bincount(weights[:, 7], minlength=8)[:8]
    expected = scipy.stats.binom.pmf(np.arange(8), 25, 1 / 25) * 20_000
    keep = expected > 5
    assert scipy.stats.chisquare(counts[keep], expected[keep] * counts[keep].sum() / expected[keep].sum()).pvalue > 0.01


def test_equal_seeds_give_equal_draws():
    carried = splits.one_label(np.random.default_rng(0), 30, 3)
    first, again, other = (resampling_weights(carried, [""] * 30, draws=20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_refuses_a_list_of_patients_of_another_length():
    with pytest.raises(ValueError, match="2 patients for 3 images"):
        resampling_weights(np.ones((3, 1), dtype=bool), ["a", "b"], draws=2, seed=0)


def test_five_thousand_images_fit_into_200_megabytes():
    rng = np.random.default_rng(0)
    carried = splits.one_label(rng, 5000, 2)
    scores = splits.scores(rng, carried, 1)
    tracemalloc.start()
    weighted_scores(scores, carried, resampling_weights(carried, [""] * 5000, seed=0), [0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20
