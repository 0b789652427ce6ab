import math
from collections import Counter
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskedclip_composer.costs.counts import saved_bytes
from maskedclip_composer.losses.contrastive import label_guided_clip_loss
from maskedclip_composer.losses.distinct_texts import count_rows, distinct_text_clip_loss

Case = tuple[Tensor, Tensor, Tensor, Tensor]  # image features, distinct text features, text_index, labels


def case(text_index: list[int], labels: list[int], dim: int = 6, dtype: torch.dtype = torch.float64) -> Case:
    rows = max(text_index) + 1
    image, text = (F.normalize(torch.randn(n, dim, dtype=dtype), dim=-1) for n in (len(labels), rows))
    return image, text, torch.tensor(text_index), torch.tensor(labels)


def random_case(pairs: int, texts: int, labels: int, **options) -> Case:
    index, classes = (torch.randint(0, high, (pairs,)).tolist() for high in (texts, labels))
    return case(index, classes, **options)


def whole(pairs: Case, scale: Tensor) -> Tensor:
    """The loss of all pairs, as a single process has it."""
    return distinct_text_clip_loss(*pairs, *pairs, scale)


CASES = {
    "random": ([0, 1, 2, 1, 0, 3, 3, 1], [4, 9, 4, 9, 4, -3, -3, 9]),
    "one label": ([0, 1, 2, 1, 0, 3, 3, 1], [5] * 8),
    "one text": ([0] * 8, [2] * 8),
    "all distinct": (list(range(8)), [3, 1, 4, 15, 9, 2, 6, 53]),
    "equal texts of different labels": ([0, 0, 0, 1, 1, 2, 0, 2], [0, 1, 0, -5, -6, 2, -7, 1]),
    "equal labels of different texts": ([0, 1, 2, 3, 4, 5, 6, 7], [1, 1, 2, 2, 2, 2, 0, 0]),
    "large ids": ([0, 1, 0, 2, 2, 3, 1, 0], [2**62, 5, 2**62, -(2**61), 8, 2**62 + 1, 5, 2**62]),
    "a row without a pair": ([0, 2, 2, 4, 0, 5, 5, 2], [0, 1, 1, 2, 0, 3, 3, 1]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_loss_and_gradients_are_those_of_the_plain_loss(name, scale):
    image, text, index, labels = case(*CASES[name])
    inputs = (image.requires_grad_(), text.requires_grad_(), torch.tensor(scale).double().requires_grad_())
    plain = label_guided_clip_loss(image, text[index], labels, inputs[-1])
    distinct = whole((image, text, index, labels), inputs[-1])
    torch.testing.assert_close(distinct, plain, atol=1e-12, rtol=1e-12)
    for ours, expected in zip(torch.autograd.grad(distinct, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-10)


def printed_equations(image: list, text: list, index: list[int], y: list[int], tau: float) -> float:
    """Eq. 2-4 over distinct texts, sum by sum."""
    rows = range(len(y))
    counts = Counter(index)

    def dot(a: list[float], b: list[float]) -> float:
        return sum(one * other for one, other in zip(a, b, strict=True))

    def mean(features: list, label: int) -> list[float]:
        chosen = [feature for feature, other in zip(features, y, strict=True) if other == label]
        return [sum(values) / len(chosen) for values in zip(*chosen, strict=True)]

    total = 0.0
    for i in rows:
        to_texts = sum(count * math.exp(tau * dot(image[i], text[u])) for u, count in counts.items())
        to_images = sum(math.exp(tau * dot(text[index[i]], image[j])) for j in rows)
        total += math.log(to_texts) - tau * dot(image[i], mean([text[u] for u in index], y[i]))
        total += math.log(to_images) - tau * dot(text[index[i]], mean(image, y[i]))
    return total / len(y) / 2


@pytest.mark.parametrize("name", CASES)
def test_equals_the_equations_as_loops(name):
    image, text, index, labels = case(*CASES[name])
    loss = whole((image, text, index, labels), torch.tensor(4.2).double())
    expected = printed_equations(image.tolist(), text.tolist(), index.tolist(), labels.tolist(), 4.2)
    assert loss.item() == pytest.approx(expected, abs=1e-6)  # 4.2 itself is a float32 here


@pytest.mark.parametrize("name", ["random", "equal texts of different labels", "a row without a pair"])
def test_gradients_are_those_of_finite_differences(name):
    image, text, index, labels = case(*CASES[name], dim=3)
    own = slice(0, 3)
    inputs = (image.requires_grad_(), text.requires_grad_(), torch.tensor(3.0).double().requires_grad_())

    def share(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        return distinct_text_clip_loss(image[own], text, index[own], labels[own], image, text, index, labels, scale)

    assert torch.autograd.gradcheck(share, inputs)


@pytest.mark.parametrize("cuts", [(4,), (1, 3, 6), (7,)])
def test_shares_of_the_pairs_add_up_to_the_loss(cuts):
    image, text, index, labels = pairs = case(*CASES["equal texts of different labels"])
    scale = torch.tensor(10.0).double()
    total = torch.zeros(())
    for begin, end in zip((0, *cuts), (*cuts, 8), strict=True):
        rows = index[begin:end].unique()  # the texts of these pairs alone, as a rank has them
        own = image[begin:end], text[rows], torch.searchsorted(rows, index[begin:end]), labels[begin:end]
        total = total + (end - begin) / 8 * distinct_text_clip_loss(*own, *pairs, scale)
    torch.testing.assert_close(total, whole(pairs, scale), atol=1e-12, rtol=1e-12)


def test_order_of_pairs_and_of_texts_and_names_of_labels_do_not_matter():
    image, text, index, labels = random_case(16, 5, 4)
    scale = torch.tensor(10.0)
    loss = whole((image, text, index, labels), scale)
    order, rows = torch.randperm(16), torch.randperm(len(text))
    torch.testing.assert_close(whole((image[order], text, index[order], labels[order]), scale), loss)
    torch.testing.assert_close(whole((image, text[rows], rows.argsort()[index], labels), scale), loss)
    torch.testing.assert_close(whole((image, text, index, 1000 - 7 * labels), scale), loss)


def test_a_text_in_several_rows_and_rows_without_a_pair_change_nothing():
    """Ranks repeat each other's texts, and tables are padded."""
    image, text, index, labels = random_case(12, 4, 3)
    scale = torch.tensor(20.0).double()
    loss = whole((image, text, index, labels), scale)
    padded = torch.cat([text, torch.zeros(3, 6), text])
    shifted = index + torch.tensor([0, len(text) + 3]).repeat(6)
    torch.testing.assert_close(whole((image, padded, shifted, labels), scale), loss, atol=1e-12, rtol=1e-12)


def test_gradients_are_finite_where_a_row_has_no_pair():
    image, text, index, labels = case(*CASES["a row without a pair"], dtype=torch.float32)
    whole((image, text.requires_grad_(), index, labels), torch.tensor(100.0)).backward()
    assert text.grad is not None
    assert text.grad.isfinite().all()
    assert text.grad[index.unique()].abs().amax(dim=1).min() > 0
    assert not text.grad[count_rows(index, len(text), torch.float32) == 0].any()


def test_bfloat16_features_are_compared_in_float32():
    image, text, index, labels = random_case(16, 6, 4, dim=64)
    halves, scale = (image.bfloat16(), text.bfloat16(), index, labels), torch.tensor(100.0)
    loss = whole(halves, scale.bfloat16())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, whole((halves[0].float(), halves[1].float(), index, labels), scale))


def growth(loss, sizes: tuple[int, int] = (128, 2048), texts: int = 16) -> float:
    """The exponent of the bytes saved for the backward pass in the number of pairs, the texts being as many."""
    saved = []
    for pairs in sizes:
        index = torch.arange(pairs) % texts
        image, text, index, labels = case(index.tolist(), (index // 2).tolist(), dtype=torch.float32)
        known = [image.requires_grad_(), text.requires_grad_(), index, labels]
        saved.append(saved_bytes(partial(loss, *known), known))
    return math.log(saved[1] / saved[0]) / math.log(sizes[1] / sizes[0])


def test_memory_grows_with_the_pairs_and_not_with_their_square():
    scale = torch.tensor(10.0, requires_grad=True)
    assert growth(lambda *pairs: whole(pairs, scale)) <= 1.1
    assert growth(lambda image, text, index, labels: label_guided_clip_loss(image, text[index], labels, scale)) > 1.8


class Operators(TorchDispatchMode):
    """The names of the ATen operators that run."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


WAITING = {
    "_local_scalar_dense",
    "_unique2",
    "unique_consecutive",
    "bincount",
    "nonzero",
    "masked_select",
    "is_nonzero",
}


def test_it_runs_no_operator_that_waits_for_the_device():
    """The sizes of their results are known on the device alone."""
    pairs = case(*CASES["random"])
    with Operators() as found:
        whole(pairs, torch.tensor(4.2, requires_grad=True)).backward()
    assert "searchsorted" in found.names
    assert not found.names & WAITING
    with Operators() as found:
        pairs[2].unique().max().item()
        pairs[2].bincount()
    assert len(found.names & WAITING) == 3


def test_shapes_are_enforced_under_pytest():
    image, text, index, labels = case(*CASES["random"])
    with pytest.raises(TypeCheckError):
        distinct_text_clip_loss(image, text, index[:3], labels, image, text, index, labels, torch.tensor(1.0))
    with pytest.raises(TypeCheckError):
        distinct_text_clip_loss(image, text, index, labels, image[:3], text, index, labels, torch.tensor(1.0))
