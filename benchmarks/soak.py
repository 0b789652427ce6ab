"""Whether a long run leaks: memory, open files, shared memory, threads, disk and step time against the step.

OMP_NUM_THREADS=1 python benchmarks/soak.py yamls/debug.yaml --steps 4000 --tasks data/demo/downstream   # make soak

One process trains the recipe with checkpoints, pictures, MLflow and loader processes, and evaluates its newest
checkpoint every so many steps. A slope is the median of the slopes between all pairs of records (Theil and Sen), which
single jumps do not move, after the first third, in which caches fill. It fails where the whole 95 % interval of a slope
is above its limit.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from composer.core import Callback, State
from composer.loggers import Logger
from rounds import cpu_seconds, machine, print_table
from scipy.stats import theilslopes

from maskedclip_composer.build import build_trainer
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.evaluation.config import EvaluateConfig, load_protocols, load_tasks
from maskedclip_composer.evaluation.suite import evaluate

EVALUATION = "yamls/evaluate.yaml"

WARM = 1 / 3  # share of the records that are not fitted


@dataclass(frozen=True)
class Series:
    """One thing that must not grow.

    Attributes:
        unit: For the table.
        limit: Largest slope per 1000 steps that is none, in `unit`.
        read: What it is now.
    """

    unit: str
    limit: float
    read: Callable[[psutil.Process], float]


def _of_all(process: psutil.Process, read: Callable[[psutil.Process], float]) -> float:
    """Add up over the process and what it has started."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += read(one)
    return total


def _segments(process: psutil.Process) -> float:
    """Count the shared memory that the processes have mapped, each segment once: other runs have theirs."""
    paths: set[str] = set()
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            paths |= {mapped.path for mapped in one.memory_maps() if mapped.path.startswith("/dev/shm/")}
    return len(paths)


SERIES = {
    "resident memory, trainer": Series("MiB", 4.0, lambda process: process.memory_info().rss / 2**20),
    "private memory, loader processes": Series(
        "MiB",
        4.0,
        lambda process: sum(child.memory_full_info().uss for child in process.children(recursive=True)) / 2**20,
    ),
    "open files, all processes": Series("files", 0.5, lambda process: _of_all(process, lambda one: one.num_fds())),
    "threads, trainer": Series("threads", 0.5, lambda process: process.num_threads()),
    "processes": Series("processes", 0.1, lambda process: len(process.children(recursive=True))),
    "shared memory, all processes": Series("segments", 0.1, _segments),
    "temporary files": Series("files", 0.5, lambda process: sum(1 for _ in Path(tempfile.gettempdir()).iterdir())),
}
STEP_TIME, STEP_TIME_LIMIT = "CPU time of a step", 0.05  # the limit is a share of the median


@dataclass
class Records:
    """What was read, by series, and at which steps."""

    steps: list[int] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in (*SERIES, STEP_TIME)})


class Soak(Callback):
    """Reads all series every `interval` steps; evaluates every `evaluate_every` steps, outside of the step times."""

    def __init__(self, interval: int, evaluate_every: int, evaluation: Callable[[int], None]):
        self.interval = interval
        self.evaluate_every = evaluate_every
        self.evaluation = evaluation
        self.records = Records()
        self._process = psutil.Process()
        self._begin = 0.0

    def batch_end(self, state: State, logger: Logger) -> None:
        """Read, then evaluate: checkpoints come after this event, so the evaluation is of an earlier one."""
        step = int(state.timestamp.batch)
        if step % self.interval == 0:
            now = cpu_seconds()
            if self._begin:
                self.records.steps.append(step)
                for name, series in SERIES.items():
                    self.records.values[name].append(series.read(self._process))
                self.records.values[STEP_TIME].append(1000 * (now - self._begin) / self.interval)
        if step % self.evaluate_every == 0:
            self.evaluation(step)
        if step % self.interval == 0:
            self._begin = cpu_seconds()


def report(records: Records) -> bool:
    """Print the slopes; return whether none is above its limit."""
    first = int(len(records.steps) * WARM)
    steps = records.steps[first:]
    rows, flat = [], True
    for name, all_values in records.values.items():
        values = all_values[first:]
        slope, _, low, high = 1000 * np.array(theilslopes(values, steps))
        middle = sorted(values)[len(values) // 2]
        unit, limit = ("ms", STEP_TIME_LIMIT * middle) if name == STEP_TIME else (SERIES[name].unit, SERIES[name].limit)
        grows = low > limit
        flat &= not grows
        rows.append(
            [
                name,
                f"{values[0]:.1f}",
                f"{values[-1]:.1f}",
                unit,
                f"{slope:+.2f} ({low:+.2f} to {high:+.2f})",
                f"{limit:.2f}",
                "GROWS" if grows else "flat",
            ]
        )
    print_table(
        ["what", f"at step {steps[0]}", f"at step {steps[-1]}", "unit", "per 1000 steps (95 %)", "limit", ""], rows
    )
    return flat


def main() -> int:
    """Train, read, print; return 1 where something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a config of train.py")
    parser.add_argument("overrides", nargs="*", help="key=value, as of train.py")
    parser.add_argument("--steps", type=int, default=4000, help="%(default)s")
    parser.add_argument("--interval", type=int, default=25, help="steps between two records (%(default)s)")
    parser.add_argument("--checkpoints", type=int, default=50, help="steps between two checkpoints (%(default)s)")
    parser.add_argument("--evaluate-every", type=int, default=500, help="steps (%(default)s)")
    parser.add_argument("--tasks", required=True, help="of the evaluation, as of evaluate.py")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        tempfile.tempdir = f"{name}/temporary"  # its own, to count what is left there
        Path(tempfile.tempdir).mkdir()
        overrides = [
            f"output={name}/runs",
            "run_name=soak",
            f"trainer.max_duration={args.steps}ba",
            f"checkpoint.interval={args.checkpoints}ba",
            f"tracking.picture_interval={args.evaluate_every}ba",
            "data.num_workers=2",
            "trainer.progress_bar=false",
            *args.overrides,
        ]
        trainer = build_trainer(load_config(TrainConfig, args.config, overrides))

        def evaluation(step: int) -> None:
            overrides = [
                f"checkpoints.soak={name}/runs/soak/checkpoints/latest-rank0.pt",
                f"tasks=[{args.tasks}]",
                "protocols=[linear_probe]",
                "fractions=[1.0]",
                "seeds=1",
                "workers=0",
                f"output={name}/runs",
                f"run_name=evaluation{step}",
            ]
            config = load_config(EvaluateConfig, EVALUATION, overrides)
            with contextlib.redirect_stdout(io.StringIO()):
                evaluate(config, load_tasks(config, EVALUATION), load_protocols(config, EVALUATION))

        soak = Soak(args.interval, args.evaluate_every, evaluation)
        trainer.state.callbacks.append(soak)
        begin = time.monotonic()
        trainer.fit()
        minutes = (time.monotonic() - begin) / 60
        trainer.close()
        print(
            f"Soak: {args.config}, {args.steps} steps in {minutes:.1f} minutes, a checkpoint every {args.checkpoints}, "
            f"an evaluation every {args.evaluate_every} steps, {machine()}.\n"
        )
        return 0 if report(soak.records) else 1


if __name__ == "__main__":
    sys.exit(main())
