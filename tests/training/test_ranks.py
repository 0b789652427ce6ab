"""The debug recipe on two ranks, and on two nodes: the same run as on one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

import maskedclip_composer.build  # noqa: F401  # once, before the ranks are forked
import train
from tests.ranks import free_port, run_ranks
from tests.small_run import DEBUG, debug_overrides
from tests.training.test_train import lines

Overrides = Callable[..., list[str]]
COMPARED = ["diagnostics/gradient_norm", *(f"loss/train/{loss}" for loss in ("total", "mim", "lg_clip", "mfd"))]
OFTEN = ["checkpoint.interval=3ba", "checkpoint.keep=-1"]  # an epoch has 4 steps
# Each node of a cluster has its shared memory and its temporary folder for itself.
NODE = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs tmpfs /dev/shm && exec "$@"',
    "-",
]


def rank_of_training(folder: Path, *arguments: str) -> None:
    sys.exit(train.main([DEBUG, *arguments]))


def run(folder: Path, ranks: int, arguments: list[str]) -> Path:
    """Train in a folder of its own and return the run's."""
    folder.mkdir()
    statuses = run_ranks(rank_of_training, ranks, folder, arguments=[*arguments, f"output={folder}"], grace=20.0)
    assert statuses == [0] * ranks, "\n".join((folder / f"rank{rank}.log").read_text()[-3000:] for rank in range(ranks))
    return folder / "debug"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, shards: Path, text_tower: Path) -> Path:
    """The run on one rank."""
    arguments = debug_overrides(shards, text_tower, Path())
    return run(tmp_path_factory.mktemp("one") / "run", 1, [*arguments, *OFTEN])


def assert_alike(other: Path, one: Path, *, first: int = 0) -> None:
    """Compare the steps from `first` on, and the exported encoders."""
    for key in COMPARED:
        assert lines(other, key) == pytest.approx(lines(one, key)[first:], rel=1e-3), key
    expected, found = load_file(one / "encoder.safetensors"), load_file(other / "encoder.safetensors")
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert (found[key] - value).abs().max() < 1e-4, key


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_two_ranks_equal_one(overrides: Overrides, one: Path, tmp_path: Path, parallelism: str):
    assert_alike(run(tmp_path / parallelism, 2, overrides(f"parallelism={parallelism}")), one)


@pytest.mark.slow
def test_two_nodes_continue_what_one_rank_has_begun_as_it_did_itself(overrides: Overrides, one: Path, tmp_path: Path):
    """With two launchers, over loopback."""
    if subprocess.run([*NODE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let users have mounts of their own")
    checkpoints = tmp_path / "debug" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(one / "config.yaml", tmp_path / "debug")
    shutil.copy(one / "checkpoints" / "ep0-ba3-rank0.pt", checkpoints)
    port = free_port()
    launchers = []
    for node in range(2):
        (tmp_path / f"node{node}").mkdir()
        place = [
            "--world_size",
            "2",
            "--node_rank",
            f"{node}",
            "--master_addr",
            "127.0.0.1",
            "--master_port",
            f"{port}",
        ]
        arguments = overrides(f"output={tmp_path}", *OFTEN)
        command = [sys.executable, "-m", "composer.cli", *place, "train.py", DEBUG, *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / f"node{node}")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        launchers.append(subprocess.Popen([*NODE, *command], env=environment, **pipes))
    try:
        printed = [launcher.communicate(timeout=250)[0] for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()
    assert [launcher.returncode for launcher in launchers] == [0, 0], "\n".join(text[-3000:] for text in printed)
    assert_alike(tmp_path / "debug", one, first=3)
    assert (checkpoints / "ep1-ba8-rank0.pt").is_file()
