import math

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog

from maskedclip_composer.losses.transport import (
    own_transport_similarity,
    patch_sentence_alignment,
    patch_sentence_loss,
    sinkhorn,
    transport_similarity,
)

EXACT = {"iterations": 2000, "tolerance": 0.0}


def units(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, dtype=dtype), dim=-1)


def masses(*shape: int) -> torch.Tensor:
    mass = torch.rand(*shape, dtype=torch.float64) + 0.2
    return mass / mass.sum(dim=-1, keepdim=True)


def reports(lengths: list[int], most: int, dim: int = 5, dtype: torch.dtype = torch.float64):
    """Sentence features of reports of these lengths and their mask."""
    mask = (torch.arange(most) < torch.tensor(lengths)[:, None]).to(dtype)
    return units(len(lengths), most, dim, dtype=dtype) * mask[:, :, None], mask


def sinkhorn_by_hand(cost: list[list[float]], a: list[float], b: list[float], epsilon: float) -> list[list[float]]:
    """Cuturi's algorithm 1, on the scalings themselves: u = a / K v, v = b / K' u."""
    rows, columns = range(len(a)), range(len(b))
    kernel = [[math.exp(-cost[i][j] / epsilon) for j in columns] for i in rows]
    v = [1.0 for _ in columns]
    for _ in range(2000):
        u = [a[i] / sum(kernel[i][j] * v[j] for j in columns) for i in rows]
        v = [b[j] / sum(kernel[i][j] * u[i] for i in rows) for j in columns]
    return [[u[i] * kernel[i][j] * v[j] for j in columns] for i in rows]


