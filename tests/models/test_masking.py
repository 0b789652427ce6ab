import pytest
import torch
from jaxtyping import TypeCheckError

from maskedclip_composer.models.masking import gather_tokens, num_visible, random_masking


@pytest.mark.parametrize(
    ("patches", "ratio", "expected"),
    [(196, 0.75, 49), (196, 0.5, 98), (196, 0.6, 78), (196, 0.9, 19), (64, 0.75, 16), (10, 0.9, 1), (16, 0.75, 4)],
)
def test_the_number_of_visible_patches(patches, ratio, expected):
    assert num_visible(patches, ratio) == expected


@pytest.mark.parametrize("percent", range(1, 100))
def test_the_number_of_visible_patches_is_the_exact_quotient_rounded_down(percent):
    for patches in (9, 16, 64, 100, 196, 256, 784):
        assert num_visible(patches, percent / 100) == patches * (100 - percent) // 100


def test_every_image_loses_exactly_the_same_number_and_keeps_the_smallest_noise():
    noise = torch.rand(7, 196)
    ids_keep, _, mask, _ = random_masking(noise, 0.75)
    assert ids_keep.shape == (7, 49)
    assert mask.sum(dim=1).tolist() == [147] * 7
    assert set(mask.unique().tolist()) == {0, 1}
    for row in range(7):
        smallest = set(noise[row].topk(49, largest=False).indices.tolist())
        assert set(ids_keep[row].tolist()) == smallest
        assert set((mask[row] == 0).nonzero().flatten().tolist()) == smallest


def test_ids_restore_undoes_the_shuffle():
    tokens = torch.randn(3, 16, 5)
    noise = torch.rand(3, 16)
    ids_keep, ids_restore, mask, _ = random_masking(noise, 0.75)
    visible = gather_tokens(tokens, ids_keep)
    restored = gather_tokens(torch.cat([visible, torch.full((3, 12, 5), torch.nan)], dim=1), ids_restore)
    kept = mask == 0
    assert torch.equal(restored[kept], tokens[kept])
    assert restored[~kept].isnan().all()


def test_equal_noise_still_gives_an_exact_mask():
    _, ids_restore, mask, _ = random_masking(torch.zeros(2, 16), 0.75)
    assert mask.sum(dim=1).tolist() == [12, 12]
    assert ids_restore.sort(dim=1).values.tolist() == [list(range(16))] * 2


def test_a_mask_depends_on_its_own_image_alone():
    noise = torch.rand(6, 16)
    whole = random_masking(noise, 0.75)
    halves = [random_masking(half, 0.75) for half in noise.chunk(2)]
    for index, field in enumerate(whole):
        assert torch.equal(field, torch.cat([half[index] for half in halves]))


def test_gather_tokens_takes_rows_of_each_image():
    tokens = torch.randn(2, 4, 3)
    ids = torch.tensor([[3, 0], [1, 1]])
    expected = torch.stack([torch.stack([tokens[i, j] for j in row]) for i, row in enumerate(ids.tolist())])
    assert torch.equal(gather_tokens(tokens, ids), expected)
    with pytest.raises(TypeCheckError):
        gather_tokens(tokens, ids[:1])
