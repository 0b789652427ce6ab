import pytest
import torch

from maskedclip_composer.losses.reconstruction import masked_patch_mse


def case(images: int = 3, patches: int = 5, values: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    prediction, target = torch.randn(2, images, patches, values, dtype=torch.float64)
    # The images differ in how many patches they lack: the printed mean of means is then not the mean over all patches.
    mask = torch.zeros(images, patches, dtype=torch.float64)
    for image in range(images):
        mask[image, torch.randperm(patches)[: image + 1]] = 1
    return prediction, target, mask


def printed_equation(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> float:
    """Eq. 1, the squared norm as the mean over a patch's values."""
    p, t, m = prediction.tolist(), target.tolist(), mask.tolist()
    total = 0.0
    for x in range(len(p)):
        removed = [i for i in range(len(p[x])) if m[x][i] == 1]
        norms = [sum((a - b) ** 2 for a, b in zip(p[x][i], t[x][i], strict=True)) / len(p[x][i]) for i in removed]
        total += sum(norms) / len(removed)
    return total / len(p)


def test_equals_the_printed_equation():
    inputs = case()
    assert masked_patch_mse(*inputs).item() == pytest.approx(printed_equation(*inputs))


def test_with_everything_removed_it_is_the_mean_squared_error():
    prediction, target, mask = case()
    expected = torch.nn.functional.mse_loss(prediction, target)
    torch.testing.assert_close(masked_patch_mse(prediction, target, torch.ones_like(mask)), expected)


def test_visible_patches_do_not_matter():
    prediction, target, mask = case()
    noise = torch.randn_like(target) * (1 - mask)[:, :, None] * 100
    loss = masked_patch_mse(prediction, target, mask)
    assert torch.equal(masked_patch_mse(prediction, target + noise, mask), loss)
    assert torch.equal(masked_patch_mse(prediction + noise, target, mask), loss)
    assert masked_patch_mse(prediction, target + 0.1 * mask[:, :, None], mask) != loss


def test_only_removed_patches_have_gradient():
    prediction, target, mask = case()
    masked_patch_mse(prediction.requires_grad_(), target, mask).backward()
    assert prediction.grad is not None
    assert torch.equal(prediction.grad.abs().sum(-1) > 0, mask > 0)


def test_gradients_are_those_of_finite_differences():
    prediction, target, mask = case()
    assert torch.autograd.gradcheck(lambda p, t: masked_patch_mse(p, t, mask), (prediction.requires_grad_(), target))


def test_an_image_with_nothing_removed_adds_nothing():
    prediction, target, mask = case()
    mask[1] = 0
    one, three = (masked_patch_mse(prediction[[i]], target[[i]], mask[[i]]) for i in (0, 2))
    torch.testing.assert_close(masked_patch_mse(prediction, target, mask), (one + three) / 3)
