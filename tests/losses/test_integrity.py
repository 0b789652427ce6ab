import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from maskedclip_composer.losses.contrastive import integrity_clip_loss, label_guided_clip_loss

NO_LIMIT = torch.tensor(1e9)
# By mode: whether the integrity scales and whether it weighs, and the share of the scaled loss.
MODES = {
    "none": (False, False, 0.0),
    "scale": (True, False, 1.0),
    "weight": (False, True, 0.0),
    "both": (True, True, 0.5),
}


def features(pairs: int, dim: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    image, text = torch.randn(2, pairs, dim, dtype=torch.float64)
    return F.normalize(image, dim=-1), F.normalize(text, dim=-1)


def loss_of(image, text, labels, tau, integrity, mode: str, limit: torch.Tensor = NO_LIMIT) -> torch.Tensor:
    scales, weighs, share = MODES[mode]
    ones = torch.ones_like(integrity)
    return integrity_clip_loss(
        image,
        text,
        labels,
        torch.as_tensor(tau),
        integrity if scales else ones,
        integrity.detach() if weighs else ones,
        torch.tensor(share),
        limit,
    )


def cross_entropies(similarity: list[list[float]], y: list[int], scale: list[float]) -> list[float]:
    """CE of each row of diag(scale) similarity."""
    result = []
    for row, label, factor in zip(similarity, y, scale, strict=True):
        positives = [value for value, other in zip(row, y, strict=True) if other == label]
        total = sum(math.exp(factor * value) for value in row)
        result.append(-sum(math.log(math.exp(factor * value) / total) for value in positives) / len(positives))
    return result


def printed_equation(image, text, y: list[int], tau: float, s: list[float], mode: str) -> float:
    """MaCo's L_c, term by term: the mean of the losses that the mode has."""
    scales, weighs, _ = MODES[mode]
    similarity = [[sum(a * b for a, b in zip(i, t, strict=True)) for t in text] for i in image]
    terms = []
    for direction in (similarity, [list(column) for column in zip(*similarity, strict=True)]):
        if scales or not weighs:
            each = cross_entropies(direction, y, [tau * factor if scales else tau for factor in s])
            terms.append(sum(each) / len(y))
        if weighs:
            each = cross_entropies(direction, y, [tau] * len(y))
            terms.append(sum(weight * value for weight, value in zip(s, each, strict=True)) / sum(s))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [7, 7, 7, 7, 7], [3, 1, 3, 9, 3]])
@pytest.mark.parametrize("mode", MODES)
def test_equals_macos_equation(mode, labels):
    image, text = features(5)
    integrity = torch.rand(5, dtype=torch.float64) + 0.2
    loss = loss_of(image, text, torch.tensor(labels), 4.2, integrity, mode)
    expected = printed_equation(image.tolist(), text.tolist(), labels, 4.2, integrity.tolist(), mode)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_it_is_torchs_cross_entropy_with_weights_and_with_scaled_rows():
    """As MaCo computes it: `weight` is by class, and with distinct labels each row is a class of its own."""
    image, text = features(6)
    s, each, tau = torch.rand(6, dtype=torch.float64) + 0.2, torch.arange(6), 9.0
    logits = tau * image @ text.T
    scaled = F.cross_entropy(s[:, None] * logits, each) + F.cross_entropy(s[:, None] * logits.T, each)
    weighed = F.cross_entropy(logits, each, weight=s) + F.cross_entropy(logits.T, each, weight=s)
    torch.testing.assert_close(loss_of(image, text, each, tau, s, "both"), (scaled + weighed) / 4)
    torch.testing.assert_close(loss_of(image, text, each, tau, s, "scale"), scaled / 2)
    torch.testing.assert_close(loss_of(image, text, each, tau, s, "weight"), weighed / 2)


@pytest.mark.parametrize("mode", ["none", "weight"])
def test_with_equal_integrities_the_weights_leave_open_clips_loss(mode):
    image, text = (each.float() for each in features(8))
    loss = loss_of(image, text, torch.randperm(8), 14.3, torch.full((8,), math.log(2)), mode)
    torch.testing.assert_close(loss, ClipLoss()(image, text, torch.tensor(14.3)), atol=1e-6, rtol=1e-6)


def test_with_equal_integrities_scaling_is_another_temperature():
    image, text = features(8)
    labels, integrity = torch.arange(8) // 2, torch.full((8,), math.log(2), dtype=torch.float64)
    expected = label_guided_clip_loss(image, text, labels, torch.tensor(20 * math.log(2), dtype=torch.float64))
    torch.testing.assert_close(loss_of(image, text, labels, 20.0, integrity, "scale"), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_finite_differences(mode):
    image, text = features(4, dim=3)
    labels, weight = torch.tensor([0, 1, 0, 2]), torch.rand(4, dtype=torch.float64) + 0.2
    scale = torch.rand(4, dtype=torch.float64) + 0.2
    tau = torch.tensor(3.0, dtype=torch.float64)
    share = torch.tensor(MODES[mode][2])
    inputs = tuple(each.requires_grad_() for each in (image, text, tau, scale))
    assert torch.autograd.gradcheck(
        lambda i, t, logit_scale, s: integrity_clip_loss(i, t, labels, logit_scale, s, weight, share, NO_LIMIT), inputs
    )


def test_the_scaled_logits_keep_to_the_limit():
    image, text = features(4)
    labels, integrity = torch.arange(4), torch.tensor([0.5, 1.5, 3.0, 1.0], dtype=torch.float64, requires_grad=True)
    limit = torch.tensor(100.0)
    loss = loss_of(image, text, labels, 80.0, integrity, "scale", limit)
    torch.testing.assert_close(loss, loss_of(image, text, labels, 80.0, integrity.clamp(max=1.25), "scale"))
    loss.backward()
    assert (integrity.grad != 0).tolist() == [True, False, False, True]


def test_a_pair_without_weight_is_a_negative_alone():
    image, text = features(5)
    integrity = torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)
    each = torch.arange(5)
    rows = F.cross_entropy(9 * image @ text.T, each, reduction="none")[:4].mean()
    columns = F.cross_entropy(9 * text @ image.T, each, reduction="none")[:4].mean()
    torch.testing.assert_close(loss_of(image, text, each, 9.0, integrity, "weight"), (rows + columns) / 2)
    torch.testing.assert_close(
        loss_of(image, text, each, 9.0, 7 * integrity, "weight"), loss_of(image, text, each, 9.0, integrity, "weight")
    )


@pytest.mark.parametrize("mode", MODES)
def test_order_of_the_pairs_and_names_of_the_labels_do_not_matter(mode):
    image, text = features(6)
    labels, integrity, order = (
        torch.tensor([0, 0, 1, 2, 3, 1]),
        torch.rand(6, dtype=torch.float64) + 0.2,
        torch.randperm(6),
    )
    loss = loss_of(image, text, labels, 9.0, integrity, mode)
    moved = loss_of(image[order], text[order], 50 - 3 * labels[order], 9.0, integrity[order], mode)
    torch.testing.assert_close(moved, loss)


def test_bfloat16_features_are_compared_in_float32():
    image, text = (each.bfloat16() for each in features(8, dim=64))
    integrity = torch.rand(8) + 0.2
    loss = loss_of(image, text, torch.arange(8), 50.0, integrity, "both")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_of(image.float(), text.float(), torch.arange(8), 50.0, integrity, "both"))
