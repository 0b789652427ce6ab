"""Optimal transport between the patches of images and the sentences of reports."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maskedclip_composer.losses.contrastive import label_targets


@torch.no_grad()
def sinkhorn(
    cost: Float[Tensor, "*problems rows columns"],
    row_mass: Float[Tensor, "*#problems rows"],
    column_mass: Float[Tensor, "*#problems columns"],
    *,
    epsilon: float,
    iterations: int = 50,
) -> Float[Tensor, "*problems rows columns"]:
    """Return the plans that minimise <plan, cost> - epsilon * entropy(plan) under both marginals.

    Cuturi's iteration (arXiv 1306.0895) on logarithms, in float32 or better, without gradient. The number of rounds is
    fixed: to stop early would cost a wait for the device in each round, and a plan would depend on the other problems
    of the batch. Columns are met exactly, rows ever better. Columns of mass 0 are padding: their plan is exactly 0 and
    they have no influence.

    Args:
        cost: Any number of problems.
        row_mass: Positive, summing to 1.
        column_mass: Not negative, summing to 1.
        epsilon: Strength of the entropy, in units of cost; towards 0 the plan becomes the one of linear programming,
            towards infinity the product of the marginals.
        iterations: Rounds.
    """
    dtype = torch.promote_types(cost.dtype, torch.float32)
    log_kernel = -cost.to(dtype) / epsilon
    log_rows, log_columns = row_mass.to(dtype).log(), column_mass.to(dtype).log()  # -inf where there is no mass
    # Scalings of rows and columns; a padded column's is -inf from the start, and stays so.
    rows = torch.zeros_like(log_kernel[..., 0])
    columns = log_columns.expand_as(log_kernel[..., 0, :])
    for _ in range(iterations):
        rows = log_rows - (log_kernel + columns[..., None, :]).logsumexp(dim=-1)
        columns = log_columns - (log_kernel + rows[..., None]).logsumexp(dim=-2)
    return (log_kernel + rows[..., None] + columns[..., None, :]).exp()


def transport_similarity(
    patch_features: Float[Tensor, "images patches dim"],
    sentence_features: Float[Tensor, "reports sentences dim"],
    sentence_mask: Float[Tensor, "reports sentences"],
    *,
    epsilon: float = 0.1,
    iterations: int = 50,
) -> Float[Tensor, "images reports"]:
    """Return how well the patches of every image can be transported to the sentences of every report.

    In the style of MLIP (arXiv 2401.01591), whose formulas were not at hand: the cosine of patch and sentence, weighed
    by the plan that transports uniform patches to uniform sentences at the cost 1 - cosine. The plan carries no
    gradient, by the envelope theorem, so the gradient flows through the cosines alone.

    Memory: images * reports * patches * sentences numbers, a few times over while the plans are found.

    Args:
        patch_features: L2-normalised.
        sentence_features: L2-normalised; what stands on padding is void.
        sentence_mask: 1 for a sentence, 0 for padding; every report has at least one.
        epsilon: Strength of the entropy; see `sinkhorn`.
        iterations: Of `sinkhorn`.

    Returns:
        Values in [-1, 1].
    """
    cosine = torch.einsum("iad,kbd->ikab", patch_features, sentence_features)
    column_mass = sentence_mask / sentence_mask.sum(dim=1, keepdim=True)
    row_mass = cosine.new_full((cosine.shape[2],), 1 / cosine.shape[2])
    plan = sinkhorn(1 - cosine, row_mass, column_mass[None], epsilon=epsilon, iterations=iterations)
    return (plan * cosine).sum(dim=(2, 3))


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
    targets = label_targets(labels, logits.dtype)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def patch_sentence_alignment(similarity: Float[Tensor, "pairs pairs"]) -> Float[Tensor, ""]:
    """Return the mean cost of transporting each image's patches to its own report, 1 - similarity, in [0, 2].

    It has no negatives: alone it is least when all features are equal.
    """
    return 1 - similarity.diagonal().mean()
