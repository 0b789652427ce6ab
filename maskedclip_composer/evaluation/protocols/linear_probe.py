"""Linear probe: logistic regression on the frozen encoder's features."""

import logging
import warnings

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from maskedclip_composer.evaluation.protocols.base import Fit, Problem
from maskedclip_composer.evaluation.protocols.config import LinearProbeConfig
from maskedclip_composer.evaluation.protocols.head import LinearHead

log = logging.getLogger(__name__)


def linear_probe(config: LinearProbeConfig, problem: Problem, rows: Int[np.ndarray, " chosen"]) -> Fit:
    """Fit one regression per strength on `rows` and keep the one with the best macro ROC on validation.

    The full batch, so nothing is random. One regression over all classes, or one for each label where there may be
    several. A class that no row has gets the probability 0 everywhere.
    """
    features = {split: problem.features.of(split) for split in ("train", "val", "test")}
    one_hot = problem.data.train.one_hot[rows]
    candidates: dict[float, tuple[LinearHead, int, float]] = {}
    for c in config.c_grid:
        regression = _Regression(config, c, several=problem.data.kind == "multilabel")
        head = regression.fit(features["train"][rows], one_hot)
        candidates[c] = (head, regression.iterations, problem.val_roc(head.probabilities(features["val"])))
    best = max(candidates, key=lambda c: candidates[c][2])  # the first, that is the listed order, among equals
    head, iterations, _ = candidates[best]
    if iterations >= config.max_iterations:
        log.warning("the probe's solver stopped at linear_probe.max_iterations=%d", config.max_iterations)
    return Fit(
        probabilities=head.probabilities(features["test"]),
        steps=iterations,
        val_roc=[roc for *_, roc in candidates.values()],
        details={"c": best, "converged": iterations < config.max_iterations},
        head=head,
    )


class _Regression:
    """scikit-learn's regression as one linear head, a row for each column of `one_hot`, seen in training or not."""

    def __init__(self, config: LinearProbeConfig, c: float, *, several: bool):
        self._config = config
        self._c = c
        self._several = several
        self.iterations = 0

    def fit(self, features: Float[np.ndarray, "images dim"], one_hot: Bool[np.ndarray, "images classes"]) -> LinearHead:
        weight, bias = np.zeros((one_hot.shape[1], features.shape[1])), np.full(one_hot.shape[1], -np.inf)
        if self._several:
            for column, target in enumerate(one_hot.T):
                if target.all():
                    bias[column] = np.inf
                elif target.any():
                    (weight[column],), (bias[column],) = self._one(features, target.astype(int))
        else:
            targets = one_hot.argmax(axis=1)
            present = np.unique(targets)
            bias[present] = 0.0
            if len(present) == 2:  # scikit-learn scores the second against the first
                (weight[present[1]],), (bias[present[1]],) = self._one(features, targets)
            elif len(present) > 2:
                weight[present], bias[present] = self._one(features, targets)
        return LinearHead(weight=weight, bias=bias, several=self._several)

    def _one(
        self, features: Float[np.ndarray, "images dim"], targets: Int[np.ndarray, " images"]
    ) -> tuple[Float[np.ndarray, "rows dim"], Float[np.ndarray, " rows"]]:
        """Return weights and biases for features as they are: the standardisation is taken into them."""
        weight = "balanced" if self._config.balanced else None
        regression = LogisticRegression(C=self._c, class_weight=weight, max_iter=self._config.max_iterations)
        scaler = StandardScaler() if self._config.standardise else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported for the chosen strength alone
            regression.fit(features if scaler is None else scaler.fit_transform(features), targets)
        self.iterations = max(self.iterations, int(np.max(regression.n_iter_)))
        rows = np.asarray(regression.coef_, dtype=np.float64)
        biases = np.asarray(regression.intercept_, dtype=np.float64)
        if scaler is None:
            return rows, biases
        rows = rows / np.asarray(scaler.scale_)
        return rows, biases - rows @ np.asarray(scaler.mean_)
