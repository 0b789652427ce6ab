"""From a sweep file to the commands that it stands for, each of them checked before the first is started."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.config import EvaluateConfig, load_protocols, load_tasks
from maskedclip_composer.run_settings import recorded_settings, refuse_other_settings
from maskedclip_composer.sweep.config import EVALUATION, SweepConfig
from maskedclip_composer.sweep.sections import refuse_idle, shared_with


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command of a sweep.

    Attributes:
        name: Of the run, or `evaluation`.
        folder: That the command writes to.
        log: File that takes what the command prints.
        script: train.py or evaluate.py.
        arguments: Of the script.
        ranks: Processes that it is run in.
        is_done: Whether there is nothing left to do.
    """

    name: str
    folder: Path
    log: Path
    script: str
    arguments: tuple[str, ...]
    ranks: int
    is_done: bool = False

    @property
    def command(self) -> list[str]:
        """What is started: this Python, through Composer's launcher where there are several ranks."""
        launcher = ["-m", "composer.cli", "-n", str(self.ranks)] if self.ranks > 1 else []
        return [sys.executable, *launcher, self.script, *self.arguments]

    def __str__(self) -> str:
        launcher = ["composer", "-n", str(self.ranks)] if self.ranks > 1 else ["python"]
        return shlex.join([*launcher, self.script, *self.arguments])


def plan(sweep: SweepConfig) -> list[Job]:
    """Return the commands: one for each run, and the evaluation of all of them.

    Raises:
        UserError: Recipes, tasks or protocols are wrong, or a run was started with other settings; all such mistakes
            in one message.
    """
    refuse_idle(sweep)
    jobs, mistakes = [], []
    for name in sweep.runs:
        try:
            jobs.append(_training(sweep, name))
        except UserError as error:
            mistakes.append(f"runs.{name}: {error}")
    if sweep.evaluate is not None:
        try:
            jobs.append(_evaluation(sweep))
        except UserError as error:
            mistakes.append(f"evaluate: {error}")
    if mistakes:
        raise UserError("\n\n".join(mistakes))
    return jobs


def _training(sweep: SweepConfig, name: str) -> Job:
    run = sweep.runs[name]
    # The log is no terminal; a bar would fill it.
    own = [f"run_name={name}", f"output={sweep.folder}", "trainer.progress_bar=false"]
    overrides = [*own, *shared_with(sweep, run), *run.overrides]
    config = load_config(TrainConfig, run.recipe, overrides)
    folder = config.run_folder
    if (folder / "encoder.safetensors").exists() or (folder / "checkpoints" / "latest-rank0.pt").exists():
        refuse_other_settings(config)
    return _job(sweep, name, "train.py", [run.recipe, *overrides], is_done=is_finished(config))


def is_finished(config: TrainConfig) -> bool:
    """Tell whether the run in this config's folder has reached the end that the config asks for.

    A process that trains writes `config.yaml` at its first step and the encoder at its end.
    """
    record, encoder = config.run_folder / "config.yaml", config.run_folder / "encoder.safetensors"
    recorded = recorded_settings(config.run_folder)
    return (
        recorded is not None
        and encoder.is_file()
        and encoder.stat().st_mtime_ns >= record.stat().st_mtime_ns
        and recorded["trainer.max_duration"] == str(config.trainer["max_duration"])
    )


def _evaluation(sweep: SweepConfig) -> Job:
    assert sweep.evaluate is not None
    checkpoints = [f"checkpoints.{name}={sweep.folder / name}" for name in sweep.runs]
    overrides = [*checkpoints, f"output={sweep.folder}", f"run_name={EVALUATION}", *sweep.evaluate.overrides]
    path = sweep.evaluate.config
    config = load_config(EvaluateConfig, path, overrides)
    load_tasks(config, path)
    load_protocols(config, path)
    return _job(sweep, EVALUATION, "evaluate.py", [path, *overrides])


def _job(sweep: SweepConfig, name: str, script: str, arguments: list[str], *, is_done: bool = False) -> Job:
    if not Path(script).is_file():
        raise UserError(f"{script} is not in this folder.\nStart a sweep where {script} is: in the project's folder.")
    return Job(
        name=name,
        folder=sweep.folder / name,
        log=sweep.folder / f"{name}.log",
        script=script,
        arguments=tuple(arguments),
        ranks=sweep.ranks,
        is_done=is_done,
    )
