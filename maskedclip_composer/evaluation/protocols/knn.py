"""k nearest neighbours on the frozen encoder's features."""

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.neighbors import NearestNeighbors

from maskedclip_composer.evaluation.protocols.base import Fit, Problem
from maskedclip_composer.evaluation.protocols.config import KnnConfig


def knn(config: KnnConfig, problem: Problem, rows: Int[np.ndarray, " chosen"]) -> Fit:
    """Let the nearest rows vote, with the number of neighbours that is best on validation.

    More neighbours than rows means all rows. The weights are DINO's (Caron et al., 2021): exp(cosine / temperature).
    """
    features = {split: problem.features.of(split) for split in ("train", "val", "test")}
    train, one_hot = features["train"][rows], problem.data.train.one_hot[rows]
    grid = list(dict.fromkeys(min(k, len(rows)) for k in config.k_grid))
    neighbours = NearestNeighbors(n_neighbors=max(grid), metric="cosine").fit(train)
    val = _votes(neighbours, features["val"], one_hot, grid, config.temperature)
    val_roc = [problem.val_roc(val[k]) for k in grid]
    best = grid[int(np.argmax(val_roc))]
    return Fit(
        probabilities=_votes(neighbours, features["test"], one_hot, [best], config.temperature)[best],
        val_roc=val_roc,
        details={"k": best},
    )


def _votes(
    neighbours: NearestNeighbors,
    features: Float[np.ndarray, "images dim"],
    one_hot: Bool[np.ndarray, "rows classes"],
    grid: list[int],
    temperature: float,
) -> dict[int, Float[np.ndarray, "images classes"]]:
    """Return, for each number of neighbours, the share of the votes that each class gets."""
    distances, indices = neighbours.kneighbors(features)
    # Relative to the nearest, so that a small temperature does not overflow; the shares are the same.
    weights = np.exp((distances[:, :1] - distances) / temperature)
    votes = np.cumsum(weights[:, :, None] * one_hot[indices], axis=1)
    total = np.cumsum(weights, axis=1)
    return {k: votes[:, k - 1] / total[:, k - 1 : k] for k in grid}
