"""Sharded checkpoints are read without running what they carry, and what is cut short is seen."""

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import MetadataIndex

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.checkpoint import RefusedError
from maskedclip_composer.export.model_weights import read_model_weights
from maskedclip_composer.export.sharded import read_sharded, read_sharded_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]

STATE: dict[str, Any] = {
    "state": {
        "model": {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3, dtype=torch.bfloat16)},
        "batch": 7,
        "algorithms": [("EMATeacher", {"repr": "x"})],
    },
    "rng": [{"numpy": ("MT19937", np.arange(4, dtype=np.uint32), 1, 0, 0.0)}],
}


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def save(folder: Path, state: dict = STATE) -> Path:
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "ep0-ba7")


def edit_layout(checkpoint: Path, edit: Callable) -> None:
    layout = dcp.FileSystemReader(checkpoint).read_metadata()
    edit(layout)
    (checkpoint / ".metadata").write_bytes(pickle.dumps(layout))


def test_it_returns_what_was_saved(checkpoint: Path):
    found = read_sharded(checkpoint, if_refused="", with_tensors=True)
    assert found["state.batch"] == 7
    assert found["state.algorithms"] == STATE["state"]["algorithms"]
    assert torch.equal(found["state.model.weight[0, 0]"], STATE["state"]["model"]["weight"])
    assert torch.equal(found["state.model.half[0]"], STATE["state"]["model"]["half"])
    assert np.array_equal(found["rng.0.numpy"][1], STATE["rng"][0]["numpy"][1])
    assert not any("model" in name for name in read_sharded(checkpoint, if_refused=""))


def as_two_shards(checkpoint: Path, size: tuple[int, ...] = (4, 3)) -> None:
    """Make the parts `top` and `bottom` two shards of one weight, as FSDP stores it."""

    def edit(layout) -> None:
        top = layout.state_dict_metadata["state.model.top"]
        layout.state_dict_metadata = {
            "state.model.weight": replace(top, size=torch.Size(size)),
            "state.batch": layout.state_dict_metadata["state.batch"],
        }
        places = {index.fqn: place for index, place in layout.storage_data.items()}
        offsets = {"top": (0, 0), "bottom": (2, 0)}
        layout.storage_data = {
            MetadataIndex("state.model.weight", torch.Size(offset)): places[f"state.model.{name}"]
            for name, offset in offsets.items()
        } | {MetadataIndex("state.batch"): places["state.batch"]}

    edit_layout(checkpoint, edit)


def test_a_model_is_joined_from_its_shards(checkpoint: Path, tmp_path: Path):
    found = read_sharded_model(checkpoint, if_refused="")
    assert found.keys() == STATE["state"]["model"].keys()
    assert all(torch.equal(found[name], value) for name, value in STATE["state"]["model"].items())
    halves = {"top": torch.arange(6.0).reshape(2, 3), "bottom": torch.arange(6.0, 12.0).reshape(2, 3)}
    folder = save(tmp_path / "ep0-ba8", {"state": {"model": halves, "batch": 8}})
    as_two_shards(folder)
    link = tmp_path / "latest-rank0.pt"
    link.symlink_to(folder.name)
    assert torch.equal(read_model_weights(link)["weight"], torch.arange(12.0).reshape(4, 3))
    as_two_shards(save(tmp_path / "ep0-ba9", {"state": {"model": halves, "batch": 8}}), size=(5, 3))
    with pytest.raises(UserError, match="does not hold every shard of weight"):
        read_sharded_model(tmp_path / "ep0-ba9", if_refused="")


def test_a_layout_that_would_run_code_is_refused(checkpoint: Path, tmp_path: Path):
    edit_layout(checkpoint, lambda layout: setattr(layout, "planner_data", Payload(tmp_path / "pwned")))
    with pytest.raises(RefusedError, match=r"posix\.mkdir, and reading it could run code\.\nDo this"):
        read_sharded(checkpoint, if_refused="Do this.")
    assert not (tmp_path / "pwned").exists()
    dcp.FileSystemReader(checkpoint).read_metadata()
    assert (tmp_path / "pwned").exists(), "torch itself has become safe"


def test_a_value_that_would_run_code_is_refused(tmp_path: Path):
    checkpoint = save(tmp_path / "ep0-ba7", {"state": {"batch": Payload(tmp_path / "pwned")}})
    with pytest.raises(RefusedError, match=r"__0_0\.distcp was refused: it holds an object of type posix\.mkdir"):
        read_sharded(checkpoint, if_refused="")
    assert not (tmp_path / "pwned").exists()
    dcp.load({"state": {"batch": 0}}, storage_reader=dcp.FileSystemReader(checkpoint), no_dist=True)
    assert (tmp_path / "pwned").exists(), "torch itself has become safe"


def cut(name: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        path = checkpoint / name
        path.write_bytes(path.read_bytes()[:-40])

    return damage


def lose(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).unlink()


def replace_layout(checkpoint: Path) -> None:
    (checkpoint / ".metadata").write_bytes(pickle.dumps(["not", "a", "layout"]))


@pytest.mark.parametrize(
    "damage", [cut(".metadata"), cut("__0_0.distcp"), lose(".metadata"), lose("__0_0.distcp"), replace_layout]
)
def test_what_is_damaged_is_no_checkpoint(checkpoint: Path, damage: Callable[[Path], None]):
    damage(checkpoint)
    with pytest.raises(UserError, match="It may be cut short: use an earlier one") as raised:
        read_sharded(checkpoint, if_refused="")
    assert not isinstance(raised.value, RefusedError)


@pytest.mark.parametrize("value", [b"MT19937", b"_rebuild_tensor_v2", torch.arange(6.0).numpy().tobytes()])
def test_a_flipped_bit_in_a_shard_is_damage(checkpoint: Path, value: bytes):
    shard = checkpoint / "__0_0.distcp"
    content = bytearray(shard.read_bytes())
    content[content.index(value) + 3] ^= 2
    shard.write_bytes(content)
    with pytest.raises(UserError, match="It may be cut short: use an earlier one") as raised:
        read_sharded(checkpoint, if_refused="")
    assert not isinstance(raised.value, RefusedError)


def test_no_file_outside_of_the_folder_is_read(checkpoint: Path, tmp_path: Path):
    (checkpoint / "__0_0.distcp").rename(tmp_path / "elsewhere")

    def point_there(layout) -> None:
        for place in layout.storage_data.values():
            place.relative_path = "../elsewhere"

    edit_layout(checkpoint, point_there)
    with pytest.raises(UserError, match="holds 0 bytes"):
        read_sharded(checkpoint, if_refused="")
