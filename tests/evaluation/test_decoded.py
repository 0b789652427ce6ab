import numpy as np
import pytest

from maskedclip_composer.data.transforms import decode
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation import decoded as module
from maskedclip_composer.evaluation.data import load_labelled
from maskedclip_composer.evaluation.decoded import decode_all
from tests.evaluation.conftest import LABELS, SIZES, photograph, write_mds


def test_every_photograph_is_decoded_once_and_kept(mds, monkeypatch):
    data = load_labelled(str(mds))
    calls = []
    monkeypatch.setattr(module, "decode", lambda image, *, name: calls.append(name) or decode(image, name=name))
    splits = decode_all(data, memory=1.0, workers=2)
    assert len(calls) == len(set(calls)) == sum(SIZES.values())
    for name, split in splits.items():
        part = getattr(data, name)
        for row in range(len(part)):
            np.testing.assert_array_equal(split.pixels(row), decode(part.photographs.image(row)))
    assert len(calls) == sum(SIZES.values())


def test_memory_is_a_bound_and_what_does_not_fit_is_decoded_again(mds):
    data = load_labelled(str(mds))
    one = 40 * 48 * 3
    splits = decode_all(data, memory=(SIZES["train"] + 2.5) * one / 2**30, workers=3)
    assert [len(split.kept) for split in splits.values()] == [SIZES["train"], 2, 0]
    np.testing.assert_array_equal(splits["test"].pixels(20), decode(data.test.photographs.image(20)))
    none = decode_all(data, memory=0, workers=1)
    assert not any(split.kept for split in none.values())


def test_processes_of_a_machine_share_its_memory(mds, monkeypatch):
    data = load_labelled(str(mds))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    splits = decode_all(data, memory=2 * 10.5 * 40 * 48 * 3 / 2**30, workers=1)
    assert sum(len(split.kept) for split in splits.values()) == 10


def test_every_unreadable_photograph_is_named(tmp_path):
    rng = np.random.default_rng(0)
    for split in SIZES:
        images = [photograph(label, rng) for label in LABELS]
        if split == "test":
            images = [images[0], b"x", images[2][:200]]
        write_mds(tmp_path / split, list(LABELS), images)
    with pytest.raises(UserError, match="2 photographs cannot be decoded") as error:
        decode_all(load_labelled(str(tmp_path)), memory=1.0, workers=2)
    assert "1.png" in str(error.value)
    assert "2.png" in str(error.value)
