"""Commands one after the other: with small scripts in place of train.py, and once with train.py and evaluate.py."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from maskedclip_composer.sweep import child
from maskedclip_composer.sweep.__main__ import main
from maskedclip_composer.sweep.child import last_lines, progress
from maskedclip_composer.sweep.execute import INTERRUPTED, execute
from maskedclip_composer.sweep.plan import Job
from tests.evaluation.conftest import mds  # noqa: F401  a fixture
from tests.training.conftest import DEBUG, overrides, shards  # noqa: F401  fixtures

GOOD = "print('all well')"
BAD = "import sys; print('first'); print('no such shard', file=sys.stderr); sys.exit(2)"


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def build(name: str, code: str = GOOD, **more) -> Job:
        script = tmp_path / f"{name}.py"
        script.write_text(code)
        log = tmp_path / "sweep" / f"{name}.log"
        return Job(name=name, folder=log.with_suffix(""), log=log, script=str(script), arguments=(), ranks=1, **more)

    return build


def table(told: str) -> dict[str, str]:
    """Return the outcome of each row."""
    lines = [line.split("  ") for line in told.splitlines() if not line.startswith(" ")]
    return {parts[0]: "".join(parts[1:]) for parts in lines if len(parts) > 2}


def test_a_failure_is_told_with_the_end_of_its_log_and_the_others_have_their_turn(job, capsys):
    jobs = [job("a"), job("b", BAD), job("c"), job("d", BAD, is_done=True), job("evaluation", BAD)]
    assert execute(jobs, again="the command") == 1
    told = capsys.readouterr().out
    rows = table(told)
    assert "done in 0:00:0" in rows["a"]
    assert "FAILED with status 2" in rows["b"]
    assert "done in" in rows["c"]
    assert "was finished" in rows["d"]
    assert "not started" in rows["evaluation"]
    assert f"b failed; {jobs[1].log} ends with\n" in told
    assert "  no such shard" in told
    assert "To continue: the command" in told
    assert jobs[2].log.read_text() == f"$ {jobs[2]}\nall well\n"
    assert not jobs[3].log.exists()

    again = [job("b"), job("evaluation", BAD)]
    assert execute(again, again="the command") == 1
    assert "evaluation failed" in capsys.readouterr().out
    assert "no such shard" in again[0].log.read_text()  # what was there is kept
    assert execute([job("b"), job("evaluation")], again="the command") == 0


@pytest.fixture
def heard() -> Iterator[None]:
    """Listen to SIGHUP, which nohup keeps away from the suite, and then rightly from its commands."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "deaf"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGHUP, False)])
@pytest.mark.usefixtures("heard")
def test_an_interruption_ends_the_command_and_says_how_to_continue(job, capsys, monkeypatch, number: int, deaf: bool):
    monkeypatch.setattr(child, "INTERVAL", 0.05)
    monkeypatch.setattr(child, "GRACE", 1.0 if deaf else 60.0)
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN);" if deaf else ""
    code = f"import os, signal, time; {ignore} print(os.getpid(), flush=True); time.sleep(300)"
    jobs = [job("a"), job("b", code), job("c")]

    def interrupt():
        while not (jobs[1].log.exists() and len(jobs[1].log.read_text().splitlines()) == 2):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    start, before = time.monotonic(), signal.getsignal(number)
    assert execute(jobs, again="the command") == INTERRUPTED
    assert time.monotonic() - start < 30
    told = capsys.readouterr().out
    rows = table(told)
    assert "done in" in rows["a"]
    assert "stopped" in rows["b"]
    assert "not started" in rows["c"]
    assert "Stopped. To continue: the command" in told
    process = int(jobs[1].log.read_text().splitlines()[1])
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert signal.getsignal(number) == before


def test_progress_is_the_last_whole_step(tmp_path: Path):
    assert progress(tmp_path) == ""
    lines = [json.dumps({"batch": step, "loss/train/total": 1 / step, "x": "y" * 5000}) for step in (1, 2)]
    ends = json.dumps({"batch": 3, "loss/train/total": 0.25}) + "\n" + json.dumps({"epoch": 1}) + '\n{"batch": 4, "lo'
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, ends]))
    assert progress(tmp_path) == "step 3, loss 0.25"
    (tmp_path / "log").write_text("\n".join(map(str, range(50))))
    assert last_lines(tmp_path / "log", 3) == ["47", "48", "49"]


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path, capsys):
    (tmp_path / "table2").mkdir()
    with FileLock(tmp_path / "table2" / "sweep.lock"):
        assert main(["yamls/sweeps/table2.yaml", f"output={tmp_path}"]) == 2
    assert "another process is at work there" in capsys.readouterr().err


@pytest.mark.slow
def test_two_recipes_are_trained_evaluated_together_and_not_trained_again(
    overrides,  # noqa: F811
    mds: Path,  # noqa: F811
    tmp_path: Path,
    capsys,
    monkeypatch,
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shared = [override for override in overrides() if not override.startswith(("output=", "trainer.progress_bar"))]
    shared += ["trainer.max_duration=2ba", "optimizer.warmup=1ba", "checkpoint.interval=2ba", "tracking.mlflow=false"]
    evaluation = [f"tasks=[{mds}]", "protocols=[knn]", "seeds=1", "fractions=[1.0]", "workers=0"]
    sweep = {
        "name": "two",
        "output": str(tmp_path),
        "shared": shared,
        "runs": {"whole": {"recipe": DEBUG}, "no_mfd": {"recipe": DEBUG, "overrides": ["objectives.mfd=null"]}},
        "evaluate": {"overrides": [*evaluation, "tracking.mlflow=false"]},
    }
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(sweep))
    assert main([str(path)]) == 0, last_log(tmp_path / "two")
    told = capsys.readouterr().out
    folder = tmp_path / "two"
    assert f"{folder / 'evaluation' / 'report' / 'report.html'}" in told
    assert json.loads((folder / "evaluation" / "suite.json").read_text())
    table = (folder / "evaluation.log").read_text()
    assert "whole" in table
    assert "no_mfd" in table

    encoder = folder / "no_mfd" / "encoder.safetensors"
    written = encoder.stat().st_mtime_ns
    assert main([str(path), "evaluate=null"]) == 0
    assert capsys.readouterr().out.count("was finished") == 2
    assert encoder.stat().st_mtime_ns == written
    assert main([str(path), "runs.no_mfd.overrides=[objectives.mfd=null,mask_ratio=0.5]"]) == 2
    assert "mask_ratio: 0.75 then, 0.5 now" in capsys.readouterr().err


def last_log(folder: Path) -> str:
    return "\n".join(f"{log}\n{log.read_text()[-2000:]}" for log in folder.glob("*.log"))
