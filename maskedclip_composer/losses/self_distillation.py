"""Losses of DINOv2: a student predicts a momentum teacher's assignment of views and patches to prototypes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def _of_one_process(values: Tensor) -> Tensor:
    return values


@torch.no_grad()
def sinkhorn_knopp(
    scores: Float[Tensor, "rows prototypes"],
    temperature: float,
    iterations: int = 3,
    total: Callable[[Tensor], Tensor] = _of_one_process,
) -> Float[Tensor, "rows prototypes"]:
    """Turn a teacher's scores into assignments in which all prototypes are used alike.

    SwAV (arXiv 2006.09882), section 3.1, as the centring of DINOv2 (arXiv 2304.07193), section 4. Rows of the result
    sum to 1; columns tend to rows / prototypes. In float32 or better, without gradient.

    The algorithm's other factors (of the whole matrix, of the numbers of rows and of prototypes) cancel in the
    divisions. So the number of rows is not needed: ranks may have different numbers of them, also none.

    Args:
        scores: One row for each view or patch, in [-1, 1].
        temperature: Divides the scores; float32 holds exp(-2 / temperature) from 0.023 upwards.
        iterations: Rounds of normalising columns, then rows.
        total: Sums a tensor over the ranks that share the batch, once a round; the identity for one process.
    """
    # The largest possible score is taken out, whose factor cancels in the first columns. A maximum taken out row by row
    # would change what the first iterations give. In place: of hidden patches it is a large tensor.
    assignment = (_wide(scores) - 1).div_(temperature).exp_()
    for _ in range(iterations):
        columns = total(assignment.sum(dim=0, keepdim=True))
        assignment.div_(columns.clamp(min=torch.finfo(assignment.dtype).tiny))
        assignment.div_(assignment.sum(dim=1, keepdim=True))
    return assignment


def dino_loss(
    student: Float[Tensor, "views images prototypes"],
    teacher: Float[Tensor, "globals images prototypes"],
    temperature: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Cross-entropy between the teacher's assignment of each global view and the student's of every other view.

    DINO (arXiv 2104.14294), eq. 3, as a mean over the pairs of views and the images, in float32 or better. A global
    view is not compared with itself. The value for a student without preference is ln(prototypes).

    Args:
        student: Scores; the global views first, in the teacher's order.
        teacher: Assignments, rows sum to 1.
        temperature: Divides the student's scores.

    Raises:
        ValueError: No view differs from a global one.
    """
    (views, images, _), globals_ = student.shape, len(teacher)
    if not 1 <= globals_ <= views or views < 2:
        raise ValueError(f"{globals_} views of a teacher and {views} of a student make no pairs of different views")
    log_student = (_wide(student) / temperature).log_softmax(dim=-1)
    teacher = teacher.to(log_student.dtype)
    # One product for all pairs, less those of a view with itself; a matrix product would be rounded to TF32 on a GPU.
    pairs = (teacher.sum(dim=0) * log_student.sum(dim=0)).sum() - (teacher * log_student[:globals_]).sum()
    return -pairs / (globals_ * (views - 1) * images)


def ibot_loss(
    student: Float[Tensor, "hidden prototypes"],
    teacher: Float[Tensor, "hidden prototypes"],
    row_weight: Float[Tensor, " hidden"],
    temperature: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Cross-entropy between the teacher's assignment of hidden patches and the student's, a weighed sum.

    iBOT (arXiv 2111.07832), eq. 2, in float32 or better, for masks of several sizes. The paper does not say how these
    are averaged. In the style of DINOv2: with `row_weight` one over the number of hidden patches of the patch's image,
    over the number of images, it is the mean over images of their means. Images without a hidden patch count as 0, so
    that the weight of a patch does not depend on what was drawn for other images. Where no patch is hidden at all the
    loss is 0, with gradients of 0.

    Args:
        student: Scores of the patches that it saw as mask tokens.
        teacher: Assignments of the same patches, seen whole.
        row_weight: See above.
        temperature: Divides the student's scores.
    """
    log_student = (_wide(student) / temperature).log_softmax(dim=-1)
    return -((teacher.to(log_student.dtype) * log_student).sum(dim=-1) * row_weight).sum()


def koleo_loss(features: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
    """Spread features: minus the mean logarithm of each one's distance to its nearest neighbour.

    Kozachenko-Leonenko estimator of entropy (Sablayrolles et al., arXiv 1806.03198, section 3), as in DINOv2 (arXiv
    2304.07193), in float32 or better.

    Args:
        features: Of any length; normalised here. At least two.

    Raises:
        ValueError: One feature alone has no neighbour.
    """
    if len(features) < 2:
        raise ValueError(f"koleo_loss needs two images to spread, not {len(features)}: use a larger batch")
    unit = F.normalize(_wide(features), dim=-1)
    with torch.no_grad():
        cosine = unit @ unit.T
        cosine.fill_diagonal_(-2)
        nearest = cosine.argmax(dim=1)
    # The distance of equal features is 0; a small number is added before the root, whose gradient there is infinite.
    distance = ((unit - unit[nearest]).square().sum(dim=-1) + 1e-16).sqrt()
    return -(distance + 1e-8).log().mean()


def dinov2_loss(
    temperature: Float[Tensor, ""],
    weights: Float[Tensor, "3"],
    student_views: Float[Tensor, "views images prototypes"] | None = None,
    teacher_views: Float[Tensor, "globals images prototypes"] | None = None,
    student_patches: Float[Tensor, "hidden patch_prototypes"] | None = None,
    teacher_patches: Float[Tensor, "hidden patch_prototypes"] | None = None,
    patch_weight: Float[Tensor, " hidden"] | None = None,
    class_tokens: Float[Tensor, "globals all_images dim"] | None = None,
) -> Float[Tensor, ""]:
    """Sum of `dino_loss`, `ibot_loss` and of `koleo_loss` of each global view, weighed; what is None is left out.

    DINOv2 (arXiv 2304.07193), section 4. KoLeo never compares two views of an image. It is summed over the global views
    in the style of the released training, whose weight of 0.1 belongs to that sum.

    Args:
        temperature: The student's.
        weights: Of DINO, iBOT and KoLeo.
        student_views: Scores of class tokens, global views first.
        teacher_views: Assignments of the global views.
        student_patches: Scores of hidden patches.
        teacher_patches: Assignments of the same patches.
        patch_weight: Of each hidden patch.
        class_tokens: The student's, of the global views, of all ranks' images.
    """
    loss = weights.new_zeros(())
    if student_views is not None and teacher_views is not None:
        loss = loss + weights[0] * dino_loss(student_views, teacher_views, temperature)
    if student_patches is not None and teacher_patches is not None and patch_weight is not None:
        loss = loss + weights[1] * ibot_loss(student_patches, teacher_patches, patch_weight, temperature)
    if class_tokens is not None:
        loss = loss + weights[2] * torch.stack([koleo_loss(view) for view in class_tokens]).sum()
    return loss


def _wide(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return values.to(torch.promote_types(values.dtype, torch.float32))
