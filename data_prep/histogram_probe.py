"""How far colour alone solves a labelled set: the score that a learnt representation has to beat."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from maskedclip_composer.errors import UserError

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FIELD_THRESHOLD = 16  # of the brightest channel; darker pixels lie outside the field


def histogram_probe(manifest: Path) -> float:
    """Macro one-vs-rest AUROC of logistic regression on colour histograms, on the test split.

    The regularisation is the one that is best on the validation split.

    Args:
        manifest: CSV with the columns image (path relative to it), label and split (train, val, test).

    Returns:
        0.5 for chance, 1 for perfect.

    Raises:
        UserError: An image cannot be read, or a split lacks a class.
    """
    table = pd.read_csv(manifest, dtype=str)
    features = np.stack([colour_histogram(manifest.parent / image) for image in table["image"]])
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in ("train", "val", "test"):
        chosen = (table["split"] == name).to_numpy()
        parts[name] = (features[chosen], table["label"].to_numpy(dtype=str)[chosen])
    classes = sorted(table["label"].unique())
    for name, (_, labels) in parts.items():
        if missing := sorted(set(classes) - set(labels)):
            raise UserError(f"{manifest}: split {name} has no image of {', '.join(missing)}; make the set larger.")
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(*parts["train"])
        for strength in STRENGTHS
    ]
    best = max(models, key=lambda model: _score(model, *parts["val"]))
    return _score(best, *parts["test"])


def colour_histogram(path: Path) -> np.ndarray:
    """Square roots of the shares of 32 bins per channel and of 6 x 6 x 6 joint bins, within the field; [312]."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path}: cannot be read as an image.")
    inside = (image.max(axis=-1) > FIELD_THRESHOLD).astype(np.uint8)
    single = [cv2.calcHist([image], [channel], inside, [32], [0, 256]).ravel() for channel in range(3)]
    joint = cv2.calcHist([image], [0, 1, 2], inside, [6, 6, 6], [0, 256] * 3).ravel()
    return np.sqrt(np.concatenate([*single, joint]) / max(int(inside.sum()), 1))


def _score(model: Pipeline, features: np.ndarray, labels: np.ndarray) -> float:
    probabilities = model.predict_proba(features)
    one_hot = labels[:, None] == model.classes_
    return float(roc_auc_score(one_hot, probabilities, average="macro"))
