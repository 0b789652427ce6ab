import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from maskedclip_composer.objectives.health import (
    RANK_ROWS,
    effective_rank,
    nearest_of_texts,
    variance_of_directions,
)


@pytest.mark.parametrize("shape", [(20, 7), (7, 20)])
def test_the_effective_rank_is_rankmes_printed_formula(shape):
    features = torch.randn(shape)
    features[:, 3] *= 5
    values = torch.linalg.svdvals(features.double()).tolist()
    entropy = 0.0
    for value in values:
        share = value / sum(values) + 1e-7
        entropy -= share * math.log(share)
    assert effective_rank(features).item() == pytest.approx(math.exp(entropy), rel=1e-4)


def test_the_effective_rank_is_that_of_equal_directions_and_1_where_all_features_are_equal():
    directions = torch.linalg.qr(torch.randn(9, 9))[0][:4]
    rows = directions.repeat(5, 1)[:, None]  # any leading shape
    assert effective_rank(rows).item() == pytest.approx(4, rel=1e-4)
    assert effective_rank(torch.randn(9).expand(30, 9)).item() == pytest.approx(1, abs=1e-2)
    assert effective_rank(torch.zeros(3, 5)).item() == 1


def test_the_effective_rank_of_many_rows_is_that_of_evenly_spread_ones():
    chosen = torch.randn(RANK_ROWS, 8)
    rows = chosen.repeat_interleave(2, dim=0)[: 2 * RANK_ROWS - 1]
    assert effective_rank(rows).item() == pytest.approx(effective_rank(chosen).item(), rel=1e-3)


def test_the_effective_rank_copies_only_the_rows_that_it_takes():
    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor) and found.dtype == torch.float64 and found.ndim == 2:
                rows.append(len(found))
            return found

    rows: list[int] = []
    with Largest():
        effective_rank(torch.randn(40, 50, 8))
    assert max(rows) == RANK_ROWS


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_have_no_rank_and_no_error(value):
    features = torch.randn(4, 3)
    features[1, 1] = value
    assert effective_rank(features).isnan()
    assert variance_of_directions(features).isnan()


def test_the_variance_is_of_directions_alone():
    features = torch.eye(4).repeat(3, 1)
    lengths = torch.rand(12, 1) + 0.5
    assert variance_of_directions(features * lengths).item() == pytest.approx(1 - 1 / 4)
    assert variance_of_directions(torch.randn(5).expand(6, 5) * lengths[:6]).item() == pytest.approx(0, abs=1e-6)


def test_texts_find_images_as_a_loop_over_pairs_says():
    labels = torch.tensor([4, 4, 7, 9, 7, 4])
    text_index = torch.tensor([0, 0, 2, 1, 2, 3])
    similarity = torch.randn(6, 5)  # the last text is nobody's
    hits = chance = 0.0
    for pair in range(6):
        column = [similarity[image, text_index[pair]].item() for image in range(6)]
        hits += labels[column.index(max(column))].item() == labels[pair].item()
        chance += sum(label == labels[pair] for label in labels).item() / 6
    found = nearest_of_texts(similarity, labels, text_index)
    assert found["text_retrieval_at_1"].item() == pytest.approx(hits / 6)
    assert found["retrieval_chance"].item() == pytest.approx(chance / 6)
    square = torch.eye(6)[:, [1, 0, 2, 3, 4, 5]]
    # The texts of the first two, alike in label, find each other's image.
    assert nearest_of_texts(square, labels)["text_retrieval_at_1"].item() == 1
    assert nearest_of_texts(square, torch.arange(6))["text_retrieval_at_1"].item() == pytest.approx(4 / 6)
