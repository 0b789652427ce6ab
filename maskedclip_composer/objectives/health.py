"""Numbers that fall when features collapse."""

import torch
import torch.nn.functional as F
from torch import Tensor

RANK_ROWS = 256  # which take some 7 ms of one core at 768 dimensions


def effective_rank(features: Tensor) -> Tensor:
    """Return how many directions the features fill: exp of the entropy, in nats, of their normalised singular values.

    RankMe (Garrido et al., 2023, arXiv 2210.02885), eq. 1-2. Features are not centred there, so that features that are
    all equal have rank 1. Of more than 256 rows so many are taken, evenly spread; the others are not looked at.

    They are roots of eigenvalues of the rows' products: in float64, which keeps small ones apart, and on the host, for
    which so small a matrix is no work.

    Deviation: an entropy of exactly 0 for a zero singular value takes the place of an epsilon of 1e-7.

    Args:
        features: [..., dim]; every leading index counts as a row.

    Returns:
        A scalar from 1 to min(rows, dim), on the features' device; nan where one of those rows is not finite.
    """
    rows = features.detach().flatten(0, -2)
    if len(rows) > RANK_ROWS:
        rows = rows[torch.linspace(0, len(rows) - 1, RANK_ROWS, device=rows.device).long()]
    rows = rows.double()  # of those that are taken alone: of all it would be a large copy
    finite = torch.isfinite(rows).all()
    rows = rows.where(finite, 0)  # what follows raises at nan
    products = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(products.cpu()).clamp(min=0).sqrt()
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(share).sum().exp().to(rows.device).where(finite, torch.nan).float()


def variance_of_directions(features: Tensor) -> Tensor:
    """Return the variance of the features at length 1, summed over dimensions: 0 where all point one way, at most 1.

    Args:
        features: [..., dim]; every leading index counts as a row.
    """
    rows = F.normalize(features.detach().flatten(0, -2).float(), dim=-1)
    return rows.var(dim=0, correction=0).sum()


def nearest_of_texts(similarity: Tensor, labels: Tensor, text_index: Tensor | None = None) -> dict[str, Tensor]:
    """Return how often a text's nearest image has the text's label, and how often a random image would.

    Args:
        similarity: [images, texts], of all images and the texts of `text_index`.
        labels: [images], of the pairs.
        text_index: [images], the text of each pair; None where text i is that of pair i.

    Returns:
        `text_retrieval_at_1`, a mean over pairs, and `retrieval_chance`, for either direction.
    """
    nearest = similarity.argmax(dim=0) if text_index is None else similarity.argmax(dim=0)[text_index]
    return {
        "text_retrieval_at_1": (labels[nearest] == labels).float().mean(),
        "retrieval_chance": (labels[:, None] == labels).float().mean(),
    }
