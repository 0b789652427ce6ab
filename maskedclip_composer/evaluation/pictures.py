"""Pictures of one outcome, and of the photographs that it got most wrong."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

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
    """Write confusion.png, roc.png, pr.png, reliability.png and, where there are mistakes, gallery.png to `folder`."""
    data, scores = problem.data, outcome.probabilities
    given = (scores, data.test.one_hot, data.names, outcome.metrics, data.kind)
    worst = worst_mistakes(scores, data.test.one_hot, data.kind)
    pictures = {
        "confusion": confusion_picture(*given),
        "roc": roc_picture(*given),
        "pr": pr_picture(*given),
        "reliability": reliability_picture(*given),
    }
    if worst:
        photographs = [problem.photographs["test"].pixels(row) for row, _ in worst]
        images = [eval_transform(pixels, _SIDE).permute(1, 2, 0).numpy() for pixels in photographs]
        pictures["gallery"] = gallery_picture(images, [_caption(problem, scores, *mistake) for mistake in worst])
    for name, figure in pictures.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
        write_whole(folder / f"{name}.png", content.getvalue())


def worst_mistakes(
    probabilities: Float[np.ndarray, "images classes"], one_hot: Bool[np.ndarray, "images classes"], kind: TargetKind
) -> list[tuple[int, int]]:
    """Return (image, class) of the greatest mistakes, the worst first; fewer than `WORST` where there are not so many.

    For one class each, an image is mistaken where another class is more probable, the more so the less probable the
    true one is; the class is the one that is most probable. Labels that may be several are each right or wrong at 0.5;
    of an image the label counts that is farthest on the wrong side.
    """
    if kind == "multilabel":
        distance = np.where(one_hot, 1 - probabilities, probabilities)
        said, size = distance.argmax(axis=1), distance.max(axis=1)
        mistaken = size > 0.5
    else:
        said, size = probabilities.argmax(axis=1), 1 - probabilities[one_hot]
        mistaken = ~one_hot[np.arange(len(one_hot)), said]
    order = np.argsort(-size, kind="stable")
    return [(int(row), int(said[row])) for row in order if mistaken[row]][:WORST]


def _caption(problem: Problem, probabilities: Float[np.ndarray, "images classes"], row: int, said: int) -> str:
    """Say what it is, what the classifier says, and which photograph."""
    names = problem.data.names
    labels = [names[index] for index in np.flatnonzero(problem.data.test.one_hot[row])]
    name = problem.data.test.photographs.names[row].rpartition("/")[2]
    return f"{' + '.join(labels) or 'nothing'}\nsaid: {names[said]} {probabilities[row, said]:.2f}\n{name}"
