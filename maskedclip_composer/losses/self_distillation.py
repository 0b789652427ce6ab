"""Self-distillation of DINOv2: the student meets its teacher's assignments of crops and patches to prototypes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def sinkhorn_knopp(
    scores: Float[Tensor, "rows prototypes"],
    temperature: float,
    iterations: int = 3,
    total: Callable[[Tensor], Tensor] = lambda values: values,
) -> Float[Tensor, "rows prototypes"]:
    """Return the teacher's probabilities, spread over the prototypes so that all are used alike, without gradient.

    SwAV (arXiv 2006.09882), section 3.1, as DINOv2 (arXiv 2304.07193), section 4, uses it in place of DINO's centring:
    of exp(scores / temperature), in each round each prototype is divided by its sum over all rows, then each row by its
    own sum. Rows sum to 1; each prototype's sum tends to rows / prototypes. Computed in float32 or better.

    The paper's other factors (of the whole matrix, the prototypes and the rows) cancel in these divisions. So the
    number of rows is not needed: ranks may have different numbers of them, also none.

    Args:
        scores: Cosines with the prototypes. Where they leave [-1, 1] by far, the exponential overflows.
        temperature: Small is sharp; float32 holds exp(-2 / temperature) from 0.023 upwards.
        iterations: Rounds; 1 is enough for the rows, more level the prototypes.
        total: Adds up [prototypes] over ranks. It is called once a round, with rows or without.
    """
    dtype = torch.promote_types(scores.dtype, torch.float32)
    # A common factor cancels: with this one the largest possible entry is 1.
    shares = ((scores.to(dtype) - 1) / temperature).exp()
    for _ in range(iterations):
        shares = shares / total(shares.sum(dim=0))
        shares = shares / shares.sum(dim=1, keepdim=True)
    return shares


def dino_loss(
    student: Float[Tensor, "views images prototypes"],
    teacher: Float[Tensor, "global_views images prototypes"],
    student_temperature: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the cross-entropy between the teacher's global views and all other views of the same image.

    DINO (arXiv 2104.14294), eq. 3, for the class token; the mean over pairs of views and over images. The pair of a
    global view with itself is left out. Computed in float32 or better.

    Args:
        student: Scores of all views, the global ones first, in the teacher's order.
        teacher: Probabilities; give them without gradient.
        student_temperature: Divides the student's scores.

    Returns:
        Nats; ln(prototypes) for a student without preference.

    Raises:
        ValueError: There is no pair of different views.
    """
    views, images, _ = student.shape
    pairs = len(teacher) * (views - 1)
    if pairs < 1 or views < len(teacher):
        raise ValueError(f"{len(teacher)} views of a teacher and {views} of a student make no pairs of different views")
    log_student = _log_softmax(student, student_temperature)
    teacher = teacher.to(log_student.dtype)
    all_pairs = (teacher.sum(dim=0) * log_student.sum(dim=0)).sum()  # one product in place of one for each pair
    same_view = (teacher * log_student[: len(teacher)]).sum()
    return -(all_pairs - same_view) / (pairs * images)


