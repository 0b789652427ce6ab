import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from maskedclip_composer.callbacks.fault_file import FaultFile


def test_faults_are_appended_with_their_time_and_sent(tmp_path: Path):
    sent: list[Path] = []
    tracker: Any = SimpleNamespace(log_artifact=sent.append, log_at_end=lambda path: None)
    path = tmp_path / "run" / "faults.jsonl"
    for step in (1, 2):
        assert FaultFile(path, tracker).append({"step": step, "norm": math.inf}) == str(path)
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["step"], second["step"], first["norm"]) == (1, 2, math.inf)
    assert first["time"] <= second["time"]
    assert sent == [path, path]


def test_what_is_sent_grows_as_the_file_does(tmp_path: Path):
    """The whole file at each fault would be the square."""
    sent: list[int] = []
    at_end: set[Path] = set()
    path = tmp_path / "faults.jsonl"
    tracker: Any = SimpleNamespace(log_artifact=lambda path: sent.append(path.stat().st_size), log_at_end=at_end.add)
    file = FaultFile(path, tracker)
    for step in range(200):
        file.append({"step": step})
    assert sum(sent) <= 2 * path.stat().st_size
    assert at_end == {path}


def test_a_fault_that_cannot_be_written_is_told_and_does_not_end_the_run(tmp_path: Path, caplog):
    (tmp_path / "run").write_text("a file where the folder should be")
    FaultFile(tmp_path / "run" / "faults.jsonl", None).append({"step": 7})
    assert "cannot be written" in caplog.text
    assert '"step": 7' in caplog.text
