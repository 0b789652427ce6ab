"""A linear classifier of features: what a fitted regression comes down to, and what is stored of it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """Weights in float64: those of features with a small spread are large, and their terms nearly cancel.

    Attributes:
        weight: One row a class.
        bias: -inf for a class without a training image, whose probability is 0 then; inf for a certain label.
        several: Whether an image can have several labels: a sigmoid each, in place of a softmax.
    """

    weight: Float[np.ndarray, "classes dim"]
    bias: Float[np.ndarray, " classes"]
    several: bool

    def probabilities(self, features: Float[np.ndarray, "images dim"]) -> Float[np.ndarray, "images classes"]:
        """Return the probability of each class for each row of features."""
        scores = features.astype(np.float64) @ self.weight.T + self.bias
        if self.several:
            return np.exp(-np.logaddexp(0, -scores))
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)
