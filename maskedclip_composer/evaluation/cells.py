"""A suite on disk: one folder per evaluated cell, what they share beside them, all written whole.

SUITE/config.yaml              as resolved
SUITE/suite.json               `Suite`
SUITE/tasks/TASK.parquet       test photographs in their order: record, patient, labels (list of codes)
SUITE/cells/TASK/PROTOCOL/AMOUNT/ENCODER/seedN/probabilities.npy, then outcome.json, which says that it is done
SUITE/pictures/TASK/PROTOCOL/ENCODER/{confusion,roc,pr,reliability,gallery}.png   first seed, largest amount
SUITE/models/TASK/PROTOCOL/AMOUNT/ENCODER/seedN/{classifier.safetensors,README.md}   where they were asked for
SUITE/results.csv              one row per cell
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.kinds import Amount, TargetKind
from maskedclip_composer.evaluation.metrics import METRIC_NAMES, Metrics


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One encoder on one task by one protocol with one part of the training split."""

    encoder: str
    task: str
    protocol: str
    amount: Amount
    seed: int

    @property
    def group(self) -> Path:
        """Of all seeds, below the suite's `cells`."""
        return Path(self.task) / self.protocol / self.amount.name / self.encoder

    @property
    def name(self) -> str:
        """In logs and in MLflow."""
        return f"{self.encoder} {self.task} {self.protocol} {self.amount.name} seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a cell.

    Attributes:
        metrics: On the test split.
        train_images: Photographs of the training split that were used.
        steps: Optimiser steps; of the solver's iterations for a linear probe, 0 where nothing is trained.
        val_roc: Macro ROC on validation: per epoch, or per candidate of what was chosen on it.
        details: What was chosen on validation, and what the protocol says of itself.
        seconds: It took.
        probabilities: Of the test photographs, in the split's order; a multi-label row need not sum to 1.
    """

    metrics: Metrics
    train_images: int
    steps: int
    val_roc: list[float]
    details: dict[str, Any]
    seconds: float
    probabilities: Float[np.ndarray, "images classes"]


@dataclass(frozen=True, kw_only=True)
class EncoderFacts:
    """What a suite knows of an encoder.

    Attributes:
        source: As given.
        description: Where the weights come from.
        fingerprint: sha256 of them.
        recipe: For a run of ours, which parts pre-training had: mim, lg_clip, bridge, mfd; empty for others.
        paired: Photographs with texts that it was trained on; None where unknown, and likewise below.
        unpaired: Photographs without.
        contaminated: Test photographs of each task that pre-training has seen.
    """

    source: str
    description: str
    fingerprint: str
    recipe: dict[str, bool] = field(default_factory=dict)
    paired: int | None = None
    unpaired: int | None = None
    contaminated: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What a suite knows of a task.

    Attributes:
        title: Its name in print.
        kind: Of its labels.
        classes: Codes, in the order of the columns of `probabilities`.
        names: What the classes are called.
        images: Of train, val and test.
        untrained: Classes without a training photograph, which the means leave out.
        fingerprint: sha256 over the names, hashes and labels of all splits.
        source: Of data and split, from the task's yaml.
    """

    title: str
    kind: TargetKind
    classes: list[str]
    names: list[str]
    images: dict[str, int]
    untrained: list[str]
    fingerprint: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What the cells share.

    Attributes:
        complete: Whether every cell is done.
        baseline: Encoder that the others are compared with.
        planned: Every cell, done or not.
        notes: What else a reader must know, such as cells that cannot be.
        protocols: Their settings, by name.
        provenance: Versions, device, commit.
        mlflow: {tracking_uri, experiment, run_id} of the parent run; empty without MLflow.
    """

    complete: bool
    baseline: str
    planned: list[Cell]
    notes: list[str]
    encoders: dict[str, EncoderFacts]
    tasks: dict[str, TaskFacts]
    protocols: dict[str, dict[str, Any]]
    provenance: dict[str, Any]
    mlflow: dict[str, str] = field(default_factory=dict)

    def is_pictured(self, cell: Cell) -> bool:
        """Tell whether pictures are drawn of a cell: the first seed of its protocol's largest amount."""
        amounts = [other.amount for other in self.planned if other.protocol == cell.protocol]
        return cell.seed == 0 and cell.amount == max(amounts, key=lambda part: (part.fraction or 0, part.shots or 0))


def save_suite(folder: Path, suite: Suite) -> None:
    """Write suite.json."""
    write_whole(folder / "suite.json", json.dumps(asdict(suite), indent=2) + "\n")


