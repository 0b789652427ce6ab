"""Whole training runs for the drill: started through train.py in forked processes, recorded step by step, killed."""

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.core import Callback, Event, State
from composer.loggers import Logger
from composer.utils import dist

import maskedclip_composer.build
import train
from tests import tiny
from tests.small_run import DEBUG, debug_overrides, write_shards

# 33 unpaired and 19 paired photographs in steps of 8 and 8: an epoch has 4 steps, and the paired ones begin again amid
# it. Dropout, so that its draws are rehearsed too. Checkpoints come amid an epoch and at its end.
SETTINGS = (
    "text_encoder.dropout=0.1",
    "checkpoint.interval=3ba",
    "trainer.max_duration=10ba",
    "tracking.mlflow=false",
    "tracking.picture_interval=null",
)
GRACE = 10.0  # seconds that ranks have to notice that one is gone; then they are killed, as the launcher does

Prepare = Callable[[Trainer], None]


class Recorder(Callback):
    """Appends to a file what a rank trains on in each step.

    Its sample ids, digests of each sample's crop and mask, and one digest of all that was drawn for the step.
    """

    def __init__(self, path: Path, start: int):
        self.path, self.start = path, start

    def batch_start(self, state: State, logger: Logger) -> None:
        """Write the step's line, so that it outlives the process. After `StepSeeding`, whose draws it covers."""
        digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
        for part in state.batch.values():
            for name, tensor in sorted(part.items()):
                digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        ids = {kind: part["sample_id"].tolist() for kind, part in state.batch.items()}
        views = {
            kind: [_digest(image, noise) for image, noise in zip(part["image"], part["noise"], strict=True)]
            for kind, part in state.batch.items()
        }
        line = {"start": self.start, "step": state.timestamp.batch.value, "rank": dist.get_global_rank(), "ids": ids}
        line |= {"views": views}
        with self.path.open("a") as file:
            file.write(json.dumps(line | {"digest": digest.hexdigest()}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()[:12]


class At(Callback):
    """Does something at an event of the step whose number of finished steps is `batch`."""

    def __init__(self, event: Event, batch: int, action: Callable[[], object]):
        self.event, self.batch, self.action = event, batch, action

    def run_event(self, event: Event, state: State, logger: Logger) -> None:
        """Act, or do nothing."""
        if event == self.event and state.timestamp.batch.value == self.batch:
            self.action()


def die() -> None:
    """Kill this process as the kernel or a batch system would: nothing is flushed or closed."""
    os.kill(os.getpid(), signal.SIGKILL)


class Runs:
    """Training runs on the same few photographs, each in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.starts = 0
        self.shards = write_shards(folder / "shards")
        tower = folder / "text"
        tower.mkdir()
        self.text_tower = tiny.save_text_tower(tower)

    def train(self, name: str, *overrides: str, ranks: int = 1, prepare: Prepare | None = None) -> list[int]:
        """Start or continue a run and wait for its end; return the exit status of each rank, -9 where it was killed."""
        return finish(self.start(name, *overrides, ranks=ranks, prepare=prepare))

    def start(self, name: str, *overrides: str, ranks: int = 1, prepare: Prepare | None = None) -> list[ForkProcess]:
        """Start or continue a run."""
        base = debug_overrides(self.shards, self.text_tower, self.folder / name)
        arguments = [DEBUG, *base, *SETTINGS, *overrides]
        port = free_port()
        self.starts += 1
        processes = []
        for rank in range(ranks):
            process = multiprocessing.get_context("fork").Process(
                target=self._run, args=(self.folder / name, arguments, rank, ranks, port, prepare)
            )
            process.start()
            processes.append(process)
        return processes

    def _run(
        self, output: Path, arguments: list[str], rank: int, ranks: int, port: int, prepare: Prepare | None
    ) -> None:
        output.mkdir(parents=True, exist_ok=True)
        with (output / f"rank{rank}.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_PORT": str(port)}
        build = maskedclip_composer.build.build_trainer

        def build_with_more(config: Any) -> Trainer:
            trainer = build(config)
            trainer.state.callbacks.append(Recorder(output / f"rank{rank}.steps", self.starts))
            if prepare is not None:
                prepare(trainer)
            return trainer

        maskedclip_composer.build.build_trainer = build_with_more  # only in this process, which ends with the run
        torch.set_num_threads(1)
        sys.exit(train.main(arguments))

    def log(self, name: str, rank: int = 0) -> str:
        """Return what a run has printed, over all its starts."""
        return (self.folder / name / f"rank{rank}.log").read_text()

    def steps(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of all ranks' recorders, but for those that were cut off."""
        files = sorted((self.folder / name).glob("rank*.steps"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines() if line.endswith("}")]

    def run_folder(self, name: str) -> Path:
        """Return the folder of the run."""
        return self.folder / name / "debug"


def finish(processes: Iterable[ForkProcess]) -> list[int]:
    """Wait for all ranks; when one fails, kill the rest after a grace."""
    processes = list(processes)
    deadline = None
    while any(process.exitcode is None for process in processes):
        if deadline is None and any(process.exitcode for process in processes):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.02)
    return [process.exitcode or 0 for process in processes]


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
