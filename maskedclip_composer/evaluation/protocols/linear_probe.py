"""Linear probe: logistic regression on the frozen encoder's features."""

import logging
import warnings

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from maskedclip_composer.evaluation.protocols.base import Fit, Problem
from maskedclip_composer.evaluation.protocols.config import LinearProbeConfig

log = logging.getLogger(__name__)


def linear_probe(config: LinearProbeConfig, problem: Problem, rows: Int[np.ndarray, " chosen"]) -> Fit:
    """Fit one regression per strength on `rows` and keep the one with the best macro ROC on validation.

    The full batch, so nothing is random. One regression over all classes, or one for each label where there may be
    several. A class that no row has gets the probability 0 everywhere.
    """
    features = {split: problem.features.of(split) for split in ("train", "val", "test")}
    one_hot = problem.data.train.one_hot[rows]
    candidates: dict[float, tuple[_Regression, float]] = {}
    for c in config.c_grid:
        regression = _Regression(config, c, several=problem.data.kind == "multilabel")
        regression.fit(features["train"][rows], one_hot)
        candidates[c] = (regression, problem.val_roc(regression.probabilities(features["val"])))
    best = max(candidates, key=lambda c: candidates[c][1])  # the first, that is the listed order, among equals
    chosen = candidates[best][0]
    if chosen.iterations >= config.max_iterations:
        log.warning("the probe's solver stopped at linear_probe.max_iterations=%d", config.max_iterations)
    return Fit(
        probabilities=chosen.probabilities(features["test"]),
        steps=chosen.iterations,
        val_roc=[roc for _, roc in candidates.values()],
        details={"c": best, "converged": chosen.iterations < config.max_iterations},
    )


class _Regression:
    """scikit-learn's regression whose columns are those of `one_hot`, whichever classes it has seen."""

    def __init__(self, config: LinearProbeConfig, c: float, *, several: bool):
        self._config = config
        self._c = c
        self._several = several
        self._models: list[tuple[list[int], Pipeline]] = []  # columns and model
        self._constant: dict[int, float] = {}
        self.iterations = 0
        self._num_classes = 0

    def fit(self, features: Float[np.ndarray, "images dim"], one_hot: Bool[np.ndarray, "images classes"]) -> None:
        self._num_classes = one_hot.shape[1]
        if self._several:
            for column, target in enumerate(one_hot.T):
                if target.all() or not target.any():
                    self._constant[column] = float(target[0])
                else:
                    self._models.append(([-1, column], self._one(features, target.astype(int))))
            return
        targets = one_hot.argmax(axis=1)
        present = np.unique(targets)
        if len(present) == 1:
            self._constant[int(present[0])] = 1.0
        else:
            self._models.append((present.tolist(), self._one(features, targets)))

    def probabilities(self, features: Float[np.ndarray, "images dim"]) -> Float[np.ndarray, "images classes"]:
        result = np.zeros((len(features), self._num_classes))
        for column, value in self._constant.items():
            result[:, column] = value
        for columns, model in self._models:
            scores = model.predict_proba(features)
            for place, column in enumerate(columns):
                if column >= 0:  # the first column of a single label says that it is absent
                    result[:, column] = scores[:, place]
        return result

    def _one(self, features: Float[np.ndarray, "images dim"], targets: Int[np.ndarray, " images"]) -> Pipeline:
        weight = "balanced" if self._config.balanced else None
        regression = LogisticRegression(C=self._c, class_weight=weight, max_iter=self._config.max_iterations)
        model = make_pipeline(StandardScaler() if self._config.standardise else "passthrough", regression)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported for the chosen strength alone
            model.fit(features, targets)
        self.iterations = max(self.iterations, int(np.max(regression.n_iter_)))
        return model
