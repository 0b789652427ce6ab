"""Which config, code, packages and data a run was made with."""

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from composer.callbacks import CheckpointSaver
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from omegaconf import OmegaConf

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.flatten import flatten
from maskedclip_composer.callbacks.redaction import redact
from maskedclip_composer.callbacks.registry import UPLOAD_SECONDS, register_version
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.export.origin import ORIGIN_FILE, Origin

PACKAGES = [
    "maskedclip-composer",
    "mosaicml",
    "mosaicml-streaming",
    "torch",
    "torchvision",
    "xformers",
    "timm",
    "transformers",
    "mlflow",
    "numpy",
]


class RunRecord(Callback):
    """Record the resolved config, the code's version, package versions, the data manifest and the newest checkpoint.

    Written to `config.yaml`, `data_manifest.json`, `provenance.json` and, for a run that started from other weights,
    `origin.json` of the run folder and sent to MLflow as files, parameters and tags; without credentials. It happens at
    the first step, when Composer has accepted the run folder.

    Args:
        run_folder: The run's folder.
        resolved_config: Nested dicts and lists.
        manifest: What the data are, as JSON.
        documents: Writes what the data say of themselves to a folder and returns the files; see `data/documents.py`.
        tracker: Takes files and tags; None when MLflow is off.
        origin: Which weights the image encoder started from, if any.
        register: Model of MLflow's registry that the finished run becomes a version of; None for none.
    """

    def __init__(
        self,
        *,
        run_folder: Path,
        resolved_config: dict[str, Any],
        manifest: dict[str, Any],
        documents: Callable[[Path], list[Path]],
        tracker: FaultTolerantMLFlowLogger | None,
        origin: Origin | None = None,
        register: str | None = None,
    ):
        self.run_folder = run_folder
        self.config = redact(resolved_config)
        self.manifest = redact(manifest)
        self.documents = documents
        self.tracker = tracker
        self.origin = {} if origin is None else origin.plain()
        self.register = register
        self._is_written = dist.get_global_rank() != 0
        self._checkpoint: str | None = None

    def batch_start(self, state: State, logger: Logger) -> None:
        """Write the record at the first step, and note a checkpoint that the last step has left."""
        if not self._is_written:
            self._write(logger)
            self._is_written = True
        self._note_checkpoint(state)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Note the last checkpoint, and have the encoder registered when everything else is delivered."""
        self._note_checkpoint(state)
        if self.tracker is not None and self.register is not None and dist.get_global_rank() == 0:
            record = partial(
                register_version,
                name=self.register,
                encoder=self.run_folder / "encoder.safetensors",
                card=self.run_folder / "model_card.md",
                tags=self._tags() | {"run_name": state.run_name, "step": str(state.timestamp.batch.value)},
            )
            self.tracker.add_at_end(record, patience=UPLOAD_SECONDS)

    def _write(self, logger: Logger) -> None:
        provenance = git_state(Path(__file__).parent) | {"versions": package_versions(), "device": device_name()}
        texts = {
            "config.yaml": OmegaConf.to_yaml(OmegaConf.create(self.config)),
            "data_manifest.json": json.dumps(self.manifest, indent=2),
            "provenance.json": json.dumps(provenance, indent=2),
        }
        texts |= {ORIGIN_FILE: json.dumps(self.origin, indent=2)} if self.origin else {}
        for name, text in texts.items():
            write_whole(self.run_folder / name, text)
            if self.tracker is not None:
                self.tracker.log_artifact(self.run_folder / name)
        data = self.run_folder / "data"
        for document in self.documents(data):
            if self.tracker is not None:
                self.tracker.log_artifact(document, document.parent.relative_to(self.run_folder).as_posix())
        logger.log_hyperparameters(flatten(self.config) | flatten(provenance) | flatten(self.origin, "origin."))
        if self.tracker is not None:
            # MLflow's own tags: its pages show the commit beside the source.
            source = {"mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL"}
            commit = {"mlflow.source.git.commit": str(provenance["git_commit"])} if provenance["git_commit"] else {}
            self.tracker.set_tags(self._tags() | source | commit)

    def _tags(self) -> dict[str, str]:
        """Return what tells runs apart in MLflow's table; a tag of the user's own under one of these names stays."""
        objectives = [name for name, value in (self.config.get("objectives") or {}).items() if value is not None]
        bridge = (self.config.get("bridge") or {}).get("depth")
        streams = {name: part for name, part in self.manifest.items() if isinstance(part, dict) and "samples" in part}
        tags = {
            "objectives": " + ".join(objectives) + (f", bridge {bridge}" if bridge else ""),
            "parallelism": f"{self.config.get('parallelism') or 'ddp'} x {dist.get_world_size()}",
            "data": ", ".join(f"{name} {part['samples']} ({part.get('path')})" for name, part in streams.items()),
        }
        own = (self.config.get("tracking") or {}).get("tags") or {}
        return {name: value for name, value in tags.items() if value and name not in own}

    def _note_checkpoint(self, state: State) -> None:
        """Name the newest checkpoint in the tag `checkpoint/latest`; the saver runs after all other callbacks."""
        saved = [
            name for saver in state.callbacks if isinstance(saver, CheckpointSaver) for name in saver.saved_checkpoints
        ]
        if self.tracker is not None and saved and saved[-1] != self._checkpoint:
            self._checkpoint = saved[-1]
            path = Path(saved[-1]).absolute()
            # A sharded checkpoint is a folder; the saver names this rank's file in it.
            path = path.parent if path.suffix == ".distcp" else path
            self.tracker.set_tags({"checkpoint/latest": str(path)})


def git_state(folder: Path) -> dict[str, str | bool | None]:
    """Return `git_commit` and `git_dirty` of the checkout that `folder` is tracked in; None where there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()

    try:
        # An installed package may lie inside somebody else's repository.
        git("ls-files", "--error-unmatch", ".")
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def package_versions() -> dict[str, str]:
    """Return Python's version and that of each package that decides results."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def device_name() -> str:
    """Return the first device's name with the number of processes."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU {platform.machine()}"
    return f"{dist.get_world_size()} x {name}"
