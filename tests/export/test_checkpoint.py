"""What a copy or a power cut leaves of a checkpoint is called damaged, not dangerous."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.checkpoint import RefusedError, read_checkpoint, read_pickle


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


def flip(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_a_flipped_bit_anywhere_is_damage_or_changes_nothing(tmp_path: Path):
    """In a tensor, a name, the pickle's own codes, or the archive's directory."""
    path = tmp_path / "ep0-ba1-rank0.pt"
    torch.save({"state": {"model": {f"blocks.{i}.weight": torch.randn(30) for i in range(5)}}, "steps": 7}, path)
    content, whole = path.read_bytes(), read_checkpoint(path)
    draw = random.Random(0)
    places = [draw.randrange(len(content)) for _ in range(100)]  # a third of the file pads it
    end = len(content) - 22  # of the archive: zipfile itself raises where these change
    places += [content.index(b"blocks.3"), content.index(b"_rebuild_tensor_v2"), *range(end, len(content))]
    damaged = 0
    for place in places:
        path.write_bytes(flip(content, place, draw.randrange(8)))
        try:
            found = read_checkpoint(path)
        except RefusedError:
            pytest.fail(f"a flipped bit at {place} is called dangerous")
        except UserError:
            damaged += 1
        else:
            torch.testing.assert_close(found, whole, rtol=0, atol=0)
    assert damaged > len(places) / 3


def test_a_flipped_bit_in_weights_of_others_is_damage_too(tmp_path: Path):
    """Their sums are compared only where they cannot be read: torch can write files without."""
    path = tmp_path / "foreign.pth"
    torch.save({"weight": torch.ones(3)}, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_w2"))
    with pytest.raises(UserError, match="Fetch it again") as raised:
        read_pickle(path, [], if_refused="", if_damaged="Fetch it again.")
    assert not isinstance(raised.value, RefusedError)
