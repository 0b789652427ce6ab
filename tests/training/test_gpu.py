"""Every recipe on a GPU in bfloat16: pytest -m gpu."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import train
from tests.training.conftest import DEBUG
from tests.training.test_ranks import COMPARED, run
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


def test_fsdp_trains_as_ddp(overrides: Callable[..., list[str]], tmp_path: Path):
    for name in ("ddp", "fsdp"):
        assert train.main([DEBUG, *overrides(f"parallelism={name}", f"run_name={name}")]) == 0
    for key in COMPARED:
        ddp, fsdp = (lines(tmp_path / "runs" / name, key) for name in ("ddp", "fsdp"))
        assert fsdp == pytest.approx(ddp, rel=2e-2), key


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_two_gpus_train_as_one(overrides: Callable[..., list[str]], tmp_path: Path, parallelism: str):
    one, two = (
        run(tmp_path / f"{ranks}", ranks, overrides(f"parallelism={parallelism}", "tracking.picture_interval=null"))
        for ranks in (1, 2)
    )
    for key in COMPARED:
        assert lines(two, key) == pytest.approx(lines(one, key), rel=2e-2), key


@pytest.mark.parametrize(
    "given",
    [
        ["compute.compile=none"],
        ["compute.compile=blocks"],
        ["compute.compile=blocks", "compute.activation.image=budget:0.5", "compute.activation.decoders=budget:0.5"],
        ["compute.activation={image: full, text: full, decoders: full}", "compute.chunk_size=3"],
        ["compute.chunk_size=3", "parallelism=fsdp"],
        ["image_encoder.attention=xformers_varlen"],
    ],
    ids=str,
)
def test_every_way_to_compute_a_step_gives_the_first_losses(
    overrides: Callable[..., list[str]], tmp_path: Path, given: list[str]
):
    plain = [
        "compute.compile=none",
        "compute.packed=false",
        "compute.masked_only=false",
        "image_encoder.attention=sdpa",
    ]
    for name, keys in (("plain", plain), ("other", given)):
        assert train.main([DEBUG, *overrides(*keys, f"run_name={name}", "trainer.max_duration=3ba")]) == 0
    for key in ("total", "mim", "lg_clip", "mfd"):
        losses = [lines(tmp_path / "runs" / name, f"loss/train/{key}") for name in ("plain", "other")]
        assert losses[1] == pytest.approx(losses[0], rel=2e-2), key


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="the GPU has no 8-bit floats"
)
@pytest.mark.parametrize("fp8", ["teacher", "linears"])
def test_8_bits_drift_little(overrides: Callable[..., list[str]], tmp_path: Path, fp8: str):
    for name, value in (("exact", "none"), ("rounded", fp8)):
        assert train.main([DEBUG, *overrides(f"compute.fp8={value}", f"run_name={name}")]) == 0
    exact, rounded = (lines(tmp_path / "runs" / name, "loss/train/total") for name in ("exact", "rounded"))
    assert rounded == pytest.approx(exact, rel=0.05)
    assert rounded != exact


def test_a_steps_times(overrides: Callable[..., list[str]], tmp_path: Path):
    assert train.main([DEBUG, *overrides("tracking.diagnostics_interval=1")]) == 0
    run = tmp_path / "runs" / "debug"
    steps, backward = lines(run, "time/step"), lines(run, "time/backward")
    assert len(steps) == 7  # all but the first
    assert all(0 < part < step for part, step in zip(backward, steps, strict=True))
    assert all(rate > 0 for rate in lines(run, "throughput/tflops"))
