import math

import pytest
import torch

from maskedclip_composer.models.masking import gather_tokens
from maskedclip_composer.models.score_masking import responsive_cosine_score, score_masking, text_to_image_score

Vectors = list[list[float]]


def case(images: int = 3, patches: int = 5, tokens: int = 4, dim: int = 6):
    image, text = torch.randn(images, patches, dim), torch.randn(images, tokens, dim)
    valid = torch.ones(images, tokens, dtype=torch.bool)
    valid[0, 2:], valid[1, 0] = False, False
    return image, text, valid


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a: list[float], b: list[float]) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def plain_text_to_image(image: Vectors, text: Vectors, temperature: float) -> list[float]:
    attention = [softmax([cosine(token, patch) / temperature for patch in image]) for token in text]
    return [sum(row[i] for row in attention) for i in range(len(image))]


def plain_responsive_cosine(image: Vectors, text: Vectors) -> list[float]:
    scores = []
    for patch in image:
        weights = softmax([dot(patch, token) / math.sqrt(len(patch)) for token in text])
        gathered = [sum(w * token[d] for w, token in zip(weights, text, strict=True)) for d in range(len(patch))]
        scores.append(cosine(patch, gathered))
    return scores


def both(image, text, valid) -> list[torch.Tensor]:
    return [text_to_image_score(image, text, valid, 0.1), responsive_cosine_score(image, text, valid)]


def test_both_scores_are_the_equations_of_the_valid_tokens():
    image, text, valid = case()
    by_text, by_response = both(image, text, valid)
    for n in range(3):
        patches, tokens = image[n].double().tolist(), text[n][valid[n]].double().tolist()
        assert by_text[n].tolist() == pytest.approx(plain_text_to_image(patches, tokens, 0.1), rel=1e-4)
        assert by_response[n].tolist() == pytest.approx(plain_responsive_cosine(patches, tokens), rel=1e-4)


def test_a_token_gives_one_unit_of_attention():
    image, text, valid = case()
    torch.testing.assert_close(text_to_image_score(image, text, valid, 0.1).sum(dim=1), valid.sum(dim=1).float())


def test_padding_gives_no_score():
    image, text, valid = case()
    before = both(image, text, valid)
    text[~valid] = 100.0
    for old, new in zip(before, both(image, text, valid), strict=True):
        assert torch.equal(new, old)


def test_one_valid_token_is_all_that_a_patch_gathers():
    image, text, _ = case()
    valid = torch.zeros(3, 4, dtype=torch.bool)
    valid[:, 2] = True
    cosines = torch.cosine_similarity(image, text[:, 2:3], dim=-1)
    by_text, by_response = both(image, text, valid)
    torch.testing.assert_close(by_response, cosines)
    torch.testing.assert_close(by_text, (cosines / 0.1).softmax(dim=-1))


def test_scores_follow_the_patches_and_not_the_order_of_the_tokens():
    image, text, valid = case()
    before = both(image, text, valid)
    patches, tokens = torch.tensor([3, 0, 4, 2, 1]), torch.tensor([2, 3, 1, 0])
    for old, new in zip(before, both(image[:, patches], text[:, tokens], valid[:, tokens]), strict=True):
        torch.testing.assert_close(new, old[:, patches])


def test_a_text_without_a_valid_token_scores_every_patch_alike():
    image, text, valid = case()
    valid[2] = False
    for scores in both(image, text, valid):
        assert scores[2].tolist() == [0.0] * 5


def plain_rule(scores: list[float], noise: list[float], ratio: float, explore: float) -> set[int]:
    """Hidden patches of one image whose scores all differ."""
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
    high = round(len(scores) * ratio)
    top, rest = (sorted(group, key=lambda i: noise[i]) for group in (ranked[:high], ranked[high:]))
    return {*top[: round(high * (1 - explore))], *rest[: round(len(rest) * explore)]}


@pytest.mark.parametrize(("ratio", "explore"), [(0.5, 0.1), (0.25, 0.0), (0.75, 0.3), (0.3, 0.5)])
def test_the_mask_is_the_rule_told_patch_by_patch(ratio, explore):
    scores, noise = torch.randn(20, 36), torch.rand(20, 36)
    mask = score_masking(scores, noise, ratio, explore).mask
    for n in range(20):
        hidden = set(mask[n].nonzero().flatten().tolist())
        assert hidden == plain_rule(scores[n].tolist(), noise[n].tolist(), ratio, explore)


def test_nine_tenths_of_the_top_half_and_a_tenth_of_the_bottom_half():
    scores, noise = torch.randn(50, 196), torch.rand(50, 196)
    mask = score_masking(scores, noise, 0.5, 0.1).mask
    top = torch.zeros_like(mask).scatter(1, scores.topk(98, dim=1).indices, 1.0)
    assert (mask * top).sum(dim=1).tolist() == [88] * 50
    assert (mask * (1 - top)).sum(dim=1).tolist() == [10] * 50
    assert (score_masking(scores, noise, 0.5, 0.0).mask == top).all()


def test_ids_keep_and_ids_restore_belong_to_the_mask():
    tokens = torch.randn(4, 16, 3)
    ids_keep, ids_restore, mask, _ = score_masking(torch.randn(4, 16), torch.rand(4, 16), 0.5, 0.25)
    gaps = torch.full((4, 16 - ids_keep.shape[1], 3), torch.nan)
    restored = gather_tokens(torch.cat([gather_tokens(tokens, ids_keep), gaps], dim=1), ids_restore)
    assert torch.equal(restored[mask == 0], tokens[mask == 0])
    assert restored[mask == 1].isnan().all()


def test_a_mask_follows_from_scores_and_noise_of_its_own_image():
    scores, noise = torch.randn(6, 16), torch.rand(6, 16)
    whole = score_masking(scores, noise, 0.5, 0.1)
    halves = [score_masking(s, n, 0.5, 0.1) for s, n in zip(scores.chunk(2), noise.chunk(2), strict=True)]
    for index, field in enumerate(whole):
        assert torch.equal(field, torch.cat([half[index] for half in halves]))
    assert not torch.equal(score_masking(scores, torch.rand(6, 16), 0.5, 0.1).mask, whole.mask)


def test_a_mask_follows_the_patches():
    scores, noise, order = torch.randn(6, 16).round(decimals=1), torch.rand(6, 16), torch.randperm(16)
    whole, moved = score_masking(scores, noise, 0.5, 0.1), score_masking(scores[:, order], noise[:, order], 0.5, 0.1)
    assert torch.equal(moved.mask, whole.mask[:, order])
    assert torch.equal(order[moved.ids_keep], whole.ids_keep)


def test_equal_scores_are_ordered_by_noise():
    """As for a text without a valid token: the mask then is a random one, not the first patches of the image."""
    noise = torch.rand(3, 16)
    mask = score_masking(torch.zeros(3, 16), noise, 0.5, 0.0).mask
    assert torch.equal(mask, torch.zeros(3, 16).scatter(1, noise.topk(8, largest=False).indices, 1.0))


def test_no_gradient_flows_through_the_mask():
    scores = torch.randn(2, 16, requires_grad=True)
    assert not score_masking(scores, torch.rand(2, 16), 0.5, 0.1).mask.requires_grad
