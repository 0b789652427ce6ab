"""Who may use a cache folder, and what is left of a run in it."""

import os
import threading

import pytest

from maskedclip_composer.data.cache import FETCHING, HeldCache
from maskedclip_composer.data.threads import Stopped, call_within
from maskedclip_composer.errors import UserError


def test_a_held_cache_is_refused_and_a_released_one_has_no_half_files(tmp_path):
    first = HeldCache(tmp_path / "cache", "data.paired")
    first.write(7)
    half = tmp_path / "cache" / FETCHING / "half"
    half.parent.mkdir()
    half.touch()
    with pytest.raises(UserError, match=rf"data\.paired: another run uses .*cache \(process {os.getpid()} on .*local"):
        HeldCache(tmp_path / "cache", "data.paired", patience=0.0)
    assert half.exists()
    del first
    second = HeldCache(tmp_path / "cache", "data.paired", patience=0.0)
    assert second.previous == 7
    assert not half.exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.paired\.local = .*file/cache: cannot be written"):
        HeldCache(tmp_path / "file" / "cache", "data.paired")


def test_what_takes_too_long_or_is_not_wanted_is_left():
    event = threading.Event()
    with pytest.raises(TimeoutError, match=r"not complete after 0\.05 seconds"):
        call_within(0.05, event.wait, lambda: False)
    with pytest.raises(Stopped):
        call_within(60.0, event.wait, lambda: True)
    event.set()
    assert call_within(60.0, event.wait, lambda: False)
    with pytest.raises(ZeroDivisionError):
        call_within(60.0, lambda: 1 // 0, lambda: False)
