import math
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from sklearn.neighbors import NearestNeighbors

from maskedclip_composer.losses.self_distillation import (
    dino_loss,
    dinov2_loss,
    ibot_loss,
    koleo_loss,
    sinkhorn_knopp,
)
from maskedclip_composer.losses.transport import sinkhorn

TEMPERATURE = torch.tensor(0.1, dtype=torch.float64)


def cosines(rows: int, prototypes: int) -> torch.Tensor:
    return torch.rand(rows, prototypes, dtype=torch.float64) * 2 - 1


def probabilities(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).softmax(dim=-1)


def swav(scores: list[list[float]], temperature: float, iterations: int) -> list[list[float]]:
    """SwAV's algorithm with all of its factors, prototypes by samples, entry by entry."""
    samples, prototypes = range(len(scores)), range(len(scores[0]))
    q = [[math.exp(scores[b][k] / temperature) for b in samples] for k in prototypes]
    whole = sum(sum(row) for row in q)
    q = [[value / whole for value in row] for row in q]
    for _ in range(iterations):
        q = [[value / sum(row) / len(prototypes) for value in row] for row in q]
        sums = [sum(q[k][b] for k in prototypes) for b in samples]
        q = [[q[k][b] / sums[b] / len(samples) for b in samples] for k in prototypes]
    return [[q[k][b] * len(samples) for k in prototypes] for b in samples]


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_knopp_is_swavs(iterations):
    scores = cosines(5, 4)
    expected = torch.tensor(swav(scores.tolist(), 0.07, iterations), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn_knopp(scores, 0.07, iterations), expected)


def test_sinkhorn_knopp_tends_to_the_transport_of_rows_to_prototypes():
    scores = cosines(6, 9)
    rows, columns = torch.full((6,), 1 / 6).double(), torch.full((9,), 1 / 9).double()
    plan = sinkhorn(-scores, rows, columns, epsilon=0.2, iterations=500, tolerance=0.0)
    torch.testing.assert_close(sinkhorn_knopp(scores, 0.2, 500), 6 * plan)


def test_rows_sum_to_one_and_prototypes_become_equal():
    scores = cosines(12, 5)
    for iterations in (1, 3, 300):
        torch.testing.assert_close(sinkhorn_knopp(scores, 0.1, iterations).sum(dim=1), torch.ones(12).double())
    torch.testing.assert_close(sinkhorn_knopp(scores, 0.1, 300).sum(dim=0), torch.full((5,), 12 / 5).double())


def test_equal_scores_are_assigned_evenly_and_carry_no_gradient():
    shares = sinkhorn_knopp(torch.full((3, 8), 0.3, requires_grad=True), 0.04)
    torch.testing.assert_close(shares, torch.full((3, 8), 1 / 8))
    assert not shares.requires_grad


def test_the_sharpest_allowed_teacher_is_finite_in_float32():
    scores = torch.eye(4) * 2 - 1  # from -1 to 1
    shares = sinkhorn_knopp(scores[:, [0, 0, 1, 2]], 0.025)
    assert torch.isfinite(shares).all()
    assert shares.dtype == torch.float32
    assert sinkhorn_knopp(scores.bfloat16(), 0.04).dtype == torch.float32


def test_the_given_scores_stay_as_they_are():
    scores = cosines(5, 4)
    before = scores.clone()
    sinkhorn_knopp(scores, 0.05)
    assert torch.equal(scores, before)


