"""Runs that open their data at the same instant, and what a killed run leaves of Streaming's shared memory."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest
from streaming.base.constant import BARRIER, LOCALS, SHM_TO_CLEAN

from maskedclip_composer.data.shared_names import SHM, _first_free, naming_alone
from maskedclip_composer.errors import UserError

OPENER = """
import sys
from maskedclip_composer.data.joint import JointDataset
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.streams import open_streams
data = DataConfig(unpaired=StreamConfig(remote=sys.argv[1], batch_size=2))
print("ready", flush=True)
sys.stdin.readline()
kept = [JointDataset(open_streams(data), transform=lambda *_: None, data=data, seed=0) for _ in range(8)]
"""


def open_in_three_processes(folder: Path) -> list[int]:
    command = [sys.executable, "-c", OPENER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    processes = [subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=200)
    return [process.returncode for process in processes]


def test_runs_that_start_at_the_same_instant_get_names_of_their_own(sets):
    assert open_in_three_processes(sets["unpaired"]) == [0, 0, 0]


@pytest.fixture
def leftovers() -> Iterator[list[SharedMemory]]:
    """At the first free number all but the list of folders is in use, at the next one that list."""
    number = max(map(_first_free, SHM_TO_CLEAN))
    kept = [SharedMemory(f"{number + at:06}_{kind}", create=True, size=8) for at, kind in ((0, BARRIER), (1, LOCALS))]
    yield kept
    for memory in kept:
        memory.close()
        with contextlib.suppress(FileNotFoundError):
            memory.unlink()


def test_what_a_killed_run_left_is_named(leftovers):
    with (
        pytest.raises(UserError, match=rf"{leftovers[1].name} is in use.*remove /dev/shm/0\*_\* and start again"),
        naming_alone(patience=0.1),
    ):
        raise AssertionError("the number is in use")


def test_a_run_that_keeps_its_turn_is_named():
    """As a stopped one does."""
    kept = os.open(SHM, os.O_RDONLY)
    fcntl.flock(kept, fcntl.LOCK_EX)
    try:
        with (
            pytest.raises(UserError, match=rf"another run of this machine \(process {os.getpid()}\).*end it"),
            naming_alone(turn=0.0),
        ):
            raise AssertionError("the lock is taken")
    finally:
        os.close(kept)
    with naming_alone(turn=0.0):
        pass


def test_waits_while_a_killed_run_is_being_removed(leftovers):
    timer = threading.Timer(0.3, leftovers[1].unlink)
    timer.start()
    with naming_alone(patience=20):
        assert not timer.is_alive()
