"""Which evaluation suites have looked at a run's encoders, and which of their encoders are the run's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskedclip_composer.cards.suites import joined, remember, remembered
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.source import training_run


def find_suites(run_folder: Path, given: Sequence[Path] = ()) -> list[Path]:
    """Return the suites to look at: those given, then those that the run's folder names or that lie beside it.

    The newest stand first.

    Raises:
        UserError: A folder that was given holds no suite.
    """
    for folder in given:
        if not (folder / "suite.json").is_file():
            raise UserError(f"--suite {folder} holds no suite.json, so no evaluation was written there.")
    known = [folder / "suite.json" for folder in remembered(run_folder)]
    known += run_folder.absolute().parent.glob("*/suite.json")
    known = sorted((path for path in known if path.is_file()), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [*given, *(path.parent for path in known)]
    return list({folder.resolve(): folder for folder in found}.values())


def note_suite(run_folder: Path, suite: Path) -> None:
    """Note in the run's folder that a suite has evaluated it, as its cards do."""
    remember(run_folder, joined(remembered(run_folder), [suite]))


def evaluated_runs(folder: Path) -> list[Path]:
    """Return the folders of the pre-training runs whose encoders a suite has, as its sources name them from here."""
    suite = read_json(folder / "suite.json")
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


def read_json(path: Path) -> Any:
    """Read a file of a suite; None where it is absent or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