def in_lockstep(parts: list[torch.Tensor], temperature: float) -> list[torch.Tensor]:
    """Run `sinkhorn_knopp` on each part in a thread of its own, whose `total` adds up over the threads."""
    barrier, sums, results = threading.Barrier(len(parts)), [torch.empty(0)] * len(parts), [torch.empty(0)] * len(parts)

    def total_of(rank: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def total(values: torch.Tensor) -> torch.Tensor:
            sums[rank] = values
            barrier.wait(10)
            added = torch.stack(sums).sum(dim=0)
            barrier.wait(10)
            return added

        return total

    def work(rank: int) -> None:
        results[rank] = sinkhorn_knopp(parts[rank], temperature, 3, total_of(rank))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("rows", [[4, 4], [5, 3], [8, 0]])
def test_rows_of_several_ranks_are_normalised_as_one_batch(rows):
    scores = cosines(8, 6)
    torch.testing.assert_close(torch.cat(in_lockstep(list(scores.split(rows)), 0.05)), sinkhorn_knopp(scores, 0.05))


def dino_by_hand(student: list, teacher: list, temperature: float) -> float:
    """Eq. 3 of DINO: over the teacher's views, over all other views, over images."""
    terms = []
    for g, assigned in enumerate(teacher):
        for v, scores in enumerate(student):
            if v == g:
                continue
            for target, row in zip(assigned, scores, strict=True):
                whole = sum(math.exp(score / temperature) for score in row)
                logs = [math.log(math.exp(score / temperature) / whole) for score in row]
                terms.append(-sum(p * q for p, q in zip(target, logs, strict=True)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("views", "global_views"), [(2, 2), (5, 2), (4, 1), (6, 3)])
def test_dino_equals_the_printed_equation(views, global_views):
    student, teacher = torch.randn(views, 3, 7).double(), probabilities(global_views, 3, 7)
    expected = dino_by_hand(student.tolist(), teacher.tolist(), 0.1)
    assert dino_loss(student, teacher, TEMPERATURE).item() == pytest.approx(expected)


def test_with_two_views_dino_is_two_cross_entropies():
    student, teacher = torch.randn(2, 5, 7).double(), probabilities(2, 5, 7)
    expected = (F.cross_entropy(student[0] / 0.1, teacher[1]) + F.cross_entropy(student[1] / 0.1, teacher[0])) / 2
    torch.testing.assert_close(dino_loss(student, teacher, TEMPERATURE), expected)


def test_a_student_without_preference_has_the_logarithm_of_the_prototypes():
    loss = dino_loss(torch.ones(4, 3, 11).double(), probabilities(2, 3, 11), TEMPERATURE)
    assert loss.item() == pytest.approx(math.log(11))


def test_a_global_view_does_not_learn_from_itself():
    student = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    teacher = probabilities(1, 2, 5)
    dino_loss(student, teacher, TEMPERATURE).backward()
    assert student.grad is not None
    assert student.grad[0].abs().max() < 1e-12
    assert student.grad[1:].abs().min() > 0


def test_one_view_alone_makes_no_pair():
    with pytest.raises(ValueError, match="no pairs of different views"):
        dino_loss(torch.randn(1, 2, 5), torch.rand(1, 2, 5), torch.tensor(0.1))


def ibot_by_hand(student: list, teacher: list, images: list[int], count: int, temperature: float) -> float:
    """The mean over an image's masked patches, then over all images."""
    means = []
    for image in range(count):
        terms = []
        for row, target, owner in zip(student, teacher, images, strict=True):
            if owner == image:
                whole = sum(math.exp(score / temperature) for score in row)
                logs = [math.log(math.exp(score / temperature) / whole) for score in row]
                terms.append(-sum(p * q for p, q in zip(target, logs, strict=True)))
        means.append(sum(terms) / len(terms) if terms else 0.0)
    return sum(means) / count


def test_ibot_averages_over_patches_then_over_all_images():
    images = [0, 0, 0, 2, 4, 4]  # images 1 and 3 have no mask
    weight = torch.tensor([1 / images.count(image) / 5 for image in images], dtype=torch.float64)
    student, teacher = torch.randn(6, 7).double(), probabilities(6, 7)
    expected = ibot_by_hand(student.tolist(), teacher.tolist(), images, 5, 0.1)
    assert ibot_loss(student, teacher, weight, TEMPERATURE).item() == pytest.approx(expected)


def test_ibot_of_one_masked_patch_each_is_a_cross_entropy():
    student, teacher = torch.randn(4, 7).double(), probabilities(4, 7)
    loss = ibot_loss(student, teacher, torch.full((4,), 0.25).double(), TEMPERATURE)
    torch.testing.assert_close(loss, F.cross_entropy(student / 0.1, teacher))


def test_ibot_without_a_mask_is_zero_with_gradients_of_zero():
    layer = torch.nn.Linear(3, 7)
    none = torch.empty(0, 7)
    loss = ibot_loss(layer(torch.empty(0, 3)), none, torch.empty(0), TEMPERATURE)
    loss.backward()
    assert loss == 0
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() == 0


def test_koleo_equals_the_printed_equation():
    features = torch.randn(6, 3).double()
    points = [[x / math.hypot(*row) for x in row] for row in features.tolist()]
    distances = [min(math.dist(a, b) for j, b in enumerate(points) if j != i) for i, a in enumerate(points)]
    expected = -sum(math.log(distance) for distance in distances) / 6
    assert koleo_loss(features).item() == pytest.approx(expected)


def test_koleo_takes_the_neighbours_of_scikit_learn():
    points = F.normalize(torch.randn(50, 8), dim=-1)
    distances, _ = NearestNeighbors(n_neighbors=2).fit(points.numpy()).kneighbors(points.numpy())
    expected = -torch.from_numpy(distances[:, 1]).log().mean()
    torch.testing.assert_close(koleo_loss(points), expected.float(), atol=1e-5, rtol=1e-5)


def test_koleo_of_a_regular_polygon_is_known_and_the_least():
    angles = torch.arange(7).double() * 2 * math.pi / 7
    polygon = torch.stack([angles.cos(), angles.sin()], dim=1)
    least = -math.log(2 * math.sin(math.pi / 7))
    assert koleo_loss(polygon).item() == pytest.approx(least)
    torch.testing.assert_close(koleo_loss(5 * polygon), koleo_loss(polygon))  # lengths do not matter
    for _ in range(20):
        assert koleo_loss(torch.randn(7, 2)) >= least


def test_koleo_of_equal_features_is_finite_in_value_and_gradient():
    features = torch.ones(3, 4, requires_grad=True)
    loss = koleo_loss(features)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(2e-8), rel=1e-5)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_koleo_of_one_image_is_an_error():
    with pytest.raises(ValueError, match="needs two images to spread, not 1"):
        koleo_loss(torch.randn(1, 4))


def test_gradients_are_those_of_finite_differences():
    student = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True)
    teacher, temperature = probabilities(2, 2, 5), torch.tensor(0.5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: dino_loss(s, teacher, temperature), (student,))
    patches, weight = probabilities(3, 5), torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    masked = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: ibot_loss(s, patches, weight, temperature), (masked,))
    features = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(koleo_loss, (features,))


