import json
from pathlib import Path

import pytest

from maskedclip_composer.dashboard.series import MetricsReader


def line(batch: int, epoch: int = 0, **values) -> str:
    names = {"loss": "loss/train/total"}
    return json.dumps({"batch": batch, "epoch": epoch} | {names.get(key, key): one for key, one in values.items()})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_what_is_added_is_read_once(path: Path):
    reader = MetricsReader(path)
    assert reader.read() == {}
    path.write_text(line(1, loss=3.0) + "\n")
    assert list(reader.read()["loss/train/total"].y) == [3.0]
    with path.open("a") as file:
        file.write(line(2, loss=2.0) + "\n" + line(3, loss=1.0)[:20])
    assert list(reader.read()["loss/train/total"].y) == [3.0, 2.0]
    with path.open("a") as file:  # the rest of the line that was cut
        file.write(line(3, loss=1.0)[20:] + "\n")
    series = reader.read()["loss/train/total"]
    assert list(series.y) == [3.0, 2.0, 1.0]
    assert list(series.x) == [1, 2, 3]
    assert reader.step == 3


def test_a_file_that_a_resumed_run_has_cut_is_read_anew(path: Path):
    path.write_text("".join(line(step, loss=9.0) + "\n" for step in (1, 2, 3)))
    reader = MetricsReader(path)
    reader.read()
    aside = path.with_name("aside")
    aside.write_text(line(1, loss=9.0) + "\n" + line(2, loss=5.0) + "\n")
    aside.replace(path)
    assert list(reader.read()["loss/train/total"].y) == [9.0, 5.0]
    assert reader.step == 2


def test_composers_clock_tells_how_long_epochs_are(path: Path):
    clocks = [{"time/epoch": 0.0, "time/batch": 0.0}, {"time/batch": 1.0}, {"time/epoch": 1.0, "time/batch": 2.0}]
    lines = [line(step + 1, step // 2, loss=1.0, **clock) for step, clock in enumerate(clocks)]
    path.write_text("\n".join(lines[:2]) + "\n")
    reader = MetricsReader(path)
    reader.read()
    assert reader.steps_per_epoch is None
    with path.open("a") as file:
        file.write(lines[2] + "\n" + line(4, 2, **{"time/epoch": 2.0, "time/batch": 4.0}) + "\n")
    reader.read()
    assert (reader.step, reader.epoch, reader.steps_per_epoch) == (4, 2, 2)


def test_damaged_lines_and_what_is_not_shown_are_left_out(path: Path):
    more = {"loss/train/total": float("nan"), "time/sample": 7.0}
    path.write_text('{"batch": \n[]\n{"epoch": 1}\n"x"\n' + json.dumps({"batch": 1, "epoch": 0} | more) + "\n")
    series = MetricsReader(path).read()
    assert set(series) == {"loss/train/total"}
    assert len(series["loss/train/total"]) == 1
    assert len(series["loss/train/total"].finite) == 0
