"""The finished cells of a suite, put together by seeds, and those that are missing."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.cells import Cell, Outcome, Suite, load_outcomes, load_suite, load_test_split
from maskedclip_composer.evaluation.kinds import Amount


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
        missing: Planned cells without an outcome.
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

    def protocol_title(self, protocol: str) -> str:
        """Return its name in print."""
        return self.suite.protocols[protocol].get("title") or protocol

    def is_finetuning(self, protocol: str) -> bool:
        """Tell whether the encoder's own weights are trained."""
        return self.suite.protocols[protocol].get("finetune") is not None

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
        if cell.task in suite.tasks and cell.encoder in suite.encoders and cell.protocol in suite.protocols:
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
    done = set(seen)
    missing = [cell for cell in suite.planned if cell not in done]
    return Results(folder=folder, suite=suite, groups=dict(groups), splits=splits, missing=missing)


def amount_order(amount: Amount) -> tuple[int, float]:
    """Sort nothing before shots before fractions."""
    if amount.shots is not None:
        return 1, amount.shots
    return (2, amount.fraction) if amount.fraction is not None else (0, 0)


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
