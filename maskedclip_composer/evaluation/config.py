"""What `evaluate.py` can be told. Kept apart from the code that runs it, which takes seconds to import."""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from omegaconf import MISSING

from maskedclip_composer.callbacks.config import MlflowConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.evaluation.protocols.config import ProtocolConfig
from maskedclip_composer.evaluation.tasks import TaskConfig

T = TypeVar("T")
P = TypeVar("P", TaskConfig, ProtocolConfig)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Encoders x tasks x protocols x amounts of labels x seeds.

    Attributes:
        checkpoints: Encoders by the names that they get in the tables: a run folder, RUN/latest, an encoder
            .safetensors, a Composer .pt, timm:NAME, random:NAME, or a file of others (`evaluation/encoders/load.py`).
        tasks: Each the name of a yaml in `tasks/` beside the config, the path of one, or a folder of labelled data.
        protocols: Each the name of a yaml in `protocols/` beside the config, or the path of one.
        fractions: Shares of the training split to use, drawn per class, at least one image of each; a smaller one is
            contained in a larger one of the same seed.
        shots: Numbers of training images per class.
        seeds: Repetitions, numbered from 0. A seed draws the share, the head, the order and the augmentation.
        baseline: The encoder that the others are tested against; null takes the first of `checkpoints`.
        data_root: Folder or URL that the tasks' data lie below.
        data_cache: Folder for the shards of a URL or of compressed shards.
        image_size: Side of the input in pixels; null takes the encoder's own, another value resamples its positions.
        batch_size: Images per forward pass and process where features are extracted.
        workers: Processes that decode and augment photographs, per rank.
        save_models: Write the classifier of each fine-tuning and linear-probe cell, of the encoder's size each, to
            `models` of the suite's folder, for `python -m maskedclip_composer predict`.
        update_runs: Write the results into the folders of the pre-training runs that are evaluated, and into their runs
            in MLflow: cards, dashboard, and `suites.json`, which names this suite.
        memory: GiB of decoded photographs that are kept, on each machine.
        output: Folder of all runs.
        run_name: Name of this one; null joins the encoders' names. A suite that was stopped continues under its name.
        tracking: Where MLflow is.
    """

    checkpoints: dict[str, str] = MISSING
    tasks: list[str] = MISSING
    protocols: list[str] = MISSING
    fractions: list[float] = field(default_factory=lambda: [1.0])
    shots: list[int] = field(default_factory=list)
    seeds: int = 5
    baseline: str | None = None
    data_root: str = "shards"
    data_cache: str | None = None
    image_size: int | None = None
    batch_size: int = 64
    workers: int = 4
    save_models: bool = False
    update_runs: bool = True
    memory: float = 4.0
    output: str = "runs"
    run_name: str | None = None
    tracking: MlflowConfig = field(default_factory=MlflowConfig)

    def __post_init__(self) -> None:
        for key in ("checkpoints", "tasks", "protocols"):
            if not getattr(self, key):
                raise UserError(f"evaluate: {key} is empty.\n{_EXAMPLES[key]}")
        for name in self.checkpoints:
            _require_plain(f"checkpoints.{name}", name)
        for key in ("tasks", "protocols", "fractions", "shots"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise UserError(f"evaluate: {key}={values} names something twice.")
        if not self.amounts:
            raise UserError("evaluate: fractions and shots are both empty.\nWrite fractions=[0.1,1.0] or shots=[1,5].")
        if self.baseline is not None and self.baseline not in self.checkpoints:
            raise UserError(
                f"evaluate: baseline={self.baseline} is none of checkpoints: {', '.join(self.checkpoints)}."
            )
        for key in ("seeds", "batch_size"):
            if getattr(self, key) < 1:
                raise UserError(f"evaluate: {key}={getattr(self, key)} must be at least 1.")
        for key in ("workers", "memory"):
            if getattr(self, key) < 0:
                raise UserError(f"evaluate: {key}={getattr(self, key)} must be at least 0.")
        if self.image_size is not None and self.image_size < 1:
            raise UserError(f"evaluate: image_size={self.image_size} must be at least 1.")
        if self.run_name is not None:
            _require_plain("run_name", self.run_name)

    @property
    def amounts(self) -> list[Amount]:
        """Fractions in rising order, then shots."""
        return [Amount(fraction=fraction) for fraction in sorted(self.fractions)] + [
            Amount(shots=shots) for shots in sorted(self.shots)
        ]

    @property
    def folder(self) -> Path:
        """Of this suite."""
        return Path(self.output) / (self.run_name or f"eval-{'-'.join(self.checkpoints)}"[:100])


_EXAMPLES = {
    "checkpoints": "Write checkpoints.NAME=SOURCE, for example checkpoints.mine=runs/maskedclip.",
    "tasks": "Write tasks=[idrid].",
    "protocols": "Write protocols=[linear_probe].",
}


def load_tasks(config: EvaluateConfig, path: str) -> dict[str, TaskConfig]:
    """Read the tasks' yamls by name; `path` is the config's own.

    Raises:
        UserError: There is no such yaml, or it is wrong.
    """
    tasks: dict[str, TaskConfig] = {}
    folder = Path(path).parent / "tasks"
    for entry in config.tasks:
        is_path = "/" in entry or not (folder / f"{entry}.yaml").is_file()
        if not entry.endswith(".yaml") and ("://" in entry or (is_path and Path(entry).is_dir())):
            name = entry.rstrip("/").rpartition("/")[2]
            _add(tasks, name, TaskConfig(title=name, data=entry if "://" in entry else str(Path(entry).resolve())))
        else:
            _add(tasks, Path(entry).stem, _load(TaskConfig, entry, folder, "tasks"))
    return tasks


def load_protocols(config: EvaluateConfig, path: str) -> dict[str, ProtocolConfig]:
    """Read the protocols' yamls by name; `path` is the config's own.

    Raises:
        UserError: There is no such yaml, or it is wrong.
    """
    protocols: dict[str, ProtocolConfig] = {}
    for entry in config.protocols:
        _add(protocols, Path(entry).stem, _load(ProtocolConfig, entry, Path(path).parent / "protocols", "protocols"))
    return protocols


def _add(parts: dict[str, P], name: str, part: P) -> None:
    _require_plain(name, name)
    same = next((other for other, known in parts.items() if known.title == part.title), None)
    if same is not None and same != name:
        raise UserError(f"evaluate: {same} and {name} have the same title {part.title!r}.\nGive one of them another.")
    if name in parts:
        raise UserError(f"evaluate: two tasks or protocols are called {name}.\nRename one of the files.")
    parts[name] = part


def _load(cls: type[T], entry: str, folder: Path, key: str) -> T:
    path = Path(entry) if entry.endswith(".yaml") else folder / f"{entry}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        close = difflib.get_close_matches(entry, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known) or 'none'}."
        raise UserError(f"evaluate: {key}: {path} does not exist.\n{hint}")
    return load_config(cls, str(path), [])


def _require_plain(key: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UserError(f"evaluate: {key}={name!r} must be a plain name: it names a folder and a row of the tables.")
