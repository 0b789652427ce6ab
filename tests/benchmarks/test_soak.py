"""The soak's verdict, on series whose growth is known; `make soak` is the run itself."""

import os

import numpy as np
import psutil
import pytest
from soak import SERIES, STEP_TIME, Records, report

STEPS = list(range(25, 4001, 25))


def records(**grown: float) -> Records:
    """Series with noise around 1000, and what is given added per 1000 steps."""
    noise = np.random.default_rng(0)
    made = Records(steps=STEPS)
    for name in made.values:
        slope = grown.get(name.split(",")[0].replace(" ", "_"), 0.0)
        made.values[name] = [1000 + slope * step / 1000 + float(noise.normal(0, 0.1)) for step in STEPS]
    return made


def test_what_stays_is_flat(capsys):
    assert report(records())
    assert capsys.readouterr().out.count("| flat |") == len(SERIES) + 1


@pytest.mark.parametrize("what", ["resident_memory", "open_files", "shared_memory", "temporary_files"])
def test_a_leak_is_told_by_name(what, capsys):
    assert not report(records(**{what: 10.0}))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "GROWS" in line]
    assert what.replace("_", " ") in row


def test_jumps_and_what_fills_at_the_start_are_no_leak():
    made = records()
    memory = made.values["resident memory, trainer"]
    for index in (5, 70, 90, 120):
        memory[index] += 500
    for index in range(40):
        memory[index] -= 10 * (40 - index)
    assert report(made)


def test_steps_that_get_slower_are_told(capsys):
    made = records()
    made.values[STEP_TIME] = [50 + step / 200 for step in STEPS]
    assert not report(made)


def test_series_see_what_is_opened():
    process = psutil.Process()
    files, segments = SERIES["open files, all processes"].read, SERIES["shared memory, all processes"].read
    before, mapped = files(process), segments(process)
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(create=True, size=64)
    descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        assert files(process) >= before + 1
        assert segments(process) == mapped + 1
    finally:
        os.close(descriptor)
        memory.close()
        memory.unlink()
