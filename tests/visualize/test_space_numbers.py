import itertools
import math

import numpy as np
import pytest

from maskedclip_composer.visualize.space_numbers import linear_cka, modality_gap, neighbour_purity

RNG = np.random.default_rng(3)


def plain_purity(features, labels, groups, neighbours):
    """Return the definition, photograph by photograph."""
    shares, chances = [], []
    for one in range(len(labels)):
        others = [row for row in range(len(labels)) if groups[row] != groups[one]]
        cosines = {
            row: features[one] @ features[row] / math.hypot(*features[one]) / math.hypot(*features[row])
            for row in others
        }
        nearest = sorted(others, key=lambda row: -cosines[row])[:neighbours]
        shares.append(sum(labels[row] == labels[one] for row in nearest) / len(nearest))
        chances.append(sum(labels[row] == labels[one] for row in others) / len(others))
    return shares, chances


@pytest.mark.parametrize("grouped", [False, True])
def test_purity_is_its_definition(grouped, monkeypatch):
    monkeypatch.setattr("maskedclip_composer.visualize.space_numbers._CHUNK", 7)  # several, the last one short
    features, labels = RNG.normal(size=(40, 5)), RNG.integers(0, 3, 40)
    patients = [f"patient {row // 2}" for row in range(40)]
    groups = patients if grouped else list(range(40))
    shares, chances = plain_purity(features, labels, groups, 6)
    found = neighbour_purity(features, labels, neighbours=6, groups=patients if grouped else None)
    assert found.share == pytest.approx(np.mean(shares))
    assert found.chance == pytest.approx(np.mean(chances))
    assert found.neighbours == 6
    for label in range(3):
        rows = np.flatnonzero(labels == label)
        assert found.per_label[label] == pytest.approx((np.take(shares, rows).mean(), np.take(chances, rows).mean()))


def test_purity_sees_clusters_and_not_the_other_eye():
    centres = np.eye(4)
    labels = np.arange(40) % 4
    assert neighbour_purity(centres[labels] + 0.01 * RNG.normal(size=(40, 4)), labels, neighbours=5).share == 1
    # Two eyes of a patient are the same point, and labels mean nothing else: without patients apart purity misleads.
    features, patients = np.repeat(RNG.normal(size=(50, 20)), 2, axis=0), np.repeat(np.arange(50), 2)
    own = np.repeat(RNG.integers(0, 2, 50), 2)
    assert neighbour_purity(features, own, neighbours=1).share == 1
    assert neighbour_purity(features, own, neighbours=1, groups=patients.tolist()).share < 0.8


def test_neighbours_are_no_more_than_there_are():
    assert neighbour_purity(RNG.normal(size=(4, 2)), np.array([0, 0, 1, 1])).neighbours == 3
    with pytest.raises(ValueError, match="one group"):
        neighbour_purity(RNG.normal(size=(3, 2)), np.array([0, 1, 1]), groups=["a", "a", "a"])


def plain_hsic(one, other):
    """Return Song's sum over all quadruples of different photographs, of which HSIC_1 is the short form."""
    kernels = [part @ part.T for part in (one, other)]
    total, count = 0.0, 0
    for i, j, k, m in itertools.permutations(range(len(one)), 4):
        first, second = kernels[0][i, j], kernels[1]
        total += first * (second[i, j] + second[k, m] - 2 * second[i, k])
        count += 1
    return total / count


def test_debiased_alignment_is_the_mean_over_quadruples():
    one, other = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 5))
    expected = plain_hsic(one, other) / math.sqrt(plain_hsic(one, one) * plain_hsic(other, other))
    assert linear_cka(one, other) == pytest.approx(expected)


def test_plain_alignment_is_its_formula():
    one, other = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 5))
    centre = np.eye(12) - 1 / 12
    kernels = [centre @ part @ part.T @ centre for part in (one, other)]
    expected = np.sum(kernels[0] * kernels[1]) / np.linalg.norm(kernels[0]) / np.linalg.norm(kernels[1])
    assert linear_cka(one, other, debiased=False) == pytest.approx(expected)


@pytest.mark.parametrize("debiased", [True, False])
def test_alignment_does_not_change_with_turn_scale_and_shift(debiased):
    one = RNG.normal(size=(60, 6))
    turn = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    assert linear_cka(one, 3 * one @ turn + 5, debiased=debiased) == pytest.approx(1)


def test_unrelated_spaces_are_not_aligned_though_there_are_more_features_than_photographs():
    one, other = RNG.normal(size=(40, 400)), RNG.normal(size=(40, 400))
    assert linear_cka(one, other, debiased=False) > 0.8
    assert abs(linear_cka(one, other)) < 0.1


@pytest.mark.parametrize(("rows", "message"), [(3, "four"), (5, "equal")])
def test_alignment_without_an_answer_is_an_error(rows, message):
    with pytest.raises(ValueError, match=message):
        linear_cka(np.ones((rows, 2)), RNG.normal(size=(rows, 2)))


def test_the_gap_is_between_centroids():
    images = np.array([[1.0, 0.0], [0.0, 1.0]])
    texts = np.array([[-1.0, 0.0], [0.0, -1.0], [-1.0, 0.0], [0.0, -1.0]])
    gap = modality_gap(images, texts)
    assert gap.distance == pytest.approx(math.sqrt(2))
    assert (gap.image_spread, gap.text_spread) == (pytest.approx(math.sqrt(0.5)), pytest.approx(math.sqrt(0.5)))
    assert modality_gap(images, images).distance == 0
