"""What a disk that takes no more does to a checkpoint; that it is whole otherwise is in tests/training."""

import errno
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from composer.core import Timestamp
from torch.distributed.checkpoint.api import CheckpointException

from maskedclip_composer.callbacks import whole_checkpoints
from maskedclip_composer.callbacks.whole_checkpoints import WholeCheckpoints
from maskedclip_composer.errors import UserError

FULL = OSError(errno.ENOSPC, "No space left on device")
IN_PART = RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 704 vs 598")


def behind(error: BaseException, cause: BaseException) -> BaseException:
    """Torch's error, raised while the disk's is handled."""
    error.__context__ = cause
    return error


def of_ranks(*errors: BaseException) -> CheckpointException:
    return CheckpointException("write", {rank: (error, traceback.StackSummary()) for rank, error in enumerate(errors)})


def save(folder: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(state: Any, filename: str) -> None:
        (folder / ".writing").mkdir()
        (folder / ".writing" / "ep0-ba2-rank0.pt").write_text("half")
        raise error

    monkeypatch.setattr(whole_checkpoints, "save_checkpoint", fail)
    saver = WholeCheckpoints(folder, interval="1ba", keep=1)
    saver.save_interval = lambda state, event: True
    state: Any = SimpleNamespace(timestamp=Timestamp(batch=2), fsdp_sharded_state_dict_enabled=False, run_name="run")
    saver.batch_checkpoint(state, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FULL, "No space left on device"),
        (behind(RuntimeError("unexpected pos"), FULL), "No space left on device"),
        (of_ranks(ValueError("another"), FULL), "No space left on device"),
        (of_ranks(IN_PART), "a file could be written only in part"),
    ],
)
def test_a_disk_that_takes_no_more_is_named(
    error: BaseException, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "ep0-ba1-rank0.pt").write_text("whole")
    with pytest.raises(
        UserError, match=f"The checkpoint of step 2 cannot be written to {tmp_path}: {reason}"
    ) as raised:
        save(tmp_path, error, monkeypatch)
    assert "ep0-ba1-rank0.pt is whole" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ep0-ba1-rank0.pt"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), of_ranks(ValueError("a bug"))])
def test_what_is_not_the_disks_fault_keeps_its_traceback(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(type(error)):
        save(tmp_path, error, monkeypatch)
