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

    SwAV (arXiv 2006.09882), algorithm 1, as the centring of DINOv2 (arXiv 2304.07193), section 4. Rows of the result
    sum to 1; after the last iteration columns do so nearly: each has a share of rows / prototypes.

    Args:
        scores: One row for each view or patch, in [-1, 1].
        temperature: Divides the scores.
        iterations: Rounds of normalising columns, then rows.
        total: Sums a tensor over the ranks that share the batch; the identity for one process.
    """
    # Scores are cosines: at a temperature of 0.04 the exponential is at most e^25, far inside float32. A maximum taken
    # out row by row would change what the first iterations give.
    assignment = (scores.to(torch.promote_types(scores.dtype, torch.float32)) / temperature).exp()
    for _ in range(iterations):
        columns = total(assignment.sum(dim=0, keepdim=True))
        assignment = assignment / columns.clamp(min=torch.finfo(assignment.dtype).tiny)
        assignment = assignment / assignment.sum(dim=1, keepdim=True)
    return assignment


def dino_loss(
    student: Float[Tensor, "views images prototypes"],
    teacher: Float[Tensor, "globals images prototypes"],
    temperature: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Cross-entropy between the teacher's assignment of each global view and the student's of every other view.

    DINO (arXiv 2104.14294), eq. 3, as a mean over the pairs of views and the images.

    Args:
        student: Scores; the global views first, in the teacher's order.
        teacher: Assignments, rows sum to 1.
        temperature: Divides the student's scores.
    """
    log_student = (student / temperature).log_softmax(dim=-1)
    cross = -torch.einsum("gnk,vnk->gv", teacher.to(log_student.dtype), log_student) / student.shape[1]
    others = ~torch.eye(*cross.shape, dtype=torch.bool, device=cross.device)
    return (cross * others).sum() / others.sum()


def ibot_loss(
    student: Float[Tensor, "hidden prototypes"],
    teacher: Float[Tensor, "hidden prototypes"],
    row_weight: Float[Tensor, " hidden"],
    temperature: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Cross-entropy between the teacher's assignment of hidden patches and the student's, a weighed sum.

    iBOT (arXiv 2111.07832), eq. 2, for masks of several sizes as in DINOv2: with `row_weight` one over the number of
    hidden patches of the patch's image, over the number of images, it is the mean over images of their means; images
    without a hidden patch count as 0.

    Args:
        student: Scores of the patches that it saw as mask tokens.
        teacher: Assignments of the same patches, seen whole.
        row_weight: See above.
        temperature: Divides the student's scores.
    """
    log_student = (student / temperature).log_softmax(dim=-1)
    return -((teacher.to(log_student.dtype) * log_student).sum(dim=-1) * row_weight).sum()


def koleo_loss(features: Float[Tensor, "images dim"]) -> Float[Tensor, ""]:
    """Spread features: minus the mean logarithm of each one's distance to its nearest neighbour.

    Kozachenko-Leonenko estimator of entropy (Sablayrolles et al., arXiv 1806.03198), as in DINOv2 (arXiv 2304.07193).

    Args:
        features: Of any length; normalised here. At least two.
    """
    unit = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    with torch.no_grad():
        cosine = unit @ unit.T
        cosine.fill_diagonal_(-2)
        nearest = cosine.argmax(dim=1)
    # The distance of equal features is 0; a small number is added before the root, whose gradient there is infinite.
    distance = ((unit - unit[nearest]).square().sum(dim=-1) + 1e-16).sqrt()
    return -(distance + 1e-8).log().mean()


def dinov2_loss(
    student_views: Float[Tensor, "views images prototypes"],
    teacher_views: Float[Tensor, "globals images prototypes"],
    student_patches: Float[Tensor, "hidden patch_prototypes"],
    teacher_patches: Float[Tensor, "hidden patch_prototypes"],
    patch_weight: Float[Tensor, " hidden"],
    class_tokens: Float[Tensor, "globals all_images dim"],
    temperature: Float[Tensor, ""],
    weights: Float[Tensor, "3"],
) -> Float[Tensor, ""]:
    """Sum of `dino_loss`, `ibot_loss` and of `koleo_loss` of each global view, weighed.

    DINOv2 (arXiv 2304.07193), section 4.

    Args:
        student_views: Scores of class tokens, global views first.
        teacher_views: Assignments of the global views.
        student_patches: Scores of hidden patches.
        teacher_patches: Assignments of the same patches.
        patch_weight: Of each hidden patch.
        class_tokens: The student's, of the global views, of all ranks' images.
        temperature: The student's.
        weights: Of DINO, iBOT and KoLeo.
    """
    koleo = torch.stack([koleo_loss(view) for view in class_tokens]).sum()
    return (
        weights[0] * dino_loss(student_views, teacher_views, temperature)
        + weights[1] * ibot_loss(student_patches, teacher_patches, patch_weight, temperature)
        + weights[2] * koleo
    )
