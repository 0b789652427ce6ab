"""The same faults under the command of training: train.py over an object store."""

import contextlib
import io
import json
import multiprocessing
import sys
import time
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

import train
from maskedclip_composer.data.config import DataConfig, StreamConfig
from tests import tiny
from tests.drill.epoch import SLACK, write_shards
from tests.drill.fault import Fault, Seen
from tests.drill.faulty_s3 import Rule, faulty_s3

STEPS = 8
BATCH = 16
START = 20.0  # seconds from the command to the first step, with what it imports and builds
PATIENCE = DataConfig(unpaired=StreamConfig(remote="x", batch_size=1), download_retry=2, download_timeout=10.0).patience


def _command(folder: Path, cache: str) -> list[str]:
    return [
        "yamls/debug.yaml",
        *(f"data.{kind}.remote=s3://shards/set/{kind}" for kind in ("paired", "unpaired")),
        *(f"data.{kind}.local={folder / cache / kind}" for kind in ("paired", "unpaired")),
        *(f"data.{kind}.split=null" for kind in ("paired", "unpaired")),
        "data.download_retry=2",
        "data.download_timeout=10.0",
        "data.shuffle_block_size=8",  # a step needs a few of the shards, so that a fault comes mid-epoch
        "data.max_tokens=32",
        f"text_encoder.name={folder / 'text'}",
        f"output={folder / 'runs'}",
        f"run_name={cache}",
        "checkpoint.interval=1ba",
        f"trainer.max_duration={STEPS}ba",
        "trainer.progress_bar=false",
    ]


def _main(command: list[str], output: Path) -> None:
    with output.open("w") as file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(io.StringIO()):
        sys.exit(train.main(command))


def _train(folder: Path, run: str) -> tuple[int | None, str]:
    """Train in a process of its own with a cache of the run's own; return exit status and what stands on stderr."""
    output = folder / "stderr"
    process = multiprocessing.Process(target=_main, args=(_command(folder, run), output))
    process.start()
    process.join()
    return process.exitcode, output.read_text()


def _steps(folder: Path, run: str) -> set[int]:
    """Return the steps whose loss was logged."""
    lines = (folder / "runs" / run / "metrics.jsonl").read_text().splitlines()
    return {record["batch"] for record in map(json.loads, lines) if "loss/train/total" in record}


def _lost(folder: Path, run: str) -> int:
    return (STEPS - len(_steps(folder, run))) * BATCH


def _is_equal(folder: Path, run: str, other: str) -> bool:
    """Whether two runs have the same final weights, bit for bit."""
    first, second = (load_file(folder / "runs" / name / "encoder.safetensors") for name in (run, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def train_under_fault(folder: Path, *, rule: Rule, goes_on: bool) -> Seen:
    """Train without a fault, then with; where that ends it, mend it and give the same command again."""
    tiny.save_text_tower(folder / "text")
    with faulty_s3() as s3:
        for kind in ("paired", "unpaired"):
            write_shards(folder / "set" / kind, kind, 100)
        s3.fill(folder / "set")
        status, said = _train(folder, "whole")
        if status:
            return Seen(what=said, kept=False)
        s3.obey(rule)
        start = time.monotonic()
        status, said = _train(folder, "broken")
        seconds = time.monotonic() - start
        what = f"exit status {status} after {seconds:.0f} s"
        kept, in_time = (status == 0) == goes_on, True
        if not goes_on:
            message = said.rpartition("train.py: error")[2].strip()
            done = len(_steps(folder, "broken"))
            what += f" and {done} steps: {message}"
            kept &= status == 2 and said.count("train.py: error") == 1 and "Traceback" not in said
            kept &= "shard" in message and "Could not connect" in message and done < STEPS
            in_time = seconds < PATIENCE + START + SLACK
            s3.obey()
            status, said = _train(folder, "broken")
            what += f"; then exit status {status}"
            kept &= status == 0
    equal = status == 0 and _is_equal(folder, "whole", "broken")
    what += f"; weights as without the fault: {'yes' if equal else 'no'}"
    lost = _lost(folder, "broken")
    return Seen(what=what, lost=lost, kept=kept and equal and not lost, in_time=in_time)


FAULTS = [
    Fault(
        name="train.py while the store answers 503 to six requests",
        expected="goes on; the same weights as without, bit for bit",
        within=180.0,
        run=partial(train_under_fault, rule=Rule(at="shard.", what=503, skip=20, times=6), goes_on=True),
    ),
    Fault(
        name="train.py while the store dies for good, mid-epoch",
        expected="exit status 2 and one message in the stated time; the same command then ends with the same weights",
        within=240.0,
        run=partial(train_under_fault, rule=Rule(at="shard.", what="die", skip=28), goes_on=False),
    ),
]
