"""ROC and PRC of every cell under the same draws of test patients."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Integer

from maskedclip_composer.evaluation.cells import Outcome
from maskedclip_composer.evaluation.statistics.bootstrap import resampling_weights, weighted_scores
from maskedclip_composer.report.groups import Key, Results

# Any number; fixed, so that a report of the same cells is the same report.
_SEED = 20_250_723
_MOST_THREADS = 8


@dataclass(frozen=True)
class Draws:
    """Scores of one cell; row i of every cell of a task belongs to the same draw of patients."""

    roc: Float[np.ndarray, " draws"]
    prc: Float[np.ndarray, " draws"]


def resample(results: Results, draws: int) -> dict[Key, dict[int, Draws]]:
    """Score each cell once under `draws` draws of its task's test patients."""
    resampled: dict[Key, dict[int, Draws]] = defaultdict(dict)
    # Threads: nearly all of the time numpy works without Python's lock.
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for task, split in results.splits.items():
            weights = resampling_weights(split.one_hot, split.patients, draws=draws, seed=_SEED)
            cells = [
                (key, seed, outcome)
                for key, seeds in results.groups.items()
                if key.task == task
                for seed, outcome in seeds.items()
            ]
            score = partial(_score, one_hot=split.one_hot, weights=weights)
            scored = pool.map(score, [outcome for _, _, outcome in cells])
            for (key, seed, _), found in zip(cells, scored, strict=True):
                resampled[key][seed] = found
    return dict(resampled)


def mean_over_seeds(cells: Mapping[int, Draws], seeds: Iterable[int]) -> Draws:
    """Average the seeds draw by draw: what is left is the chance of the patients."""
    chosen = [cells[seed] for seed in seeds]
    return Draws(np.mean([cell.roc for cell in chosen], axis=0), np.mean([cell.prc for cell in chosen], axis=0))


def _score(
    outcome: Outcome, *, one_hot: Bool[np.ndarray, "images classes"], weights: Integer[np.ndarray, "draws images"]
) -> Draws:
    return Draws(*weighted_scores(outcome.probabilities, one_hot, weights, outcome.metrics["skipped"]))
