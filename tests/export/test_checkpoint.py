"""What a copy or a power cut leaves of a checkpoint is called damaged, not dangerous."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.checkpoint import RefusedError, read_checkpoint


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: bytes(len(content)), lambda content: content[: len(content) // 2]]
)
def test_what_is_damaged_is_not_refused(damage: Callable[[bytes], bytes], tmp_path: Path):
    path = tmp_path / "ep0-ba1-rank0.pt"
    torch.save({"state": {"model": {"weight": torch.ones(1000)}}}, path)
    assert read_checkpoint(path)["state"]["model"]["weight"].sum() == 1000
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="use an earlier one of the same run") as raised:
        read_checkpoint(path)
    assert not isinstance(raised.value, RefusedError)


def test_a_model_that_was_pickled_whole_is_refused(tmp_path: Path):
    path = tmp_path / "ep0-ba1-rank0.pt"
    torch.save({"state": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(RefusedError, match=r"an object of type torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(path)
