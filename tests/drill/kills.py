"""Runs that are killed and continued: the same samples, draws and weights as if nothing had happened."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from tests.drill.runs import At, Prepare, Runs, die, finish

KILLED = -signal.SIGKILL
FSDP = "parallelism=fsdp"
SAME = "the same command goes on: samples, draws and weights bit for bit as without the kill"


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


def at(event: Event, batch: int, *, rank: int | None = None) -> Prepare:
    """Kill every rank, or one, at an event of a step."""

    def prepare(trainer: Trainer) -> None:
        if rank is None or rank == int(os.environ["RANK"]):
            trainer.state.callbacks.append(At(event, batch, die))

    return prepare


def half_a_file(trainer: Trainer, *, rank: int = 0) -> None:
    """Kill a rank when half of its next file of a checkpoint is written."""
    save = torch.save

    def half(content: Any, file: Any, *rest: Any, **options: Any) -> None:
        start = file.tell()
        save(content, file, *rest, **options)
        file.truncate(start + (file.tell() - start) // 2)
        file.flush()
        die()

    if rank == int(os.environ["RANK"]):
        torch.save = half


def before(module: Any, name: str) -> Prepare:
    """Kill a run where it would next call a function of a module."""

    def prepare(trainer: Trainer) -> None:
        setattr(module, name, lambda *arguments, **options: die())

    return prepare


def by_lot(folder: Path, *, steps: int, kills: int, seed: int) -> Seen:
    """Kill a long run at steps, and at places in a step, that are drawn by lot."""
    draw = random.Random(seed)
    places = (Event.BATCH_START, Event.BEFORE_FORWARD, Event.BEFORE_BACKWARD, Event.AFTER_BACKWARD, Event.BATCH_END)
    chosen = sorted(draw.sample(range(1, steps), kills))
    seen = killed(
        folder,
        [at(draw.choice(places), step) for step in chosen],
        f"trainer.max_duration={steps}ba",
        "checkpoint.interval=7ba",
    )
    return Seen(what=f"killed at {chosen}: {seen.what}", lost=seen.lost, kept=seen.kept)


def by_the_clock(folder: Path, times: int, *overrides: str, ranks: int = 1) -> Seen:
    """Kill a rank from outside, by turns while the run starts and while it trains, and compare as in `killed`.

    Not kept where fewer than half of the kills hit: little was rehearsed.
    """
    runs, draw = Runs(folder), random.Random(7)
    begin = time.monotonic()
    whole = runs.train("whole", *overrides, ranks=ranks)
    usual = time.monotonic() - begin
    hits = 0
    for number in range(times):
        done = len(runs.steps("broken"))
        processes = runs.start("broken", *overrides, ranks=ranks)
        while number % 2 and len(runs.steps("broken")) == done and processes[0].is_alive():
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.2 if number % 2 else 0.8) * usual)
        draw.choice(processes).kill()
        hits += KILLED in finish(processes)
    end = runs.train("broken", *overrides, ranks=ranks)
    if any(whole) or any(end):
        return Seen(what=f"exit {whole} {end}: {runs.log('broken')[-500:]}", kept=False)
    seen = same(runs, "whole", "broken", also=f"{hits} of {times} kills hit")
    return replace(seen, kept=seen.kept and 2 * hits >= times)


# In this order each start comes to its moment: the third finds the checkpoint of the second under its name.
MOMENTS: list[Prepare] = [
    half_a_file,
    before(whole_checkpoints, "publish"),
    before(whole_checkpoints, "link_whole"),
    before(whole_checkpoints, "remove_checkpoint"),
]
MOMENTS_OF_SHARDS: list[Prepare] = [
    partial(half_a_file, rank=1),
    before(FileSystemWriter, "finish"),  # all shards are there, what says where everything lies is not
    before(whole_checkpoints, "publish"),
    before(whole_checkpoints, "link_whole"),
    before(shutil, "rmtree"),  # of an old one that has lost its name
]
AMID = [at(Event.BEFORE_FORWARD, 2), at(Event.BATCH_END, 6)]
AT_THE_END = [at(Event.EPOCH_END, 4), at(Event.EPOCH_START, 4), at(Event.EPOCH_CHECKPOINT, 8)]
ONE_OF_TWO = [at(Event.BEFORE_FORWARD, 5, rank=1), at(Event.BATCH_END, 6, rank=0)]


def amid_an_epoch(folder: Path) -> Seen:
    """Before the first checkpoint, and three steps after it."""
    return killed(folder, AMID)


def two_amid_an_epoch(folder: Path, *overrides: str) -> Seen:
    """Both ranks, three steps after the first checkpoint."""
    return killed(folder, AMID[1:], *overrides, ranks=2)


def fsdp_amid_an_epoch(folder: Path) -> Seen:
    """Sharded over two ranks."""
    return two_amid_an_epoch(folder, FSDP)


def at_an_epochs_end(folder: Path, interval: str = "4ba", ranks: int = 1) -> Seen:
    """Before and after the epoch's last step is saved, and where the next epoch begins."""
    return killed(folder, AT_THE_END, f"checkpoint.interval={interval}", ranks=ranks)


def while_writing(folder: Path) -> Seen:
    """In every moment of a checkpoint's way to the disk."""
    return killed(folder, MOMENTS, "checkpoint.keep=1")


def while_writing_shards(folder: Path) -> Seen:
    """In every moment of a sharded checkpoint's way to the disk."""
    return killed(folder, MOMENTS_OF_SHARDS, "checkpoint.keep=1", FSDP, ranks=2)


def one_of_two(folder: Path, *overrides: str) -> Seen:
    """One rank, then the other."""
    return killed(folder, ONE_OF_TWO, *overrides, ranks=2)


def _fault(name: str, run: Callable[[Path], Seen], within: float, expected: str = SAME) -> Fault:
    return Fault(name=name, expected=expected, within=within, run=run)


FAULTS = [
    _fault("killed amid an epoch", amid_an_epoch, 200),
    _fault("killed at an epoch's end, where the shorter stream begins anew", at_an_epochs_end, 300),
    _fault("killed while a checkpoint is written", while_writing, 300),
    _fault("killed by the clock, six times", partial(by_the_clock, times=6), 400),
    _fault("two ranks, both killed amid an epoch", two_amid_an_epoch, 300),
    _fault("two ranks, both killed at an epoch's end", partial(at_an_epochs_end, interval="1ep", ranks=2), 400),
    _fault("two ranks, one of them killed", one_of_two, 300),
    _fault("fsdp on two ranks, killed amid an epoch", fsdp_amid_an_epoch, 400),
    _fault("fsdp on two ranks, killed while a checkpoint is written", while_writing_shards, 600),
    _fault("500 steps, killed at 10 of them by lot", partial(by_lot, steps=500, kills=10, seed=1), 1500),
]
