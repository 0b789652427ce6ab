import math

import pytest
import torch
import torch.nn.functional as F

from maskedclip_composer.losses.distillation import masked_feature_cosine


def printed_equation(prediction: torch.Tensor, target: torch.Tensor) -> float:
    """Eq. 5."""
    total = 0.0
    for p_image, t_image in zip(prediction.tolist(), target.tolist(), strict=True):
        inner = 0.0
        for p, t in zip(p_image, t_image, strict=True):
            norms = math.sqrt(sum(v * v for v in p)) * math.sqrt(sum(v * v for v in t))
            inner -= sum(a * b for a, b in zip(p, t, strict=True)) / norms
        total += inner / len(p_image)
    return total / len(prediction)


def test_equals_the_printed_equation():
    prediction, target = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    loss = masked_feature_cosine(prediction, target).item()
    assert loss == pytest.approx(printed_equation(prediction, target))


def test_equals_the_product_of_normalised_features():
    prediction, target = torch.randn(2, 3, 4, 5)
    expected = -(F.normalize(prediction, dim=-1) * F.normalize(target, dim=-1)).sum(-1).mean()
    torch.testing.assert_close(masked_feature_cosine(prediction, target), expected)


def test_gradients_are_those_of_finite_differences():
    prediction, target = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(masked_feature_cosine, (prediction.requires_grad_(), target))


def test_only_directions_matter():
    prediction, target = torch.randn(2, 3, 4, 5)
    factors = torch.rand(3, 4, 1) + 0.5
    torch.testing.assert_close(
        masked_feature_cosine(prediction * factors, target / factors), masked_feature_cosine(prediction, target)
    )


def test_limits():
    target = torch.randn(3, 4, 5)
    assert masked_feature_cosine(2 * target, target).item() == pytest.approx(-1)
    assert masked_feature_cosine(-target, target).item() == pytest.approx(1)


def test_a_target_of_zero_gives_a_finite_loss_and_gradient():
    prediction = torch.randn(1, 2, 3, requires_grad=True)
    loss = masked_feature_cosine(prediction, torch.zeros(1, 2, 3))
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


def test_every_patch_counts_and_patches_are_compared_in_place():
    prediction, target = torch.randn(2, 1, 4, 5)
    loss = masked_feature_cosine(prediction, target)
    for patch in range(4):
        changed = target.clone()
        changed[0, patch] = torch.randn(5)
        assert masked_feature_cosine(prediction, changed) != loss
    order = torch.tensor([1, 2, 3, 0])
    torch.testing.assert_close(masked_feature_cosine(prediction[:, order], target[:, order]), loss)
    assert (masked_feature_cosine(prediction, target[:, order]) - loss).abs() > 1e-3
