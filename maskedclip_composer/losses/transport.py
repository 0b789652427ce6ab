"""Optimal transport between the patches of images and the sentences of reports."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskedclip_composer.losses.contrastive import label_guided_ce

# On a GPU each look at the errors waits for the device.
ROUNDS_BETWEEN_LOOKS = 5


@torch.no_grad()
def sinkhorn(
    cost: Float[Tensor, "*problems rows columns"],
    row_mass: Float[Tensor, "*#problems rows"],
    column_mass: Float[Tensor, "*#problems columns"],
    *,
    epsilon: float,
    iterations: int = 50,
    tolerance: float = 1e-3,
) -> Float[Tensor, "*problems rows columns"]:
    """Return the plans that minimise <plan, cost> - epsilon * entropy(plan) under both marginals.

    Cuturi's iteration (arXiv 1306.0895) on logarithms, in float32 or better, without gradient. Columns are met exactly,
    rows to the tolerance where `iterations` suffice; costs that fall into clusters far apart in units of epsilon need
    more rounds than even ones. A problem that is settled keeps its plan while others go on, so no plan depends on the
    problems beside it, but for the rounding of an error that happens to lie at the tolerance.

    Columns of mass 0 are padding: their plan is exactly 0 and they have no influence, as long as their cost is finite.

    Args:
        cost: Any number of problems.
        row_mass: Not negative, summing to 1.
        column_mass: Not negative, summing to 1.
        epsilon: Strength of the entropy, in units of cost; towards 0 the plan becomes the one of linear programming,
            towards infinity the product of the marginals.
        iterations: Most rounds.
        tolerance: A problem is settled when its rows miss their mass by so much in all; 0 makes all rounds.
    """
    dtype = torch.promote_types(cost.dtype, torch.float32)
    log_kernel, row_mass, column_mass = -cost.to(dtype) / epsilon, row_mass.to(dtype), column_mass.to(dtype)
    log_row_mass, log_column_mass = row_mass.log(), column_mass.log()  # -inf where there is no mass
    rows = torch.full_like(log_kernel[..., 0], torch.inf)  # the first round's error then is infinite
    columns = log_column_mass.expand_as(log_kernel[..., 0, :])
    for done in range(1, iterations + 1):
        reached = (log_kernel + columns[..., None, :]).logsumexp(dim=-1)
        error = ((rows + reached).exp() - row_mass).abs().sum(dim=-1, keepdim=True)
        settled = error <= tolerance
        rows = torch.where(settled, rows, log_row_mass - reached)
        columns = log_column_mass - (log_kernel + rows[..., None]).logsumexp(dim=-2)
        if done % ROUNDS_BETWEEN_LOOKS == 0 and settled.all():
            break
    return (log_kernel + rows[..., None] + columns[..., None, :]).exp()


def transport_similarity(
    patch_features: Float[Tensor, "images patches dim"],
    sentence_features: Float[Tensor, "reports sentences dim"],
    sentence_mask: Float[Tensor, "reports sentences"],
    *,
    epsilon: float = 0.1,
    iterations: int = 50,
    tolerance: float = 1e-3,
    chunk: int = 32,
) -> Float[Tensor, "images reports"]:
    """Return how well the patches of every image can be transported to the sentences of every report.

    In the style of MLIP (arXiv 2401.01591), whose formulas were not at hand: <plan, cosine> with the plan of `sinkhorn`
    between uniform patches and uniform sentences at the cost 1 - cosine.

    The plan carries no gradient. By the envelope theorem the gradient is that of the minus regularised cost,
    <plan, cosine> + epsilon * entropy(plan) - 1; that of <plan, cosine> alone would have a term more, through the plan,
    that vanishes with epsilon.

    Memory: the plans, images * reports * patches * sentences numbers, are kept for the backward pass; to find them
    takes a few times the part of it that belongs to a chunk. Computed in float32 or better, also under autocast.

    Args:
        patch_features: L2-normalised.
        sentence_features: L2-normalised; on padding anything finite.
        sentence_mask: 1 for a sentence, 0 for padding; every report has at least one.
        epsilon: Strength of the entropy; see `sinkhorn`.
        iterations: Of `sinkhorn`.
        tolerance: Of `sinkhorn`.
        chunk: Images whose plans are sought at once; it does not change the result.

    Returns:
        Values in [-1, 1].
    """
    with torch.autocast(patch_features.device.type, enabled=False):
        patches, sentences = _in_float32(patch_features, sentence_features)
        cosines = (torch.einsum("iad,kbd->ikab", some, sentences) for some in patches.split(chunk))
        return torch.cat([_transported(cosine, sentence_mask, epsilon, iterations, tolerance) for cosine in cosines])


def own_transport_similarity(
    patch_features: Float[Tensor, "pairs patches dim"],
    sentence_features: Float[Tensor, "pairs sentences dim"],
    sentence_mask: Float[Tensor, "pairs sentences"],
    *,
    epsilon: float = 0.1,
    iterations: int = 50,
    tolerance: float = 1e-3,
) -> Float[Tensor, " pairs"]:
    """Return the diagonal of `transport_similarity`, each image with its own report, without the rest of it."""
    with torch.autocast(patch_features.device.type, enabled=False):
        patches, sentences = _in_float32(patch_features, sentence_features)
        cosine = torch.einsum("iad,ibd->iab", patches, sentences)
        return _transported(cosine, sentence_mask, epsilon, iterations, tolerance)


def patch_sentence_loss(
    logits: Float[Tensor, "pairs pairs"],
    labels: Int[Tensor, " pairs"],
) -> Float[Tensor, ""]:
    """Tell each image's report by their transport, among all reports, and each report's image.

    In the style of MLIP (arXiv 2401.01591): a contrastive loss over `transport_similarity`. As in the label-guided
    loss, pairs of equal labels are positives of each other; with distinct labels it is the identity.

    Args:
        logits: Similarities over a temperature; row i is image i against all reports.
        labels: Class of each pair; distinct values for unlabelled pairs.

    Returns:
        Mean negative log-likelihood over both directions, in nats.
    """
    return label_guided_ce(logits, labels)


def patch_sentence_alignment(similarity: Float[Tensor, " pairs"]) -> Float[Tensor, ""]:
    """Return the mean of <plan, cost>, what it costs to transport each image's patches to its own report, in [0, 2].

    It has no negatives: alone it is least when all features are equal.

    Args:
        similarity: `own_transport_similarity`, which is 1 - <plan, cost> as the plan sums to 1.
    """
    return 1 - similarity.mean()


def _in_float32(*features: Tensor) -> tuple[Tensor, ...]:
    return tuple(each.to(torch.promote_types(each.dtype, torch.float32)) for each in features)


def _transported(
    cosine: Float[Tensor, "*problems patches sentences"],
    sentence_mask: Float[Tensor, "reports sentences"],
    epsilon: float,
    iterations: int,
    tolerance: float,
) -> Float[Tensor, "*problems"]:
    patch_mass = cosine.new_full((cosine.shape[-2],), 1 / cosine.shape[-2])
    sentence_mass = sentence_mask / sentence_mask.sum(dim=1, keepdim=True)  # of the last of the problems' dimensions
    plan = sinkhorn(1 - cosine, patch_mass, sentence_mass, epsilon=epsilon, iterations=iterations, tolerance=tolerance)
    return (plan * cosine).sum(dim=(-2, -1))
