"""ROC and PRC of every cell under the same draws of test patients."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from maskedclip_composer.evaluation.statistics.bootstrap import resampling_weights, weighted_scores
from maskedclip_composer.report.groups import Key, Results

# Any number; fixed, so that a report of the same cells is the same report.
_SEED = 20_250_723


@dataclass(frozen=True)
class Draws:
    """Scores of one cell; row i of every cell of a task belongs to the same draw of patients."""

    roc: Float[np.ndarray, " draws"]
    prc: Float[np.ndarray, " draws"]


def resample(results: Results, draws: int) -> dict[Key, dict[int, Draws]]:
    """Score each cell once under `draws` draws of its task's test patients."""
    resampled: dict[Key, dict[int, Draws]] = {}
    for task, split in results.splits.items():
        weights = resampling_weights(split.one_hot, split.patients, draws=draws, seed=_SEED)
        for key, seeds in results.groups.items():
            if key.task == task:
                resampled[key] = {
                    seed: Draws(
                        *weighted_scores(outcome.probabilities, split.one_hot, weights, outcome.metrics["skipped"])
                    )
                    for seed, outcome in seeds.items()
                }
    return resampled


def mean_over_seeds(cells: Mapping[int, Draws], seeds: Iterable[int]) -> Draws:
    """Average the seeds draw by draw: what is left is the chance of the patients."""
    chosen = [cells[seed] for seed in seeds]
    return Draws(np.mean([cell.roc for cell in chosen], axis=0), np.mean([cell.prc for cell in chosen], axis=0))
