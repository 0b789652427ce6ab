"""What a killed run, a changed yaml or a foreign file leaves in the checkpoint folder, and what a run makes of it."""

import errno
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml

import maskedclip_composer.build
import train
from maskedclip_composer.checkpoints import prepare_checkpoints
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from tests.small_run import DEBUG, debug_overrides
from tests.training.test_error_tour import refusal
from tests.training.test_train import lines

Overrides = Callable[..., list[str]]


COMMON = ["checkpoint.interval=1ba", "checkpoint.keep=-1", "optimizer.warmup=1ba"]
COMMON += ["tracking.mlflow=false", "tracking.picture_interval=null"]


@pytest.fixture(scope="session")
def three_steps(shards: Path, text_tower: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of 3 steps with a checkpoint at each. Read only."""
    output = tmp_path_factory.mktemp("three_steps")
    arguments = debug_overrides(shards, text_tower, output)
    assert train.main([DEBUG, *arguments, *COMMON, "trainer.max_duration=3ba"]) == 0
    return output


@pytest.fixture
def stopped(three_steps: Path, overrides: Overrides, tmp_path: Path) -> tuple[list[str], Path]:
    """A copy of that run, the arguments to go on to 5 steps, and its checkpoint folder."""
    shutil.copytree(three_steps, tmp_path / "runs", symlinks=True)
    arguments = [DEBUG, *overrides(*COMMON, "trainer.max_duration=5ba")]
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


class Killed(BaseException):
    """Ends a run as a kill does: nothing that expects errors catches it."""


def test_a_checkpoint_has_its_name_only_when_it_is_whole(
    overrides: Overrides, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The disk is full at step 4, then the run is killed while it writes that checkpoint, then it comes to its end."""
    more = ["checkpoint.interval=2ba", "checkpoint.keep=1", "trainer.max_duration=4ba"]
    arguments = [DEBUG, *overrides(*COMMON, *more)]
    folder = tmp_path / "runs" / "debug" / "checkpoints"
    save, failure = torch.save, OSError(errno.ENOSPC, "No space left on device")

    def fail_at_the_second(content: Any, file: IO[bytes]) -> None:
        save(content, file)
        if content["state"]["timestamp"]["Timestamp"]["batch"] == 4:
            file.truncate(5000)
            raise failure

    monkeypatch.setattr(torch, "save", fail_at_the_second)
    message = refusal(capsys, *arguments)
    assert f"The checkpoint of step 4 cannot be written to {folder}: No space left on device." in message
    assert f"{folder / 'ep0-ba2-rank0.pt'} is whole" in message
    assert {path.name for path in folder.iterdir()} == {"ep0-ba2-rank0.pt", "latest-rank0.pt"}

    failure = Killed()
    with pytest.raises(Killed):
        train.main(arguments)
    assert {path.name for path in folder.glob("*.pt")} == {"ep0-ba2-rank0.pt", "latest-rank0.pt"}
    assert [path.stat().st_size for path in (folder / ".writing").iterdir()] == [5000]

    monkeypatch.undo()
    assert train.main(arguments) == 0
    assert {path.name for path in folder.glob("*.pt")} == {"ep0-ba4-rank0.pt", "latest-rank0.pt"}, (
        "the old one is rotated"
    )
    assert os.readlink(folder / "latest-rank0.pt") == "ep0-ba4-rank0.pt"
    assert not list((folder / ".writing").iterdir())


def test_a_disk_that_is_full_elsewhere_is_told_without_a_traceback(
    overrides: Overrides, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(config: TrainConfig) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/full/metrics.jsonl")

    monkeypatch.setattr(maskedclip_composer.build, "build_trainer", fail)
    message = refusal(capsys, DEBUG, *overrides())
    assert "No space left on device: /full/metrics.jsonl." in message
    assert "the same command goes on from the newest checkpoint" in message


def test_other_settings_are_refused(stopped: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]):
    arguments, _ = stopped
    changed = ["optimizer.lr=0.5", "bridge.depth=2", "compute.fp8=linears", "compute.fused_optimizer=false"]
    message = refusal(capsys, *arguments, *changed, "compute.packed=false", "parallelism=fsdp")
    assert "run_name=debug was started with other settings" in message
    assert "optimizer.lr: null then, 0.5 now" in message
    assert "bridge.depth: 1 then, 2 now" in message
    assert "compute.fp8: none then, linears now" in message
    assert "compute.fused_optimizer: true then, false now" in message
    assert "parallelism: ddp then, fsdp now" in message
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


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def pickled(folder: Path, pwned: Path) -> None:
    torch.save({"state": Payload(pwned)}, folder / "ep0-ba2-rank0.pt", pickle_module=pickle)


def in_the_text_of_an_algorithm(folder: Path, pwned: Path) -> None:
    algorithm = ("BlurPool", {"repr": f"BlurPool() if __import__('os').mkdir({str(pwned)!r}) else None"})
    torch.save({"state": {"algorithms": [algorithm]}}, folder / "ep0-ba2-rank0.pt")


def in_a_shard(folder: Path, pwned: Path) -> None:
    writer = dcp.FileSystemWriter(folder / "ep0-ba2")
    dcp.save({"state": {"algorithms": [], "batch": Payload(pwned)}}, storage_writer=writer, no_dist=True)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("plant", [pickled, in_the_text_of_an_algorithm, in_a_shard])
def test_a_checkpoint_that_would_run_code_is_refused_unless_it_is_trusted(
    plant: Callable[[Path, Path], None], overrides: Overrides, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    folder = tmp_path / "runs" / "debug" / "checkpoints"
    folder.mkdir(parents=True)
    plant(folder, tmp_path / "pwned")
    message = refusal(capsys, DEBUG, *overrides())
    assert "could run code" in message
    assert "continue with checkpoint.trust=true" in message
    prepare_checkpoints(load_config(TrainConfig, DEBUG, overrides("checkpoint.trust=true")))
    assert "It is read nevertheless: checkpoint.trust=true." in capsys.readouterr().out
    assert (folder / "latest-rank0.pt").exists()
    assert not (tmp_path / "pwned").exists(), "the check itself has run it"


def test_a_flipped_bit_gives_way_to_the_one_before_even_where_checkpoints_are_trusted(
    overrides: Overrides, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """It makes a name another one, which looks like a type that may run code."""
    folder = tmp_path / "runs" / "debug" / "checkpoints"
    folder.mkdir(parents=True)
    for batch in (1, 2):
        torch.save({"state": {"algorithms": [], "weights": torch.ones(3)}}, folder / f"ep0-ba{batch}-rank0.pt")
    newest = folder / "ep0-ba2-rank0.pt"
    newest.write_bytes(newest.read_bytes().replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_w2"))
    prepare_checkpoints(load_config(TrainConfig, DEBUG, overrides("checkpoint.trust=true")))
    assert "ep0-ba2-rank0.pt is damaged; it is kept as ep0-ba2-rank0.pt.damaged" in capsys.readouterr().out
    assert os.readlink(folder / "latest-rank0.pt") == "ep0-ba1-rank0.pt"


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage is deprecated")
def test_a_damaged_folder_of_shards_gives_way_to_the_one_before(
    overrides: Overrides, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    folder = tmp_path / "runs" / "debug" / "checkpoints"
    for batch in (1, 2, 3):
        state = {"state": {"algorithms": [], "weights": torch.ones(batch)}}
        dcp.save(state, storage_writer=dcp.FileSystemWriter(folder / f"ep0-ba{batch}"), no_dist=True)
    config = load_config(TrainConfig, DEBUG, overrides())
    for newest, before in (("ep0-ba3", "ep0-ba2"), ("ep0-ba2", "ep0-ba1")):
        shard = folder / newest / "__0_0.distcp"
        shard.write_bytes(shard.read_bytes()[:-1])
        prepare_checkpoints(config)
        assert f"{newest} is damaged; it is kept as {newest}.damaged" in capsys.readouterr().out
        assert os.readlink(folder / "latest-rank0.pt") == before


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
