"""The evaluation suites that have looked at a run's encoders, as their folders and their reports tell."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.evaluation.source import training_run

EVALUATED_BY = "evaluated_by.json"


@dataclass(frozen=True, kw_only=True)
class Score:
    """ROC on a task: mean over seeds, with its 95 % interval where the suite has a report."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """An encoder by one protocol with the largest amount of labels.

    Attributes:
        encoder: Its name in the suite.
        source: As it was given, without credentials.
        is_own: Whether it is of this run.
        is_final: Whether it is what the run has ended with, and no checkpoint from before.
        scores: By the tasks' titles.
        val_roc: Mean over tasks and seeds of the best ROC on validation; None where a cell has none.
    """

    encoder: str
    source: str
    is_own: bool
    is_final: bool
    scores: Mapping[str, Score]
    val_roc: float | None

    @property
    def mean_roc(self) -> float:
        """Over tasks."""
        return float(np.mean([score.mean for score in self.scores.values()]))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All encoders of a suite by one protocol.

    Attributes:
        suite: The suite's name.
        key: The protocol's name in the suite.
        protocol: Its title.
        amount: Of labels, the largest.
        tasks: Titles, in the suite's order.
        encoders: That have a score on every task.
        unfinished: Encoders that have not.
        baseline: Which encoder the suite compares with.
        differences: Of ROC to the baseline, by encoder and task: (difference, p after Holm).
        has_report: Whether intervals could be read.
    """

    suite: str
    key: str
    protocol: str
    amount: str
    tasks: list[str]
    encoders: list[Evaluated]
    unfinished: list[str]
    baseline: str
    differences: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    has_report: bool = False


