"""No file ends a preparation or a training, whatever is in it: a picture, or a reason; in bounded memory and time."""

import os
import time

import pytest

from tests.fuzz.run import feed, files, quick


def test_damaged_and_hostile_photographs(tmp_path):
    found = feed(quick(seed=0, mutations=400), tmp_path)
    assert not found.failures, "\n".join(found.failures)
    assert found.tried > 500
    assert 50 < found.stored < found.tried / 2  # the whole ones, and not what harms


def dies(data, path):
    os._exit(3)


def hangs(data, path):
    time.sleep(600)


def eats(data, path):
    return "x"[len(bytearray(200_000_000)) :], False


def raises(data, path):
    raise ValueError("not a UserError")


@pytest.mark.parametrize(
    ("judge", "said"),
    [(dies, "died (3)"), (hangs, "hangs"), (eats, "takes "), (raises, "ValueError: not a UserError")],
)
def test_what_a_file_may_not_do_is_seen(tmp_path, monkeypatch, judge, said):
    monkeypatch.setattr("tests.fuzz.run.MOST_MEMORY", 100_000_000)
    found = feed([("a", b"x")], tmp_path, judge=judge, patience=1.0 if judge is hangs else 60.0)
    assert len(found.failures) == 1
    assert said in found.failures[0]
    assert (tmp_path / "failure-0").read_bytes() == b"x"


def test_a_seed_gives_the_same_files():
    first, again, other = ([data for _, data in quick(seed, mutations=30)][-30:] for seed in (1, 1, 2))
    assert first == again != other
    assert len(dict(quick(1, mutations=5))) == len(list(quick(1, mutations=5)))  # names tell them apart
    assert next(iter(files(0)))[0] == "whole 0"
