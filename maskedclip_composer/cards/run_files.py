"""What the files of a run's folder say; what is absent is noted with the reason."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from maskedclip_composer.errors import UserError

CONFIG, ENCODER, PARAMETERS = "config.yaml", "encoder.safetensors", "parameters.json"
"""`parameters.json`: how many parameters each part of the network has; written when training ends."""

_JSON = {
    "manifest": ("data_manifest.json", "the run was recorded before there was one, or has not begun its first step"),
    "provenance": ("provenance.json", "the run has not begun its first step"),
    "parameters": (PARAMETERS, "the run has not ended yet, or was made before cards were written"),
}


@dataclass(frozen=True, kw_only=True)
class EncoderFile:
    """`encoder.safetensors`.

    Attributes:
        sha256: Of the file.
        bytes: Its size.
        parameters: In it.
        width: Of a feature; None where the file is of another layout.
        said: What was written into its header: name, image_size, patch_size, depth, mean, std, trained.
    """

    sha256: str
    bytes: int
    parameters: int
    width: int | None
    said: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`metrics.jsonl`: the first and the last value of each metric, and the optimiser steps that are done."""

    steps: int
    first: dict[str, float]
    last: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run as its folder tells it.

    Attributes:
        folder: Of the run.
        config: As resolved, without credentials.
        absent: Why a file is not there or cannot be read, by its name.
        manifest: Streams and prompt pack; None where the file is absent, as with all below.
        provenance: Commit, versions, device.
        parameters: By part of the network.
        origin: The weights that the image encoder started from; None also where it started from none.
        encoder: The exported image encoder.
        measured: What training measured.
        faults: Lines of `faults.jsonl`; none where there is no such file, which is written at the first fault.
    """

    folder: Path
    config: dict[str, Any]
    absent: dict[str, str]
    manifest: dict[str, Any] | None
    provenance: dict[str, Any] | None
    parameters: dict[str, int] | None
    origin: dict[str, Any] | None
    encoder: EncoderFile | None
    measured: Measured | None
    faults: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Of the run."""
        return str(self.config.get("run_name") or self.folder.absolute().name)

    def section(self, *keys: str) -> dict[str, Any]:
        """Return a part of the config as a mapping; empty where it is absent."""
        part: Any = self.config
        for key in keys:
            part = part.get(key) if isinstance(part, dict) else None
        return part if isinstance(part, dict) else {}

    @property
    def objectives(self) -> dict[str, dict[str, Any]]:
        """The objectives that are on, with their settings."""
        return {name: part for name, part in self.section("objectives").items() if isinstance(part, dict)}

    @property
    def streams(self) -> dict[str, dict[str, Any]]:
        """`paired` and `unpaired`, where they are there, with their settings."""
        return {name: part for name in ("paired", "unpaired") if (part := self.section("data", name))}


def read_run(folder: Path) -> RunFiles:
    """Read a run's folder.

    Raises:
        UserError: It is no run's folder.
    """
    config = _config(folder)
    absent: dict[str, str] = {}
    read = {name: _json(folder / file, why, absent) for name, (file, why) in _JSON.items()}
    origin = _json(folder / "origin.json", "the run started from no weights", absent)
    return RunFiles(
        folder=folder,
        config=config,
        absent=absent,
        origin=origin,
        encoder=_encoder(folder / ENCODER, absent),
        measured=_measured(folder / "metrics.jsonl", absent),
        faults=list(_lines(folder / "faults.jsonl")),
        **read,
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} holds no {CONFIG}, so it is no run.\nGive runs/NAME, the folder of a run.")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({error}).\nRestore it from MLflow, which has a copy.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is no config of a run.\nGive runs/NAME, the folder of a run.")
    return config


def _json(path: Path, why: str, absent: dict[str, str]) -> dict[str, Any] | None:
    if not path.is_file():
        absent[path.name] = f"{path.name} is not there: {why}"
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no mapping")
    except (OSError, ValueError) as error:
        absent[path.name] = f"{path.name} is damaged ({error})"
        return None
    return content


def _encoder(path: Path, absent: dict[str, str]) -> EncoderFile | None:
    if not path.is_file():
        absent[path.name] = f"{path.name} is not there: it is written when training ends"
        return None
    try:
        with safe_open(str(path), framework="np") as file:
            said = dict(file.metadata() or {})
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  it is no mapping
        with path.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    except (OSError, SafetensorError) as error:
        absent[path.name] = f"{path.name} is damaged ({error})"
        return None
    return EncoderFile(
        sha256=sha256,
        bytes=path.stat().st_size,
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        width=shapes["norm.weight"][0] if "norm.weight" in shapes else None,
        said=said,
    )


def _measured(path: Path, absent: dict[str, str]) -> Measured | None:
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for line in _lines(path):
        last.update({name: value for name, value in line.items() if isinstance(value, int | float)})
        first = last | first
    if not last:
        absent[path.name] = f"{path.name} is not there or holds no step"
        return None
    return Measured(steps=int(last.get("batch", 0)), first=first, last=last)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a JSON Lines file; the one that was cut off by a kill is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content


def count_faults(faults: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """Return what was done about faults, how often, and at which steps."""
    steps: dict[str, list[str]] = {}
    for fault in faults:
        steps.setdefault(str(fault.get("action", "not recorded")), []).append(str(fault.get("step", "not recorded")))
    counts = Counter({action: len(found) for action, found in steps.items()})
    shown = 10
    return [
        (action, count, ", ".join(steps[action][:shown]) + (", ..." if count > shown else ""))
        for action, count in counts.most_common()
    ]
