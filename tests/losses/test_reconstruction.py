import pytest
import torch

from maskedclip_composer.losses.reconstruction import masked_patch_mse, streamwise_patch_mse


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


def printed_sum(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, num_pairs: int) -> float:
    """L_att of the pairs plus L_att of the others, each as printed; a stream without images has no term."""
    streams = [slice(0, num_pairs), slice(num_pairs, len(mask))]
    return sum(printed_equation(prediction[s], target[s], mask[s]) for s in streams if len(mask[s]))


@pytest.mark.parametrize("num_pairs", [0, 1, 3, 4])
def test_streams_are_the_sum_of_the_printed_equations(num_pairs):
    inputs = case(images=4)
    loss = streamwise_patch_mse(*inputs, torch.tensor(num_pairs))
    assert loss.item() == pytest.approx(printed_sum(*inputs, num_pairs))


@pytest.mark.parametrize("num_pairs", [0, 4])
def test_one_stream_alone_is_the_plain_loss(num_pairs):
    inputs = case(images=4)
    torch.testing.assert_close(streamwise_patch_mse(*inputs, torch.tensor(num_pairs)), masked_patch_mse(*inputs))


def test_a_stream_weighs_the_same_however_many_images_it_has():
    prediction, target, mask = case(images=4)
    loss = streamwise_patch_mse(prediction, target, mask, torch.tensor(1))
    doubled = [torch.cat([values, values[1:]]) for values in (prediction, target, mask)]
    torch.testing.assert_close(streamwise_patch_mse(*doubled, torch.tensor(1)), loss)


def test_gradients_of_streams_are_those_of_finite_differences():
    prediction, target, mask = case(images=4)
    assert torch.autograd.gradcheck(
        lambda p, t: streamwise_patch_mse(p, t, mask, torch.tensor(3)), (prediction.requires_grad_(), target)
    )
