"""Problems for tests: made from a set on disk, or with features that a test chooses itself."""

from pathlib import Path

import numpy as np

from maskedclip_composer.evaluation.data import LabelledData, LabelledSplit, load_labelled
from maskedclip_composer.evaluation.decoded import decode_all
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.evaluation.features import Features
from maskedclip_composer.evaluation.kinds import TargetKind
from maskedclip_composer.evaluation.protocols.base import Problem
from maskedclip_composer.evaluation.tasks import TaskConfig
from tests.evaluation.conftest import TINY


def whole_problem(folder: Path, aside: Path, *, kind: TargetKind = "nominal", source: str = TINY, **task) -> Problem:
    """An encoder at 32 pixels on a set."""
    data = load_labelled(str(folder), kind=kind)
    photographs = decode_all(data, memory=1.0, workers=2)
    encoder = load(source, image_size=32)
    features = Features(encoder=encoder, splits=photographs, file=aside / "f.safetensors", batch_size=8, workers=0)
    return Problem(
        encoder=encoder,
        source=source,
        task=TaskConfig(title="toy", data=str(folder), kind=kind, **task),
        data=data,
        photographs=photographs,
        features=features,
        batch_size=16,
        workers=0,
    )


class _Photographs:
    def __init__(self, size: int):
        self.names = [f"{index}.png" for index in range(size)]
        self.patients = [""] * size


class _Known:
    def __init__(self, features: dict[str, np.ndarray]):
        self._features = features

    def of(self, split: str) -> np.ndarray:
        return self._features[split]


def feature_problem(parts: dict[str, tuple[np.ndarray, np.ndarray]], kind: TargetKind = "nominal") -> Problem:
    """A problem without photographs: features and one-hot labels of train, val and test."""
    splits = {
        name: LabelledSplit(name=name, photographs=_Photographs(len(labels)), one_hot=labels)  # pyright: ignore
        for name, (_, labels) in parts.items()
    }
    classes = tuple(str(index) for index in range(parts["train"][1].shape[1]))
    data = LabelledData(kind=kind, classes=classes, names=classes, place="", **splits)  # pyright: ignore
    return Problem(
        encoder=None,  # pyright: ignore
        source="",
        task=TaskConfig(title="toy", data="", kind=kind),
        data=data,
        photographs={},
        features=_Known({name: features for name, (features, _) in parts.items()}),  # pyright: ignore
        batch_size=16,
        workers=0,
    )


def one_hot(targets: np.ndarray, classes: int) -> np.ndarray:
    return targets[:, None] == np.arange(classes)