def load_suite(folder: Path) -> Suite:
    """Read suite.json.

    Raises:
        UserError: The folder holds none, or a damaged one.
    """
    path = folder / "suite.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no suite.json, so no evaluation was written there.\nGive runs/NAME.")
    try:
        content = json.loads(path.read_text())
        encoders = {name: EncoderFacts(**facts) for name, facts in content.pop("encoders").items()}
        tasks = {name: TaskFacts(**facts) for name, facts in content.pop("tasks").items()}
        planned = [_cell(cell) for cell in content.pop("planned")]
        return Suite(encoders=encoders, tasks=tasks, planned=planned, **content)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}).\nEvaluate again into another run_name.") from error


def picture_folder(cell: Cell) -> Path:
    """Return where the pictures of a cell lie, below the suite's folder."""
    return Path("pictures") / cell.task / cell.protocol / cell.encoder


def model_folder(cell: Cell) -> Path:
    """Return where the classifier of a cell lies, below the suite's folder."""
    return Path("models") / cell.group / f"seed{cell.seed}"


def save_test_split(
    folder: Path, task: str, records: Sequence[str], patients: Sequence[str], labels: Sequence[Sequence[str]]
) -> None:
    """Write tasks/TASK.parquet."""
    table = pd.DataFrame({"record": records, "patient": patients, "labels": [list(codes) for codes in labels]})
    content = io.BytesIO()
    table.to_parquet(content)
    write_whole(folder / "tasks" / f"{task}.parquet", content.getvalue())


def load_test_split(folder: Path, task: str, classes: Sequence[str]) -> tuple[pd.DataFrame, Bool[np.ndarray, "n c"]]:
    """Read tasks/TASK.parquet; return it and its labels as one column per class."""
    table = pd.read_parquet(folder / "tasks" / f"{task}.parquet")
    one_hot = np.array([[code in codes for code in classes] for codes in table["labels"]], dtype=bool)
    return table, one_hot.reshape(len(table), len(classes))


def save_outcome(folder: Path, cell: Cell, outcome: Outcome) -> None:
    """Write one cell; outcome.json comes last."""
    place = folder / "cells" / cell.group / f"seed{cell.seed}"
    scores = io.BytesIO()
    np.save(scores, outcome.probabilities)
    write_whole(place / "probabilities.npy", scores.getvalue())
    content = {key: value for key, value in asdict(outcome).items() if key != "probabilities"}
    content["metrics"] = {key: without_nan(value) for key, value in outcome.metrics.items()}
    write_whole(place / "outcome.json", json.dumps({"cell": asdict(cell)} | content, indent=2) + "\n")


def load_outcome(folder: Path, cell: Cell) -> Outcome | None:
    """Read one cell; None where it is not done."""
    path = folder / "cells" / cell.group / f"seed{cell.seed}" / "outcome.json"
    return _read(path)[1] if path.is_file() else None


def load_outcomes(folder: Path) -> Iterator[tuple[Cell, Outcome]]:
    """Read every finished cell, in the order of their paths."""
    for path in sorted((folder / "cells").glob("*/*/*/*/seed*/outcome.json")):
        yield _read(path)


def save_results(folder: Path, outcomes: Sequence[tuple[Cell, Outcome]]) -> None:
    """Write results.csv: one row per cell."""
    write_whole(folder / "results.csv", results_table(outcomes).to_csv(index=False))


def results_table(outcomes: Sequence[tuple[Cell, Outcome]]) -> pd.DataFrame:
    """Return one row per cell, with all scalar metrics."""
    rows = []
    for cell, outcome in outcomes:
        scores = cast(Mapping[str, Any], outcome.metrics)
        identity = {"task": cell.task, "protocol": cell.protocol, "amount": cell.amount.name}
        identity |= {"encoder": cell.encoder, "seed": cell.seed}
        costs = {"train_images": outcome.train_images, "steps": outcome.steps}
        rows.append(identity | costs | {name: scores.get(name) for name in METRIC_NAMES})
    return pd.DataFrame(rows)


def _read(path: Path) -> tuple[Cell, Outcome]:
    try:
        content = json.loads(path.read_text())
        cell = _cell(content.pop("cell"))
        metrics = {key: _with_nan(value) for key, value in content.pop("metrics").items()}
        probabilities = np.load(path.with_name("probabilities.npy"), allow_pickle=False)
        return cell, Outcome(metrics=cast(Metrics, metrics), probabilities=probabilities, **content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}).\nRemove {path.parent} and evaluate again.") from error


def _cell(content: dict[str, Any]) -> Cell:
    return Cell(**content | {"amount": Amount(**content["amount"])})


def without_nan(value: Any) -> Any:
    """Return a number, or a list of them, with None for NaN, which JSON has not."""
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return float("nan") if value is None else value
