"""A run that was killed and continued ends with the same weights, bit for bit, as one that was not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from maskedclip_composer.export.checkpoint import read_checkpoint
from tests.training.conftest import DEBUG

Overrides = Callable[..., list[str]]
# 33 unpaired images in steps of 8: an epoch has 4 steps. Checkpoints come every 3 steps and so in mid-epoch.
STEPS = ["trainer.max_duration=10ba", "checkpoint.interval=3ba", "checkpoint.keep=-1", "data.num_workers=1"]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py", DEBUG, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr.decode()[-3000:]


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(overrides: Overrides, tmp_path: Path):
    whole = start(overrides(*STEPS, f"output={tmp_path / 'whole'}"))
    broken = start(overrides(*STEPS, f"output={tmp_path / 'broken'}"))
    checkpoints = tmp_path / "broken" / "debug" / "checkpoints"
    deadline = time.monotonic() + 200
    while not (checkpoints / "latest-rank0.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    assert not (tmp_path / "broken" / "debug" / "encoder.safetensors").exists(), "the run ended before it was killed"
    finish(whole)
    finish(start(overrides(*STEPS, f"output={tmp_path / 'broken'}")))

    runs = [tmp_path / name / "debug" for name in ("whole", "broken")]
    states = [read_checkpoint(run / "checkpoints" / "ep2-ba10-rank0.pt") for run in runs]
    for part in ("model", "optimizers"):
        assert equal(states[0]["state"][part], states[1]["state"][part]), part
    exports = [load_file(run / "encoder.safetensors") for run in runs]
    assert equal(exports[0], exports[1])
