"""Runs that are killed and continued: the same samples, draws and weights as if nothing had happened."""

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.core import Event
from torch.distributed.checkpoint import FileSystemWriter

from maskedclip_composer.callbacks import whole_checkpoints
from tests.drill.compare import same
from tests.drill.fault import Fault, Seen
from tests.drill.runs import At, Prepare, Runs, die

KILLED = -signal.SIGKILL
SAME = "the same command goes on; samples, draws and weights bit for bit as without the kill"


def at(event: Event, batch: int, *, rank: int | None = None) -> Prepare:
    """Kill every rank, or one, at an event of a step."""

    def prepare(trainer: Trainer) -> None:
        if rank is None or rank == int(os.environ["RANK"]):
            trainer.state.callbacks.append(At(event, batch, die))

    return prepare


def killed(folder: Path, kills: Sequence[Prepare], *overrides: str, ranks: int = 1) -> Seen:
    """Kill a run again and again, let the last start come to its end, and compare it with one that was left alone."""
    runs = Runs(folder)
    whole = runs.train("whole", *overrides, ranks=ranks)
    for number, kill in enumerate(kills):
        status = runs.train("broken", *overrides, ranks=ranks, prepare=kill)
        if KILLED not in status:
            return Seen(what=f"kill {number} did not happen: {status} {runs.log('broken')[-300:]}", kept=False)
    end = runs.train("broken", *overrides, ranks=ranks)
    if any(whole) or any(end):
        return Seen(what=f"exit {whole} {end}: {runs.log('broken')[-500:]}", kept=False)
    return same(runs, "whole", "broken")


def while_writing(folder: Path, moments: Sequence[Callable[[], None]], *overrides: str, ranks: int = 1) -> Seen:
    """Kill a run in each moment of the writing of a checkpoint, one start after the other."""
    kills = [partial(_in_the_next_save, moment) for moment in moments]
    return killed(folder, kills, *overrides, ranks=ranks)


def _in_the_next_save(moment: Callable[[], None], trainer: Trainer) -> None:
    moment()


def half_the_file() -> None:
    """Die when half of a checkpoint's bytes are written."""
    save = torch.save

    def half(content: Any, file: Any, *rest: Any, **options: Any) -> None:
        start = file.tell()
        save(content, file, *rest, **options)
        file.truncate(start + (file.tell() - start) // 2)
        file.flush()
        die()

    torch.save = half


def before(module: Any, name: str) -> Callable[[], None]:
    """Die where a function of a module would be called."""

    def moment() -> None:
        setattr(module, name, lambda *arguments, **options: die())

    return moment


def half_of_shard(rank: int) -> Callable[[], None]:
    """Die on one rank when half of its shard of a checkpoint is written."""

    def moment() -> None:
        if int(os.environ["RANK"]) == rank:
            half_the_file()

    return moment


MOMENTS = [
    half_the_file,
    before(whole_checkpoints, "publish"),
    before(whole_checkpoints, "link_whole"),
    before(whole_checkpoints, "remove_checkpoint"),
]
SHARD_MOMENTS = [
    half_of_shard(1),
    before(FileSystemWriter, "finish"),  # all shards are there, what says where everything lies is not
    before(whole_checkpoints, "publish"),
    before(whole_checkpoints, "link_whole"),
    before(shutil, "rmtree"),  # of an old one that has lost its name
]


def from_outside(folder: Path, times: int, *overrides: str) -> Seen:
    """Kill a run at moments of the clock: while it starts, trains, writes or ends."""
    runs, draw = Runs(folder), random.Random(7)
    begin = time.monotonic()
    whole = runs.train("whole", *overrides)
    usual = time.monotonic() - begin
    hits = 0
    for _ in range(times):
        (process,) = runs.start("broken", *overrides)
        process.join(draw.uniform(0.2, 1.0) * usual)
        process.kill()
        process.join()
        hits += process.exitcode == KILLED
    end = runs.train("broken", *overrides)
    if any(whole) or any(end):
        return Seen(what=f"exit {whole} {end}: {runs.log('broken')[-500:]}", kept=False)
    return same(runs, "whole", "broken", also=f"{hits} kills hit")


def full_disk(folder: Path, *overrides: str, ranks: int = 1, rank: int = 0) -> Seen:
    """Let no file grow beyond a few bytes when a rank comes to its second checkpoint, as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    def prepare(trainer: Trainer) -> None:
        if int(os.environ["RANK"]) == rank:
            trainer.state.callbacks.insert(0, At(Event.BATCH_END, 6, limit))

    runs = Runs(folder)
    whole = runs.train("whole", *overrides, ranks=ranks)
    stopped = runs.train("broken", *overrides, ranks=ranks, prepare=prepare)
    message = runs.log("broken", rank)[-600:]
    left = sorted(path.name for path in (runs.run_folder("broken") / "checkpoints").rglob("*"))
    end = runs.train("broken", *overrides, ranks=ranks)
    if any(whole) or stopped[rank] != 2 or any(end) or "cannot be written" not in message:
        return Seen(what=f"exit {whole} {stopped} {end}: {message}", kept=False)
    return same(runs, "whole", "broken", also=f"{message} Left: {left}")


FSDP = "parallelism=fsdp"
FAULTS = [
    Fault(
        name="killed amid an epoch",
        expected=SAME,
        within=120,
        run=partial(killed, kills=[at(Event.BEFORE_FORWARD, 2), at(Event.BATCH_END, 6)]),
    ),
]
