"""The drill itself: a fault that hangs, dies or raises is seen as such."""

import os
import time
from pathlib import Path

from tests.drill.fault import Fault, Seen, rehearse


def fine(folder: Path) -> Seen:
    (folder / "file").write_text("x")
    return Seen(what="two\n lines", kept=True)


def hangs(folder: Path) -> Seen:
    time.sleep(600)
    raise AssertionError


def dies(folder: Path) -> Seen:
    os._exit(3)


def raises(folder: Path) -> Seen:
    raise ValueError("broken promise")


def fault(run, within=60.0) -> Fault:
    return Fault(name="a", expected="b", within=within, run=run)


def test_what_was_seen_comes_back(tmp_path):
    seen, seconds = rehearse(fault(fine), tmp_path)
    assert seen == Seen(what="two lines", kept=True)
    assert seconds < 60
    assert (tmp_path / "file").exists()


def test_a_fault_that_hangs_is_killed():
    seen, _ = rehearse(fault(hangs, within=1.0))
    assert not seen.kept
    assert "hangs" in seen.what


def test_a_process_that_dies_breaks_the_promise():
    seen, _ = rehearse(fault(dies))
    assert not seen.kept
    assert "died (3)" in seen.what


def test_an_exception_breaks_the_promise():
    seen, _ = rehearse(fault(raises))
    assert not seen.kept
    assert "broken promise" in seen.what
