import json
import subprocess
import sys
from pathlib import Path

import pytest

from maskedclip_composer.dashboard.state import STATE_FILE, count_kills, read_state, write_state


def test_a_state_is_read_as_it_was_written(tmp_path: Path):
    for state in ("running", "finished", "failed", "not finite"):
        write_state(tmp_path, state)
        assert read_state(tmp_path) == state


def test_a_run_whose_process_is_gone_was_killed(tmp_path: Path):
    write_state(tmp_path, "running")
    content = json.loads((tmp_path / STATE_FILE).read_text())
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / STATE_FILE).write_text(json.dumps(content | {"pid": process.pid}))
    assert read_state(tmp_path) == "killed"
    # The number of this process, but of one that has begun at another time.
    (tmp_path / STATE_FILE).write_text(json.dumps(content | {"process_began": content["process_began"] - 500}))
    assert read_state(tmp_path) == "killed"
    # What another machine does cannot be seen from here.
    (tmp_path / STATE_FILE).write_text(json.dumps(content | {"pid": process.pid, "host": "elsewhere"}))
    assert read_state(tmp_path) == "running"


def test_kills_are_counted_when_the_run_goes_on(tmp_path: Path):
    assert write_state(tmp_path, "running") == 0
    assert write_state(tmp_path, "running") == 1  # the one before has left no other word
    assert write_state(tmp_path, "finished") == 1
    assert write_state(tmp_path, "running") == 1  # trained on
    assert count_kills(tmp_path) == 1


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"state": "asleep"}', '{"state": "running", "kills": "x"}']
)
def test_nothing_or_nonsense_is_unknown(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / STATE_FILE).write_text(text)
    assert count_kills(tmp_path) == 0
    assert read_state(tmp_path) in (("running",) if text and "running" in text else ("unknown",))
