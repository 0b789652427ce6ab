"""Pictures of one outcome, and of the photographs that it got most wrong."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.data.transforms import eval_transform
from maskedclip_composer.evaluation.cells import Outcome
from maskedclip_composer.evaluation.curves import (
    confusion_picture,
    gallery_picture,
    pr_picture,
    reliability_picture,
    roc_picture,
)
from maskedclip_composer.evaluation.kinds import TargetKind
from maskedclip_composer.evaluation.protocols.base import Problem

WORST = 12
_SIDE = 224  # pixels of a photograph in the gallery


def save_pictures(folder: Path, problem: Problem, outcome: Outcome) -> None:
    """Write confusion.png, roc.png, pr.png, reliability.png and gallery.png to `folder`."""
    data, scores = problem.data, outcome.probabilities
    given = (scores, data.test.one_hot, data.names, outcome.metrics, data.kind)
    worst = worst_mistakes(scores, data.test.one_hot, data.kind)
    pictures = {
        "confusion": confusion_picture(*given),
        "roc": roc_picture(*given),
        "pr": pr_picture(*given),
        "reliability": reliability_picture(*given),
        "gallery": gallery_picture(
            [eval_transform(problem.photographs["test"].pixels(row), _SIDE).permute(1, 2, 0).numpy() for row in worst],
            [_caption(problem, scores, row) for row in worst],
        ),
    }
    for name, figure in pictures.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
        write_whole(folder / f"{name}.png", content.getvalue())


def worst_mistakes(
    probabilities: Float[np.ndarray, "images classes"], one_hot: Bool[np.ndarray, "images classes"], kind: TargetKind
) -> Int[np.ndarray, " worst"]:
    """Return the images whose least probable true statement is least probable, the worst first.

    For one class each that is the probability of the true class; for several labels the smallest of p for a label that
    is there and 1 - p for one that is not.
    """
    other = 1 - probabilities if kind == "multilabel" else np.inf
    true = np.where(one_hot, probabilities, other).min(axis=1)
    return np.argsort(true, kind="stable")[:WORST]


def _caption(problem: Problem, probabilities: Float[np.ndarray, "images classes"], row: int) -> str:
    """Say what it is, what the classifier says, and which photograph."""
    names = problem.data.names
    labels = [names[index] for index in np.flatnonzero(problem.data.test.one_hot[row])]
    guess = int(probabilities[row].argmax())
    name = problem.data.test.photographs.names[row].rpartition("/")[2]
    return f"{' + '.join(labels) or 'nothing'}\nsaid: {names[guess]} {probabilities[row, guess]:.2f}\n{name}"
