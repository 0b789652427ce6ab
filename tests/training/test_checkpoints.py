"""What a killed run, a changed yaml or a foreign file leaves in the checkpoint folder, and what a run makes of it."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import train
from tests.training.conftest import DEBUG
from tests.training.test_error_tour import refusal
from tests.training.test_train import lines

Overrides = Callable[..., list[str]]


@pytest.fixture
def stopped(overrides: Overrides, tmp_path: Path) -> tuple[list[str], Path]:
    """A run of 3 steps with a checkpoint at each, the arguments to go on to 5 steps, and its checkpoint folder."""
    common = ["checkpoint.interval=1ba", "checkpoint.keep=-1", "optimizer.warmup=1ba"]
    common += ["tracking.mlflow=false", "tracking.picture_interval=null"]
    assert train.main([DEBUG, *overrides(*common, "trainer.max_duration=3ba")]) == 0
    arguments = [DEBUG, *overrides(*common, "trainer.max_duration=5ba")]
    return arguments, tmp_path / "runs" / "debug" / "checkpoints"


def cut_newest(folder: Path) -> None:
    newest = folder / "ep0-ba3-rank0.pt"
    newest.write_bytes(newest.read_bytes()[:5000])


def leave_half_a_newer_one(folder: Path) -> None:
    (folder / "ep0-ba4-rank0.pt").write_bytes((folder / "ep0-ba3-rank0.pt").read_bytes()[:5000])


def lose_the_link(folder: Path) -> None:
    (folder / "latest-rank0.pt").unlink()


@pytest.mark.parametrize("damage", [cut_newest, leave_half_a_newer_one, lose_the_link])
def test_a_run_goes_on_from_the_newest_whole_checkpoint(
    stopped: tuple[list[str], Path], damage: Callable[[Path], None], tmp_path: Path
):
    arguments, folder = stopped
    damage(folder)
    assert train.main(arguments) == 0
    assert os.readlink(folder / "latest-rank0.pt") == "ep1-ba5-rank0.pt"
    assert len(list(folder.glob("*.damaged"))) == (damage is not lose_the_link)
    assert len(lines(tmp_path / "runs" / "debug", "loss/train/total")) == 5


def test_other_settings_are_refused(stopped: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]):
    arguments, _ = stopped
    changed = ["optimizer.lr=0.5", "bridge.depth=2", "compute.fp8=linears", "compute.fused_optimizer=false"]
    message = refusal(capsys, *arguments, *changed, "compute.packed=false")
    assert "run_name=debug was started with other settings" in message
    assert "optimizer.lr: null then, 0.5 now" in message
    assert "bridge.depth: 1 then, 2 now" in message
    assert "compute.fp8: none then, linears now" in message
    assert "compute.fused_optimizer: true then, false now" in message
    assert "packed" not in message


def test_a_run_of_an_older_version_goes_on(stopped: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]):
    """Its record lacks the keys that came later."""
    arguments, folder = stopped
    record = folder.parent / "config.yaml"
    older = yaml.safe_load(record.read_text())
    del older["compute"], older["estimate"], older["data"]["decode"]
    record.write_text(yaml.safe_dump(older))
    assert "compute.fp8: none then, linears now" in refusal(capsys, *arguments, "compute.fp8=linears")
    assert train.main(arguments) == 0


def test_a_run_may_go_on_computed_in_another_way(stopped: tuple[list[str], Path], tmp_path: Path):
    arguments, folder = stopped
    assert (
        train.main([*arguments, "compute.packed=false", "compute.chunk_size=3", "compute.activation.image=full"]) == 0
    )
    assert os.readlink(folder / "latest-rank0.pt") == "ep1-ba5-rank0.pt"
    assert len(lines(tmp_path / "runs" / "debug", "loss/train/total")) == 5


def test_a_checkpoint_that_would_run_code_is_refused(
    stopped: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    arguments, folder = stopped
    torch.save({"state": Payload()}, folder / "ep0-ba3-rank0.pt", pickle_module=pickle)
    assert zipfile.is_zipfile(folder / "ep0-ba3-rank0.pt")
    assert "was refused" in refusal(capsys, *arguments)
    assert not (tmp_path / "pwned").exists()


def test_a_diverged_run_stops_and_exports_nothing(
    overrides: Overrides, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    options = ("optimizer.lr=1e30", "optimizer.warmup=1ba", "checkpoint.interval=1ba", "checkpoint.keep=-1")
    message = refusal(capsys, DEBUG, *overrides(*options))
    assert "training has diverged" in message
    step = int(re.search(r"Step (\d+):", message)[1])
    run = tmp_path / "runs" / "debug"
    assert not (run / "encoder.safetensors").exists()
    kept = {int(re.search(r"-ba(\d+)-", path.name)[1]) for path in run.rglob("ep*-rank0.pt")}
    assert kept == set(range(1, step))


def test_a_warm_up_longer_than_the_run_is_refused(overrides: Overrides, capsys: pytest.CaptureFixture[str]):
    message = refusal(capsys, DEBUG, *overrides("optimizer.warmup=2ep", "trainer.max_duration=8ba"))
    assert "optimizer.warmup=2ep is not shorter than trainer.max_duration=8ba: an epoch has 4 steps" in message


def test_credentials_are_not_printed(overrides: Overrides, capsys: pytest.CaptureFixture[str]):
    secret = ["tracking.tags={api_key: hunter2}", "tracking.tracking_uri=https://me:hunter2@127.0.0.1:9"]
    assert "resnet18" in refusal(capsys, DEBUG, *overrides(*secret, "image_encoder.name=resnet18"))
    train.main([DEBUG, *overrides(*secret, "image_encoder.name=resnet18")])
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
