import math

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from open_clip.loss import ClipLoss

from maskedclip_composer.losses.contrastive import label_guided_clip_loss, label_guided_floor


def features(pairs: int, dim: int = 6, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    image, text = torch.randn(2, pairs, dim, dtype=dtype)
    return F.normalize(image, dim=-1), F.normalize(text, dim=-1)


def printed_equations(image: list[list[float]], text: list[list[float]], y: list[int], tau: float) -> float:
    """Eq. 2-4, with the minus sign, sum by sum."""
    rows = range(len(y))

    def similarity(i: int, j: int) -> float:
        return tau * sum(a * b for a, b in zip(image[i], text[j], strict=True))

    i2t = t2i = 0.0
    for x in rows:
        positives = [other for other in rows if y[other] == y[x]]
        to_texts = sum(math.exp(similarity(x, other)) for other in rows)
        to_images = sum(math.exp(similarity(other, x)) for other in rows)
        i2t -= sum(math.log(math.exp(similarity(x, p)) / to_texts) for p in positives) / len(positives)
        t2i -= sum(math.log(math.exp(similarity(p, x)) / to_images) for p in positives) / len(positives)
    return 0.5 * i2t / len(y) + 0.5 * t2i / len(y)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [7, 7, 7, 7, 7], [3, 1, 3, 9, 3], [2**62, 5, 2**62, 5, 0]])
def test_equals_the_printed_equations(labels):
    image, text = features(5)
    loss = label_guided_clip_loss(image, text, torch.tensor(labels), torch.tensor(4.2))
    assert loss.item() == pytest.approx(printed_equations(image.tolist(), text.tolist(), labels, 4.2), abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_with_distinct_labels_it_is_open_clips_loss(scale):
    image, text = features(12, dtype=torch.float32)
    loss = label_guided_clip_loss(image, text, torch.randperm(12), torch.tensor(scale))
    torch.testing.assert_close(loss, ClipLoss()(image, text, torch.tensor(scale)), atol=1e-6, rtol=1e-6)


def test_with_distinct_labels_it_is_two_cross_entropies():
    image, text = features(6)
    logits, each = 9 * image @ text.T, torch.arange(6)
    expected = (F.cross_entropy(logits, each) + F.cross_entropy(logits.T, each)) / 2
    torch.testing.assert_close(label_guided_clip_loss(image, text, each, torch.tensor(9.0)), expected)


def test_gradients_are_those_of_finite_differences():
    image, text = features(5, dim=3)
    labels = torch.tensor([0, 1, 0, 2, 1])
    inputs = (image.requires_grad_(), text.requires_grad_(), torch.tensor(3.0, dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(lambda i, t, s: label_guided_clip_loss(i, t, labels, s), inputs)


def test_order_of_the_pairs_and_names_of_the_labels_do_not_matter():
    image, text = features(8)
    labels, scale = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4]), torch.tensor(10.0)
    loss = label_guided_clip_loss(image, text, labels, scale)
    order = torch.randperm(8)
    torch.testing.assert_close(label_guided_clip_loss(image[order], text[order], labels[order], scale), loss)
    torch.testing.assert_close(label_guided_clip_loss(image, text, 1000 - 7 * labels, scale), loss)
    torch.testing.assert_close(label_guided_clip_loss(text, image, labels, scale), loss)


def test_the_order_of_the_texts_alone_matters():
    image, text = features(8)
    labels, scale = torch.arange(8), torch.tensor(10.0)
    shifted = label_guided_clip_loss(image, text.roll(1, 0), labels, scale)
    assert (shifted - label_guided_clip_loss(image, text, labels, scale)).abs() > 1e-2


def test_a_perfect_embedding_falls_to_the_floor_and_not_below():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    classes = F.one_hot(labels).double()  # similarity 1 within a label ...
    image = text = (classes - classes.mean(dim=1, keepdim=True)) / (2 / 3) ** 0.5  # ... and -1/2 between labels
    floor = label_guided_floor(labels).item()
    assert floor == pytest.approx((3 * math.log(3) + 2 * math.log(2)) / 6)
    losses = [
        label_guided_clip_loss(image, text, labels, torch.tensor(s)).item() for s in (1.0, 3.0, 10.0, 30.0, 100.0)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > floor + 0.1
    assert losses[-1] == pytest.approx(floor, abs=1e-6)


def test_no_embedding_undercuts_the_floor():
    for _ in range(50):
        labels = torch.randint(0, 4, (9,))
        image, text = features(9)
        loss = label_guided_clip_loss(image, text, labels, torch.rand(()) * 99 + 1)
        assert loss >= label_guided_floor(labels) - 1e-6


def test_bfloat16_features_are_compared_in_float32():
    image, text = (f.bfloat16() for f in features(16, dim=64))
    labels, scale = torch.arange(16) // 2, torch.tensor(100.0)
    loss = label_guided_clip_loss(image, text, labels, scale.bfloat16())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, label_guided_clip_loss(image.float(), text.float(), labels, scale))


def test_shapes_are_enforced_under_pytest():
    image, text = features(4)
    with pytest.raises(TypeCheckError):
        label_guided_clip_loss(image, text[:3], torch.arange(4), torch.tensor(1.0))
    with pytest.raises(TypeCheckError):
        label_guided_clip_loss(image, text, torch.arange(4).double(), torch.tensor(1.0))
    with pytest.raises(TypeCheckError):
        label_guided_clip_loss(image, text, torch.arange(4), torch.tensor([1.0]))
