"""Train the recipes of a sweep as processes of their own, and evaluate them."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.sweep.config import SweepConfig

LOG = "sweep.log"
LAST_LINES = 12


def commands(sweep: SweepConfig) -> dict[str, list[str]]:
    """Return the command of each run, and of the evaluation as `evaluation`."""
    result = {name: [*_launcher(sweep.ranks), "train.py", *sweep.arguments(name)] for name in sweep.runs}
    if sweep.evaluate is not None:
        checkpoints = [f"checkpoints.{name}={Path(sweep.output) / name}" for name in sweep.runs]
        names = [f"output={sweep.output}", "run_name=evaluation"]
        result["evaluation"] = [
            *_launcher(1),
            "evaluate.py",
            sweep.evaluate.config,
            *checkpoints,
            *sweep.evaluate.overrides,
            *names,
        ]
    return result


def run_sweep(sweep: SweepConfig) -> list[str]:
    """Train what is not finished, then evaluate; a recipe that fails does not stop the others.

    Returns:
        Names of what failed. Without an encoder of every recipe nothing is evaluated.

    Raises:
        UserError: A recipe is wrong, or a finished run of another config is in the way. Nothing was started.
    """
    configs = {name: sweep.resolved(name) for name in sweep.runs}
    finished = {name for name, config in configs.items() if is_finished(config)}
    todo = commands(sweep)
    failed: list[str] = []
    for number, (name, command) in enumerate(todo.items(), start=1):
        head = f"[{number}/{len(todo)}] {name}"
        if name in finished:
            print(f"{head}: finished before", flush=True)
            continue
        if name == "evaluation" and failed:
            print(f"{head}: left out, because {', '.join(failed)} failed", flush=True)
            continue
        log = Path(sweep.output) / name / LOG
        print(f"{head}: {log}", flush=True)
        begin = time.monotonic()
        status = _run(command, log)
        print(
            f"{head}: {'done' if status == 0 else f'failed ({status})'}, {time.monotonic() - begin:.0f} s", flush=True
        )
        if status != 0:
            failed.append(name)
            print("".join(f"    {line}\n" for line in log.read_text(errors="replace").splitlines()[-LAST_LINES:]))
    return failed


def is_finished(config: TrainConfig) -> bool:
    """Tell whether a run has written its encoder.

    Raises:
        UserError: It has, and its config was another one.
    """
    if not (config.run_folder / "encoder.safetensors").is_file():
        return False
    record = config.run_folder / "config.yaml"
    if record.is_file() and load_config(TrainConfig, str(record), []) != config:
        raise UserError(
            f"{config.run_folder} holds a finished run of another config ({record}).\n"
            "Move it away, or give the sweep another output."
        )
    return True


def _launcher(ranks: int) -> list[str]:
    if ranks == 1:
        return [sys.executable]
    return [str(Path(sys.executable).with_name("composer")), "-n", str(ranks)]


def _run(command: Sequence[str], log: Path) -> int:
    """Run a command with its output in a file; what an interrupted child leaves is for the next sweep to go on with."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