def find_suites(run_folder: Path, given: Sequence[Path] = ()) -> list[Path]:
    """Return the suites to look at: those given, then those that the run's folder names or that lie beside it.

    The newest stand first.

    Raises:
        UserError: A folder that was given holds no suite.
    """
    for folder in given:
        if not (folder / "suite.json").is_file():
            raise UserError(f"--suite {folder} holds no suite.json, so no evaluation was written there.")
    noted = _read(run_folder / EVALUATED_BY)
    names = noted if isinstance(noted, list) else []
    known = [run_folder / str(name) / "suite.json" for name in names]
    known += run_folder.absolute().parent.glob("*/suite.json")
    known = sorted((path for path in known if path.is_file()), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [*given, *(path.parent for path in known)]
    return list({folder.resolve(): folder for folder in found}.values())


def note_suite(run_folder: Path, suite: Path) -> None:
    """Write in the run's folder that a suite has evaluated it, by the way from one to the other."""
    way = os.path.relpath(suite.resolve(), run_folder.resolve())  # both may move together
    noted = _read(run_folder / EVALUATED_BY)
    names = [str(name) for name in noted] if isinstance(noted, list) else []
    if way not in names:
        write_whole(run_folder / EVALUATED_BY, json.dumps([*names, way], indent=2) + "\n")


def read_suite(folder: Path, run_folder: Path) -> list[Comparison]:
    """Return a comparison per protocol; none where the suite has no encoder of this run or nothing is finished."""
    suite = _read(folder / "suite.json")
    try:
        encoders = suite["encoders"]
        if not any(is_of_run(str(facts["source"]), folder, run_folder) for facts in encoders.values()):
            return []
        found = [_compare(folder, run_folder, suite, protocol) for protocol in suite["protocols"]]
        return [comparison for comparison in found if comparison.encoders]
    except (KeyError, TypeError, ValueError, AttributeError):  # a suite of another day, or a damaged one
        return []


def evaluated_runs(folder: Path) -> list[Path]:
    """Return the folders of the pre-training runs whose encoders a suite has, as its sources name them from here."""
    suite = _read(folder / "suite.json")
    facts = suite.get("encoders") if isinstance(suite, dict) else None
    sources = [str(one.get("source", "")) for one in facts.values()] if isinstance(facts, dict) else []
    runs = [run for source in sources if (run := training_run(source)) is not None]
    return list({run.resolve(): run for run in runs}.values())


def is_of_run(source: str, suite: Path, run_folder: Path) -> bool:
    """Tell whether an encoder's source lies in a run's folder.

    A source may be relative to the folder that evaluate.py was started in, which is somewhere above the suite.
    """
    places = [source] if Path(source).is_absolute() else [source, *(str(up / source) for up in suite.resolve().parents)]
    runs = (training_run(place) for place in places if ":" not in source)
    return any(run is not None and run.resolve() == run_folder.resolve() for run in runs)


def is_final(source: str) -> bool:
    """Tell whether a source of a run is what it has ended with: its exported encoder or its newest checkpoint."""
    return not source.endswith(".pt") or Path(source).name.startswith("latest")


def _compare(folder: Path, run_folder: Path, suite: Mapping[str, Any], protocol: str) -> Comparison:
    planned = [cell for cell in suite["planned"] if cell["protocol"] == protocol]
    largest = max((cell["amount"] for cell in planned), key=_amount, default={})
    cells = [cell for cell in planned if cell["amount"] == largest]
    titles = {name: str(facts.get("title") or name) for name, facts in suite["tasks"].items()}
    measured = _report(folder / "report" / "metrics.json", protocol, amount_name(largest))
    tasks = [title for name, title in titles.items() if any(cell["task"] == name for cell in cells)]
    encoders, unfinished = [], []
    for name, facts in suite["encoders"].items():
        own = [cell for cell in cells if cell["encoder"] == name]
        outcomes = [(titles[cell["task"]], _outcome(folder, cell)) for cell in own]
        if {task for task, outcome in outcomes if outcome} != set(tasks) or not all(outcome for _, outcome in outcomes):
            unfinished += [name] if own else []  # means over different tasks say nothing of each other
            continue
        by_task: dict[str, list[Any]] = {}
        for task, outcome in outcomes:
            by_task.setdefault(task, []).append(outcome)
        best = [[max(one["val_roc"]) for one in seeds if one.get("val_roc")] for seeds in by_task.values()]
        has_all = all(len(values) == len(seeds) for values, seeds in zip(best, by_task.values(), strict=True))
        source = str(facts["source"])
        of_run = is_of_run(source, folder, run_folder)
        encoders.append(
            Evaluated(
                encoder=name,
                source=redact_text(source),
                is_own=of_run,
                is_final=of_run and is_final(source),
                scores={task: _score(seeds, measured.get((task, name))) for task, seeds in by_task.items()},
                val_roc=float(np.mean([np.mean(values) for values in best])) if has_all else None,
            )
        )
    return Comparison(
        suite=folder.resolve().name,
        key=protocol,
        protocol=str(suite["protocols"][protocol].get("title") or protocol),
        amount=amount_name(largest),
        tasks=tasks,
        encoders=encoders,
        unfinished=unfinished,
        baseline=str(suite["baseline"]),
        differences=_differences(folder / "report" / "differences.json", protocol, amount_name(largest)),
        has_report=bool(measured),
    )


def amount_name(amount: Mapping[str, Any]) -> str:
    """Return an amount of labels as the suite's folders are called."""
    return Amount(**amount).name


def _amount(amount: Mapping[str, Any]) -> tuple[float, float]:
    return amount.get("fraction") or 0, amount.get("shots") or 0


def _outcome(folder: Path, cell: Mapping[str, Any]) -> dict[str, Any] | None:
    place = folder / "cells" / cell["task"] / cell["protocol"] / amount_name(cell["amount"]) / cell["encoder"]
    outcome = _read(place / f"seed{cell['seed']}" / "outcome.json")
    return outcome if isinstance(outcome, dict) and outcome.get("metrics", {}).get("roc") is not None else None


def _score(seeds: Sequence[Mapping[str, Any]], interval: tuple[float, float] | None) -> Score:
    mean = float(np.mean([one["metrics"]["roc"] for one in seeds]))
    return Score(mean=mean) if interval is None else Score(mean=mean, low=interval[0], high=interval[1])


def _report(path: Path, protocol: str, amount: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the intervals of ROC that the suite's report has, by task and encoder."""
    return {
        (row["Task"], row["Encoder"]): (row["ROC low"], row["ROC high"])
        for row in _rows(path, protocol, amount)
        if row.get("ROC low") is not None and row.get("ROC high") is not None
    }


def _differences(path: Path, protocol: str, amount: str) -> dict[tuple[str, str], tuple[float, float]]:
    return {
        (row["Encoder"], row["Task"]): (row["ROC difference"], row["ROC p Holm"])
        for row in _rows(path, protocol, amount)
        if row.get("ROC difference") is not None and row.get("ROC p Holm") is not None
    }


def _rows(path: Path, protocol: str, amount: str) -> list[dict[str, Any]]:
    rows = _read(path)
    if not isinstance(rows, list):
        return []
    return [row for row in rows if row.get("Protocol") == protocol and row.get("Labels") == amount]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
