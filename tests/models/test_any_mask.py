"""Masks of any size: exact counts, and orders that undo each other."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskedclip_composer.data.block_masking import block_mask
from maskedclip_composer.models.masking import Mask, gather_tokens, num_visible, random_masking
from maskedclip_composer.models.score_masking import group_sizes, score_masking
from maskedclip_composer.models.text_masking import mask_entities

MANY = settings(deadline=None, max_examples=60)
SIZES = st.integers(1, 300)
RATIOS = st.integers(1, 999).map(lambda thousandth: thousandth / 1000)
SEEDS = st.integers(0, 2**31)


def noise(seed: int, images: int, patches: int, levels: int) -> Tensor:
    """Noise with many equal values where there are few levels."""
    drawn = torch.rand(images, patches, generator=torch.Generator().manual_seed(seed))
    return (drawn * levels).floor() / levels


def check(mask: Mask, images: int, patches: int, hidden: int) -> None:
    assert mask.ids_keep.shape == (images, patches - hidden)
    assert mask.ids_removed.shape == (images, hidden)
    assert mask.mask.sum(dim=1).tolist() == [hidden] * images
    order = torch.cat([mask.ids_keep, mask.ids_removed], dim=1)
    everything = torch.arange(patches).expand(images, -1)
    assert torch.equal(order.sort(dim=1).values, everything)  # each patch once
    assert torch.equal(order.gather(1, mask.ids_restore), everything)  # and back
    assert torch.equal(mask.mask.bool(), mask.ids_restore >= patches - hidden)
    tokens = torch.arange(images * patches, dtype=torch.float32).view(images, patches, 1)
    assert torch.equal(gather_tokens(gather_tokens(tokens, order), mask.ids_restore), tokens)


@MANY
@given(images=st.integers(1, 3), patches=SIZES, ratio=RATIOS, seed=SEEDS, levels=st.sampled_from([1, 3, 2**24]))
def test_random_masks(images, patches, ratio, seed, levels):
    visible = num_visible(patches, ratio)
    assert 0 <= visible < patches or ratio < 1 / patches
    assert visible == math.floor(patches * (1000 - round(ratio * 1000)) / 1000 + 1e-9)
    given_noise = noise(seed, images, patches, levels)
    mask = random_masking(given_noise, ratio)
    check(mask, images, patches, patches - visible)
    if visible and visible < patches:
        kept, removed = given_noise.gather(1, mask.ids_keep), given_noise.gather(1, mask.ids_removed)
        assert bool((kept.amax(dim=1) <= removed.amin(dim=1)).all())


@MANY
@given(
    images=st.integers(1, 3),
    patches=SIZES,
    ratio=RATIOS,
    explore=st.integers(0, 1000).map(lambda thousandth: thousandth / 1000),
    seed=SEEDS,
    levels=st.sampled_from([1, 3, 2**24]),
)
def test_masks_by_score(images, patches, ratio, explore, seed, levels):
    high, from_high, from_rest = group_sizes(patches, ratio, explore)
    assert 0 <= from_high <= high <= patches
    assert 0 <= from_rest <= patches - high
    scores = noise(seed, images, patches, levels) - 0.5
    mask = score_masking(scores, noise(seed + 1, images, patches, levels), ratio, explore)
    check(mask, images, patches, from_high + from_rest)
    if explore == 0 and 0 < high < patches:  # exactly those that score highest
        hidden, kept = scores.gather(1, mask.ids_removed), scores.gather(1, mask.ids_keep)
        assert bool((hidden.amin(dim=1) >= kept.amax(dim=1)).all())


@MANY
@given(rows=st.integers(1, 20), columns=st.integers(1, 20), share=st.floats(0, 1), seed=SEEDS)
def test_block_masks(rows, columns, share, seed):
    hidden = round(share * rows * columns)
    mask = block_mask((rows, columns), hidden, np.random.default_rng(seed))
    assert mask.shape == (rows * columns,)
    assert mask.sum() == hidden
    assert np.array_equal(mask, block_mask((rows, columns), hidden, np.random.default_rng(seed)))


@MANY
@given(pairs=st.integers(1, 4), tokens=st.integers(1, 40), seed=SEEDS, entity=st.floats(0, 1), word=st.floats(0, 1))
def test_masks_of_texts(pairs, tokens, seed, entity, word):
    rng = np.random.default_rng(seed)
    numbers = [np.sort(rng.integers(-1, tokens, (pairs, tokens)), axis=1) for _ in range(2)]
    text_word, text_entity = (torch.from_numpy(n) for n in numbers)
    text_entity[rng.random(pairs) < 0.5] = -1  # a text without a span
    ids = torch.from_numpy(rng.integers(5, 99, (pairs, tokens)))
    drawn = torch.from_numpy(rng.random((pairs, tokens)).astype(np.float32))
    masked = mask_entities(ids, text_word, text_entity, drawn, mask_token_id=1, entity_ratio=entity, word_ratio=word)
    assert torch.equal(masked.text_ids == 1, masked.hidden)
    assert torch.equal(masked.text_ids[~masked.hidden], ids[~masked.hidden])
    for row in range(pairs):
        spans = text_entity[row] if (text_entity[row] >= 0).any() else text_word[row]
        ratio = entity if (text_entity[row] >= 0).any() else word
        assert not masked.hidden[row][spans < 0].any()
        for span in spans[spans >= 0].unique():
            of_span = masked.hidden[row][spans == span]
            assert of_span.all() or not of_span.any()  # whole
            first = int((spans == span).nonzero()[0])
            assert bool(of_span[0]) == bool(drawn[row, first] < ratio)