def parts() -> dict[str, torch.Tensor]:
    return {
        "student_views": torch.randn(4, 3, 5).double(),
        "teacher_views": probabilities(2, 3, 5),
        "student_patches": torch.randn(6, 7).double(),
        "teacher_patches": probabilities(6, 7),
        "patch_weight": torch.full((6,), 1 / 3).double(),
        "class_tokens": torch.randn(2, 3, 8).double(),
    }


def test_the_whole_is_the_weighted_sum_of_its_parts():
    given = parts()
    settings = {"temperature": TEMPERATURE, "weights": torch.tensor([2.0, 3.0, 0.5]).double()}
    dino = dino_loss(given["student_views"], given["teacher_views"], TEMPERATURE)
    ibot = ibot_loss(given["student_patches"], given["teacher_patches"], given["patch_weight"], TEMPERATURE)
    koleo = koleo_loss(given["class_tokens"][0]) + koleo_loss(given["class_tokens"][1])
    torch.testing.assert_close(dinov2_loss(**given, **settings), 2 * dino + 3 * ibot + 0.5 * koleo)
    alone = {name: given[name] for name in ("student_views", "teacher_views")}
    torch.testing.assert_close(dinov2_loss(**alone, **settings), 2 * dino)
    torch.testing.assert_close(dinov2_loss(class_tokens=given["class_tokens"], **settings), 0.5 * koleo)


def test_bfloat16_scores_are_compared_in_float32():
    student, teacher = torch.randn(4, 3, 5).bfloat16(), probabilities(2, 3, 5).float()
    loss = dino_loss(student, teacher, torch.tensor(0.1))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, dino_loss(student.float(), teacher, torch.tensor(0.1)))
    assert koleo_loss(torch.randn(4, 8).bfloat16()).dtype == torch.float32


def test_shapes_are_enforced_under_pytest():
    with pytest.raises(TypeCheckError):
        dino_loss(torch.randn(4, 3, 5), torch.rand(2, 2, 5), torch.tensor(0.1))
    with pytest.raises(TypeCheckError):
        ibot_loss(torch.randn(4, 5), torch.rand(4, 5), torch.rand(3), torch.tensor(0.1))