def ibot_loss(
    student: Float[Tensor, "masked prototypes"],
    teacher: Float[Tensor, "masked prototypes"],
    weight: Float[Tensor, " masked"],
    denominator: Float[Tensor, ""],
    student_temperature: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the cross-entropy between the teacher's and the student's patches, where the student saw the mask token.

    iBOT (arXiv 2111.07832), eq. 2. The paper does not say how patches and images are averaged. Here, in the style of
    DINOv2: the mean over the masked patches of each image, then over all images, of which those without a mask count
    as 0. The denominator then does not depend on the draws, and a step with few masks weighs less, not the same.
    Computed in float32 or better.

    Args:
        student: Scores of the masked patches of all images.
        teacher: Probabilities of the same patches of whole images; give them without gradient.
        weight: 1 / number of masked patches of the patch's image.
        denominator: Number of images, with a mask or without.
        student_temperature: Divides the student's scores.

    Returns:
        Nats; 0, with gradients of 0, where nothing is masked.
    """
    log_student = _log_softmax(student, student_temperature)
    cross_entropy = -(teacher.to(log_student.dtype) * log_student).sum(dim=-1)
    return (weight * cross_entropy).sum() / denominator


def koleo_loss(features: Float[Tensor, "images dim"], eps: float = 1e-8) -> Float[Tensor, ""]:
    """Spread features over the sphere: the mean of -log(distance to the nearest other feature).

    Sablayrolles et al. (arXiv 1806.03198), section 3, of L2-normalised features as in DINOv2 (arXiv 2304.07193),
    section 4. Computed in float32 or better.

    Deviation: the distance is sqrt(d^2 + eps^2), so that equal features have a finite loss and a gradient of 0.

    Args:
        features: One row an image, of any length.
        eps: See above.

    Raises:
        ValueError: There are fewer than two images, so that none has a neighbour.
    """
    if len(features) < 2:
        raise ValueError(f"koleo_loss needs two images to spread, not {len(features)}: use a larger batch")
    points = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    with torch.no_grad():
        nearest = (points @ points.T).fill_diagonal_(-2).argmax(dim=1)
    # Of the difference: 2 - 2 * cosine would lose a small distance to rounding.
    squared = (points - points[nearest]).square().sum(dim=-1)
    return -(squared + eps**2).log().mean() / 2


def dinov2_loss(
    student_class: Float[Tensor, "views images prototypes"] | None = None,
    teacher_class: Float[Tensor, "global_views images prototypes"] | None = None,
    student_patches: Float[Tensor, "masked prototypes"] | None = None,
    teacher_patches: Float[Tensor, "masked prototypes"] | None = None,
    patch_weight: Float[Tensor, " masked"] | None = None,
    num_crops: Float[Tensor, ""] | None = None,
    class_tokens: Float[Tensor, "global_views all_images dim"] | None = None,
    *,
    student_temperature: Float[Tensor, ""],
    dino_weight: Float[Tensor, ""],
    ibot_weight: Float[Tensor, ""],
    koleo_weight: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return the weighted sum of `dino_loss`, `ibot_loss` and `koleo_loss`; a part whose arguments are None is off.

    DINOv2 (arXiv 2304.07193), section 4. KoLeo is summed over the global views and never compares two views of an
    image, in the style of the released training, whose weight of 0.1 belongs to that sum.

    Args:
        student_class: See `dino_loss`.
        teacher_class: See `dino_loss`.
        student_patches: See `ibot_loss`.
        teacher_patches: See `ibot_loss`.
        patch_weight: See `ibot_loss`.
        num_crops: The denominator of `ibot_loss`: of its images each global crop is one.
        class_tokens: The student's class tokens of the global views, whose rows are the images of all ranks.
        student_temperature: Divides the student's scores.
        dino_weight: Factor of `dino_loss`.
        ibot_weight: Factor of `ibot_loss`.
        koleo_weight: Factor of `koleo_loss`.
    """
    terms: list[Tensor] = []
    if student_class is not None and teacher_class is not None:
        terms.append(dino_weight * dino_loss(student_class, teacher_class, student_temperature))
    if (
        student_patches is not None
        and teacher_patches is not None
        and patch_weight is not None
        and num_crops is not None
    ):
        patches = ibot_loss(student_patches, teacher_patches, patch_weight, num_crops, student_temperature)
        terms.append(ibot_weight * patches)
    if class_tokens is not None:
        terms.append(koleo_weight * torch.stack([koleo_loss(view) for view in class_tokens]).sum())
    return torch.stack(terms).sum()


def _log_softmax(
    scores: Float[Tensor, "*rows prototypes"], temperature: Float[Tensor, ""]
) -> Float[Tensor, "*rows prototypes"]:
    dtype = torch.promote_types(scores.dtype, torch.float32)
    return F.log_softmax(scores.to(dtype) / temperature.to(dtype), dim=-1)
