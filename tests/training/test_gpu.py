"""Every recipe on a GPU in bfloat16: pytest -m gpu."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import train
from tests.training.conftest import DEBUG
from tests.training.test_train import lines

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("attention", ["auto", "sdpa"])
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_debug_recipe(overrides: Callable[..., list[str]], tmp_path: Path, attention: str, parallelism: str):
    given = [f"image_encoder.attention={attention}", f"parallelism={parallelism}"]
    assert train.main([DEBUG, *overrides(*given)]) == 0
    run = tmp_path / "runs" / "debug"
    assert "precision" not in yaml.safe_load((run / "config.yaml").read_text())["trainer"]  # the default: amp_bf16
    for key in ("total", "mim", "lg_clip", "mfd"):
        assert all(map(math.isfinite, lines(run, f"loss/train/{key}")))


def test_a_steps_times(overrides: Callable[..., list[str]], tmp_path: Path):
    assert train.main([DEBUG, *overrides("tracking.diagnostics_interval=1")]) == 0
    run = tmp_path / "runs" / "debug"
    steps, backward = lines(run, "time/step"), lines(run, "time/backward")
    assert len(steps) == 7  # all but the first
    assert all(0 < part < step for part, step in zip(backward, steps, strict=True))
    assert all(rate > 0 for rate in lines(run, "throughput/tflops"))
