"""Two ranks, started by Composer's launcher: the same run as on one, with DDP and with FSDP2."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.training.conftest import DEBUG
from tests.training.test_train import lines

Overrides = Callable[..., list[str]]
COMPARED = ["diagnostics/gradient_norm", *(f"loss/train/{loss}" for loss in ("total", "mim", "lg_clip", "mfd"))]


def run(ranks: int, arguments: list[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "composer.cli", "-n", str(ranks), "train.py", DEBUG, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_ranks_equal_one(overrides: Overrides, tmp_path: Path):
    for name, ranks, more in (("one", 1, []), ("ddp", 2, []), ("fsdp", 2, ["parallelism=fsdp"])):
        run(ranks, overrides(f"output={tmp_path / name}", *more))
    one = tmp_path / "one" / "debug"
    for name in ("ddp", "fsdp"):
        other = tmp_path / name / "debug"
        for key in (
            *(f"loss/train/{loss}" for loss in ("total", "mim", "lg_clip", "mfd")),
            "diagnostics/gradient_norm",
        ):
            assert lines(other, key) == pytest.approx(lines(one, key), rel=1e-3), (name, key)
        expected, found = load_file(one / "encoder.safetensors"), load_file(other / "encoder.safetensors")
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert (found[key] - value).abs().max() < 1e-4, (name, key)
