"""The finished cells of a suite, put together by seeds, and those that are missing."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.cells import Cell, Outcome, Suite, load_outcomes, load_suite, load_test_split
from maskedclip_composer.evaluation.kinds import Amount

PROTOCOL_TITLES = {
    "finetune": "Fine-tuning",
    "probe": "Linear probe",
    "knn": "k nearest neighbours",
    "zero_shot": "Zero-shot",
    "zeroshot": "Zero-shot",
}


@dataclass(frozen=True, kw_only=True)
class Key:
    """What the seeds of a group share."""

    task: str
    protocol: str
    amount: Amount
    encoder: str

    @classmethod
    def of(cls, cell: Cell) -> "Key":
        """Leave the seed out."""
        return cls(task=cell.task, protocol=cell.protocol, amount=cell.amount, encoder=cell.encoder)

    def of_encoder(self, encoder: str) -> "Key":
        """Return the same for another encoder."""
        return Key(task=self.task, protocol=self.protocol, amount=self.amount, encoder=encoder)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Test photographs of a task in the order of the probabilities.

    Attributes:
        table: Of `tasks/TASK.parquet`.
        one_hot: Its labels.
        patients: Whose each photograph is, '' where unknown.
    """

    table: pd.DataFrame
    one_hot: Bool[np.ndarray, "images classes"]
    patients: list[str]


@dataclass(frozen=True, kw_only=True)
class Results:
    """All of a suite that a report needs.

    Attributes:
        folder: Of the suite.
        suite: What the cells share.
        groups: Outcomes by seed; only of finished cells, so a group has at least one.
        splits: Test split of each task that has a finished cell.
        missing: Cells without an outcome that others of the suite lead to expect.
    """

    folder: Path
    suite: Suite
    groups: Mapping[Key, Mapping[int, Outcome]]
    splits: Mapping[str, Split]
    missing: list[Cell] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """In the suite's order."""
        return list(self.suite.tasks)

    @property
    def encoders(self) -> list[str]:
        """In the suite's order."""
        return list(self.suite.encoders)

    @property
    def settings(self) -> list[tuple[str, Amount]]:
        """Protocols with their amounts that have a finished cell: protocols as in the suite, amounts ascending."""
        order = list(self.suite.protocols)
        seen = {(key.protocol, key.amount) for key in self.groups}
        return sorted(
            seen, key=lambda item: (order.index(item[0]) if item[0] in order else len(order), amount_order(item[1]))
        )

    @property
    def protocols(self) -> list[str]:
        """Those that have a finished cell, in the suite's order."""
        return list(dict.fromkeys(protocol for protocol, _ in self.settings))

    def amounts(self, protocol: str) -> list[Amount]:
        """Amounts of a protocol, ascending: none, then shots, then fractions."""
        return [amount for name, amount in self.settings if name == protocol]

    def task_title(self, task: str) -> str:
        """Return its name in print."""
        return self.suite.tasks[task].title or task


def load_results(folder: Path) -> Results:
    """Read a suite folder.

    Raises:
        UserError: It holds no suite, no finished cell, or a damaged one.
    """
    suite = load_suite(folder)
    groups: dict[Key, dict[int, Outcome]] = defaultdict(dict)
    seen = []
    for cell, outcome in load_outcomes(folder):
        if cell.task in suite.tasks and cell.encoder in suite.encoders:
            groups[Key.of(cell)][cell.seed] = outcome
            seen.append(cell)
    if not seen:
        raise UserError(f"{folder} has no finished cell, so there is nothing to report.\nRun evaluate.py on it first.")
    splits = {}
    for task in {cell.task for cell in seen}:
        splits[task] = _load_split(folder, task, suite.tasks[task].classes)
        for key, seeds in groups.items():
            if key.task == task:
                _check_shapes(folder, key, seeds, splits[task].one_hot)
    return Results(
        folder=folder, suite=suite, groups=dict(groups), splits=splits, missing=list(missing_cells(suite, seen))
    )


def missing_cells(suite: Suite, seen: list[Cell]) -> Iterator[Cell]:
    """Yield the cells that are expected, in the suite's order, and not among `seen`.

    A suite does not list its cells. Expected is every task and encoder of the suite under each protocol, amount and
    seed that any cell has. Not so what need not exist: a protocol that no cell of the encoder has, once the suite is
    complete or where nothing is trained (zero-shot wants a text tower), and an amount that no cell of the task has,
    once the suite is complete.
    """
    done = set(seen)
    by_encoder = {(cell.encoder, cell.protocol) for cell in seen}
    by_task = {(cell.task, cell.protocol, cell.amount) for cell in seen}
    settings = sorted(
        {(cell.protocol, cell.amount, cell.seed) for cell in seen},
        key=lambda item: (item[0], amount_order(item[1]), item[2]),
    )
    for task in suite.tasks:
        for protocol, amount, seed in settings:
            for encoder in suite.encoders:
                untrained = amount.fraction is None and amount.shots is None
                if (suite.complete or untrained) and (encoder, protocol) not in by_encoder:
                    continue
                if suite.complete and (task, protocol, amount) not in by_task:
                    continue
                cell = Cell(encoder=encoder, task=task, protocol=protocol, amount=amount, seed=seed)
                if cell not in done:
                    yield cell


def amount_order(amount: Amount) -> tuple[int, float]:
    """Sort nothing before shots before fractions."""
    if amount.shots is not None:
        return 1, amount.shots
    return (2, amount.fraction) if amount.fraction is not None else (0, 0)


def protocol_title(protocol: str) -> str:
    """Return a protocol's name in print."""
    return PROTOCOL_TITLES.get(protocol, protocol)


def _load_split(folder: Path, task: str, classes: list[str]) -> Split:
    try:
        table, one_hot = load_test_split(folder, task, classes)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder / 'tasks' / f'{task}.parquet'} is absent or damaged ({error}).\nEvaluate again into another "
            "run_name."
        ) from error
    return Split(table=table, one_hot=one_hot, patients=table["patient"].tolist())


def _check_shapes(folder: Path, key: Key, seeds: Mapping[int, Outcome], one_hot: Bool[np.ndarray, "n c"]) -> None:
    for seed, outcome in seeds.items():
        if outcome.probabilities.shape != one_hot.shape:
            place = folder / "cells" / key.task / key.protocol / key.amount.name / key.encoder / f"seed{seed}"
            raise UserError(
                f"{place} has probabilities of shape {outcome.probabilities.shape}, but the test split of {key.task} "
                f"is {one_hot.shape}.\nRemove {place} and evaluate again."
            )
