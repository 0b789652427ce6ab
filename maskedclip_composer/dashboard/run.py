"""What a run's folder says of the run. Whatever is missing or damaged is left out: a page is to be made of the rest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maskedclip_composer.dashboard.series import MetricsReader, Series
from maskedclip_composer.dashboard.state import State, count_kills, read_state
from maskedclip_composer.errors import UserError
from maskedclip_composer.times import in_steps


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run.

    Attributes:
        folder: Of its files.
        config: As resolved, without credentials; nested dicts and lists.
        series: Metrics by name.
        step: Steps done.
        epoch: Epochs done.
        total_steps: Of the whole run; None while nothing tells how many steps an epoch has.
        warmup_steps: Of the learning rate; None likewise.
        state: What has become of it.
        kills: How often it was killed and continued.
        faults: Steps that were not finite, oldest first.
        manifest: What its data are.
        provenance: Code, packages, device.
        mlflow: {run_id, tracking_uri, experiment}; empty without MLflow.
        pictures: The newest of each kind.
    """

    folder: Path
    config: Mapping[str, Any]
    series: Mapping[str, Series]
    step: int
    epoch: int
    total_steps: int | None
    warmup_steps: int | None
    state: State
    kills: int
    faults: list[dict[str, Any]]
    manifest: Mapping[str, Any]
    provenance: Mapping[str, Any]
    mlflow: Mapping[str, str]
    pictures: list[Path]

    @property
    def name(self) -> str:
        """Of the run."""
        return str(self.config.get("run_name") or self.folder.absolute().name)

    def setting(self, *keys: str) -> Any:
        """Return a value of the config by its path; None where there is none."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read_run(folder: Path, reader: MetricsReader | None = None, *, state: State | None = None) -> Run:
    """Read a run's folder.

    Args:
        folder: That train.py wrote.
        reader: Of its metrics; one that is kept reads only what was added.
        state: What has become of the run, where the caller knows; None looks at what the folder says.

    Raises:
        UserError: It is no run's folder.
    """
    if not (folder / "config.yaml").is_file() and not (folder / "metrics.jsonl").is_file():
        raise UserError(
            f"{folder} holds neither config.yaml nor metrics.jsonl, so no training run was written there.\n"
            "Give the run's folder, OUTPUT/RUN_NAME."
        )
    reader = reader or MetricsReader(folder / "metrics.jsonl")
    series = reader.read()
    config = _mapping(folder / "config.yaml")
    total = _steps((config.get("trainer") or {}).get("max_duration"), reader.steps_per_epoch)
    return Run(
        folder=folder,
        config=config,
        series=series,
        step=reader.step,
        epoch=reader.epoch,
        total_steps=total,
        warmup_steps=_steps((config.get("optimizer") or {}).get("warmup"), reader.steps_per_epoch),
        state=state or _state(folder, reader.step, total),
        kills=count_kills(folder),
        faults=_lines(folder / "faults.jsonl"),
        manifest=_mapping(folder / "data_manifest.json"),
        provenance=_mapping(folder / "provenance.json"),
        mlflow=_mapping(folder / "mlflow_run.json"),
        pictures=_newest(folder / "pictures"),
    )


def _state(folder: Path, step: int, total: int | None) -> State:
    state = read_state(folder)
    # A folder from before there was the file.
    is_done = total is not None and step >= total and (folder / "encoder.safetensors").is_file()
    return "finished" if state == "unknown" and is_done else state


def _steps(time: Any, steps_per_epoch: int | None) -> int | None:
    text = str(time or "")
    if not text[:-2].isdigit() or (text.endswith("ep") and steps_per_epoch is None):
        return None
    return in_steps(text, steps_per_epoch or 0)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else json.loads(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:  # cut off by a kill
            continue
    return [fault for fault in found if isinstance(fault, dict)]


def _newest(folder: Path) -> list[Path]:
    """Return the newest picture of each kind: `ba0000300.png` and such as `phi-ba0000300.png`."""
    kinds: dict[str, Path] = {}
    for path in sorted(folder.glob("*ba*.png"), key=lambda path: path.stem[-7:]):
        kinds[path.stem.rpartition("ba")[0]] = path
    return list(kinds.values())