def linear_programme(cost: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> float:
    """The least <plan, cost>, by scipy."""
    rows, columns = cost.shape
    of_row = torch.eye(rows).repeat_interleave(columns, dim=1)
    of_column = torch.eye(columns).repeat(1, rows)
    marginals = torch.cat([of_row, of_column]).numpy()
    solution = linprog(cost.flatten().numpy(), A_eq=marginals, b_eq=torch.cat([a, b]).numpy())
    assert solution.success
    return solution.fun


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 1.0])
def test_a_plan_is_cuturis(epsilon):
    cost, a, b = 2 * torch.rand(4, 3, dtype=torch.float64), masses(4), masses(3)
    plan = sinkhorn(cost, a, b, epsilon=epsilon, **EXACT)
    expected = sinkhorn_by_hand(cost.tolist(), a.tolist(), b.tolist(), epsilon)
    torch.testing.assert_close(plan, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


def test_with_little_entropy_it_is_the_linear_programmes():
    for _ in range(5):
        cost, a, b = 2 * torch.rand(4, 3, dtype=torch.float64), masses(4), masses(3)
        least = linear_programme(cost, a, b)
        plans = [sinkhorn(cost, a, b, epsilon=epsilon, **EXACT) for epsilon in (0.1, 0.01, 2e-3)]
        gaps = [(plan * cost).sum().item() - least for plan in plans]
        assert gaps == sorted(gaps, reverse=True)
        assert gaps[-1] == pytest.approx(0, abs=1e-3)


def test_with_endless_entropy_it_is_the_product_of_the_marginals():
    cost, a, b = 2 * torch.rand(4, 3, dtype=torch.float64), masses(4), masses(3)
    torch.testing.assert_close(sinkhorn(cost, a, b, epsilon=1e9), a[:, None] * b, atol=1e-8, rtol=0)


def test_rows_and_columns_have_their_mass_and_padding_has_none():
    cost = 2 * torch.rand(6, 98, 8)
    a, b = torch.full((98,), 1 / 98), masses(6, 8).float()
    b[torch.arange(8) >= torch.tensor([8, 5, 1, 2, 7, 3])[:, None]] = 0
    b /= b.sum(dim=1, keepdim=True)
    plan = sinkhorn(cost, a, b, epsilon=0.1)
    assert (plan.sum(dim=2) - a).abs().sum(dim=1).max() < 1e-3
    assert (plan.sum(dim=1) - b).abs().max() < 1e-6
    assert (plan.movedim(2, 1)[b == 0] == 0).all()
    assert (plan >= 0).all()
    cut = sinkhorn(cost[1, :, :5], a, b[1, :5], epsilon=0.1)
    torch.testing.assert_close(plan[1, :, :5], cut, atol=1e-7, rtol=1e-5)


def test_swapping_the_roles_transposes_the_plan():
    cost, a, b = 2 * torch.rand(3, 5, 4, dtype=torch.float64), masses(3, 5), masses(3, 4)
    b[0, 3] = 0
    b /= b.sum(dim=1, keepdim=True)
    swapped = sinkhorn(cost.mT, b, a, epsilon=0.1, **EXACT)
    torch.testing.assert_close(swapped.mT, sinkhorn(cost, a, b, epsilon=0.1, **EXACT), atol=1e-9, rtol=0)


def test_permuting_rows_and_columns_permutes_the_plan():
    cost, a, b = 2 * torch.rand(5, 4, dtype=torch.float64), masses(5), masses(4)
    i, j = torch.randperm(5), torch.randperm(4)
    plan = sinkhorn(cost, a, b, epsilon=0.1)
    torch.testing.assert_close(sinkhorn(cost[i][:, j], a[i], b[j], epsilon=0.1), plan[i][:, j])


def test_a_plan_does_not_depend_on_the_problems_beside_it():
    """An even cost settles at once; one in clusters far apart takes every round that there is."""
    even, a, b = 0.01 * torch.rand(20, 4), torch.full((20,), 1 / 20), torch.full((4,), 1 / 4)
    clusters = 1.8 - 1.8 * F.one_hot(torch.tensor([0] * 6 + [1] * 6 + [2] * 4 + [3] * 4), 4).float()
    both = sinkhorn(torch.stack([even, clusters]), a, b, epsilon=0.1, iterations=30)
    assert (both[1].sum(dim=1) - a).abs().sum() > 1e-2  # the other one still moves
    torch.testing.assert_close(both[0], sinkhorn(even, a, b, epsilon=0.1, iterations=30), atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(both[1], sinkhorn(clusters, a, b, epsilon=0.1, iterations=30), atol=1e-8, rtol=1e-6)
    settled = sinkhorn(even, a, b, epsilon=0.1, iterations=5)
    torch.testing.assert_close(both[0], settled, atol=1e-8, rtol=1e-6)
    assert not torch.equal(settled, sinkhorn(even, a, b, epsilon=0.1, tolerance=0.0))


def test_a_settled_plan_is_within_the_tolerance():
    cost, a, b = 2 * torch.rand(8, 30, 5), torch.full((30,), 1 / 30), torch.full((5,), 1 / 5)
    for tolerance in (1e-2, 1e-3, 1e-4):
        plan = sinkhorn(cost, a, b, epsilon=0.1, iterations=500, tolerance=tolerance)
        assert (plan.sum(dim=2) - a).abs().sum(dim=1).max() < tolerance


@pytest.mark.parametrize("epsilon", [1e-4, 1e4])
def test_extreme_strengths_stay_finite(epsilon):
    plan = sinkhorn(2 * torch.rand(30, 5), torch.full((30,), 1 / 30), torch.full((5,), 1 / 5), epsilon=epsilon)
    assert plan.isfinite().all()
    assert plan.dtype == torch.float32
    assert plan.sum().item() == pytest.approx(1, abs=1e-4)


def test_the_similarity_of_equal_sets_is_one_without_entropy():
    patches = units(1, 6, 5)
    similarity = transport_similarity(patches, patches[:, torch.randperm(6)], torch.ones(1, 6).double(), epsilon=1e-3)
    assert similarity.item() == pytest.approx(1, abs=1e-3)
    assert transport_similarity(patches, patches, torch.ones(1, 6).double(), epsilon=0.3).item() < 0.95


def test_the_similarity_is_the_printed_sum_for_every_image_and_report():
    patches, lengths = units(3, 4, 5), [3, 1, 2, 2]
    sentences, mask = reports(lengths, 3)
    similarity = transport_similarity(patches, sentences, mask, epsilon=0.2, **EXACT)
    assert similarity.shape == (3, 4)
    for i, image in enumerate(patches.tolist()):
        for k, report in enumerate(sentences.tolist()):
            cosine = [[sum(x * y for x, y in zip(p, q, strict=True)) for q in report[: lengths[k]]] for p in image]
            cost = [[1 - value for value in row] for row in cosine]
            plan = sinkhorn_by_hand(cost, [1 / 4] * 4, [1 / lengths[k]] * lengths[k], 0.2)
            pairs = [(x, y) for row, other in zip(plan, cosine, strict=True) for x, y in zip(row, other, strict=True)]
            assert similarity[i, k].item() == pytest.approx(sum(x * y for x, y in pairs), abs=1e-8)


def test_gradients_are_those_of_the_regularised_optimum():
    """The envelope theorem: the plan moves with the features, but at its optimum that does not count."""
    patches, (sentences, mask) = units(2, 3, 4), reports([3, 2], 3, dim=4)
    exact = {"epsilon": 0.5, "iterations": 60, "tolerance": 0.0}

    def optimum(patches: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
        cost = 1 - torch.einsum("iad,kbd->ikab", patches, sentences)
        mass = mask / mask.sum(dim=1, keepdim=True)
        plan = sinkhorn(cost, torch.full((3,), 1 / 3).double(), mass, **exact)
        entropy = -torch.xlogy(plan, plan).sum(dim=(2, 3))  # no gradient, so its part is missing from autograd's
        return transport_similarity(patches, sentences, mask, **exact) + 0.5 * entropy

    assert torch.autograd.gradcheck(optimum, (patches.requires_grad_(), sentences.requires_grad_()))


def test_one_sentence_takes_all_patches():
    patches, (sentences, mask) = units(3, 4, 5, dtype=torch.float32), reports([1, 1], 1, dtype=torch.float32)
    patches.requires_grad_()
    similarity = transport_similarity(patches, sentences, mask)
    torch.testing.assert_close(similarity, (patches.mean(dim=1) @ sentences[:, 0].T))
    similarity.sum().backward()
    assert patches.grad.isfinite().all()


def test_further_padding_changes_nothing():
    patches, (sentences, mask) = units(3, 4, 5, dtype=torch.float32), reports([3, 1, 2], 3, dtype=torch.float32)
    padded = F.pad(sentences, (0, 0, 0, 4), value=7.0)
    similarity = transport_similarity(patches, padded, F.pad(mask, (0, 4)))
    torch.testing.assert_close(similarity, transport_similarity(patches, sentences, mask))


def test_the_order_within_a_set_does_not_matter_and_that_of_the_sets_permutes():
    patches, (sentences, mask) = units(4, 6, 5), reports([3, 1, 2, 3], 3)
    similarity = transport_similarity(patches, sentences, mask)
    a, b, i, k = torch.randperm(6), torch.tensor([2, 0, 1]), torch.randperm(4), torch.randperm(4)
    shuffled = transport_similarity(patches[:, a][i], sentences[:, b][k], mask[:, b][k])
    torch.testing.assert_close(shuffled, similarity[i][:, k])


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_chunks_do_not_change_the_similarity_nor_its_gradient(chunk):
    patches, (sentences, mask) = units(5, 6, 5), reports([3, 1, 2], 3)
    results = []
    for size in (32, chunk):
        inputs = [patches.clone().requires_grad_(), sentences.clone().requires_grad_()]
        similarity = transport_similarity(*inputs, mask, chunk=size)
        (similarity * torch.arange(15.0).view(5, 3)).sum().backward()
        results.append([similarity.detach(), *(each.grad for each in inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_an_images_own_report_is_on_the_diagonal():
    patches, (sentences, mask) = units(4, 6, 5), reports([3, 1, 2, 3], 3)
    own = own_transport_similarity(patches, sentences, mask)
    torch.testing.assert_close(own, transport_similarity(patches, sentences, mask).diagonal())


@pytest.mark.parametrize("similarity", [transport_similarity, own_transport_similarity])
def test_features_are_compared_in_float32_or_better(similarity):
    patches, (sentences, mask) = units(3, 6, 64, dtype=torch.float32), reports([3, 1, 2], 3, 64, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = similarity(patches, sentences, mask)
    assert torch.equal(inside, similarity(patches, sentences, mask))
    halves = similarity(patches.bfloat16(), sentences.bfloat16(), mask)
    assert halves.dtype == torch.float32
    assert torch.equal(halves, similarity(patches.bfloat16().float(), sentences.bfloat16().float(), mask))


def printed_contrast(logits: list[list[float]], y: list[int]) -> float:
    rows, total = range(len(y)), 0.0
    for x in rows:
        positives = [other for other in rows if y[other] == y[x]]
        reports = sum(math.exp(logits[x][other]) for other in rows)
        images = sum(math.exp(logits[other][x]) for other in rows)
        total -= sum(math.log(math.exp(logits[x][p]) / reports) for p in positives) / len(positives)
        total -= sum(math.log(math.exp(logits[p][x]) / images) for p in positives) / len(positives)
    return total / 2 / len(y)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [5, 5, 5, 5], [3, 1, 3, 9]])
def test_the_contrast_equals_its_equation(labels):
    logits = 5 * torch.randn(4, 4, dtype=torch.float64)
    loss = patch_sentence_loss(logits, torch.tensor(labels))
    assert loss.item() == pytest.approx(printed_contrast(logits.tolist(), labels), abs=1e-9)


def test_with_distinct_labels_the_contrast_is_two_cross_entropies():
    logits, each = torch.randn(6, 6), torch.arange(6)
    expected = (F.cross_entropy(logits, each) + F.cross_entropy(logits.T, each)) / 2
    torch.testing.assert_close(patch_sentence_loss(logits, each), expected)
    assert patch_sentence_loss(logits.bfloat16(), each).dtype == torch.float32


def test_gradients_of_the_contrast_are_those_of_finite_differences():
    logits, labels = torch.randn(4, 4, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda each: patch_sentence_loss(each, labels), (logits,))


def test_the_order_of_the_pairs_does_not_matter_to_the_contrast():
    logits, labels, order = torch.randn(5, 5), torch.tensor([0, 1, 0, 2, 1]), torch.randperm(5)
    loss = patch_sentence_loss(logits, labels)
    torch.testing.assert_close(patch_sentence_loss(logits[order][:, order], labels[order]), loss)
    torch.testing.assert_close(patch_sentence_loss(logits.T, labels), loss)


def test_the_alignment_is_the_mean_cost_of_the_plans():
    patches, (sentences, mask) = units(3, 4, 5), reports([2, 2, 2], 2)
    loss = patch_sentence_alignment(own_transport_similarity(patches, sentences, mask, epsilon=0.2, **EXACT))
    total = 0.0
    for image, report in zip(patches.tolist(), sentences.tolist(), strict=True):
        cost = [[1 - sum(x * y for x, y in zip(p, q, strict=True)) for q in report] for p in image]
        plan = sinkhorn_by_hand(cost, [1 / 4] * 4, [1 / 2] * 2, 0.2)
        total += sum(plan[a][b] * cost[a][b] for a in range(4) for b in range(2))
    assert loss.item() == pytest.approx(total / 3, abs=1e-8)


def test_the_alignment_ends_at_equal_features():
    similarity = torch.tensor([0.2, -0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(patch_sentence_alignment, (similarity,))
    same = units(1, 1, 5).expand(3, 4, 5)
    assert patch_sentence_alignment(own_transport_similarity(same, same, torch.ones(3, 4).double())).abs() < 1e-9
