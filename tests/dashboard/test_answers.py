"""The first four questions, by runs of which the answer is known."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from maskedclip_composer.callbacks.config import WatchConfig
from maskedclip_composer.callbacks.watch import Watch
from maskedclip_composer.dashboard.answer import duration, number, percent
from maskedclip_composer.dashboard.collapse import collapse, judge
from maskedclip_composer.dashboard.cost import cost
from maskedclip_composer.dashboard.learning import learning
from maskedclip_composer.dashboard.run import read_run
from maskedclip_composer.dashboard.speed import speed
from tests.dashboard.written import STEPS, curves, write_run

TIME = np.arange(STEPS) / STEPS
TOTAL, VARIANCE = "loss/train/total", "diagnostics/lg_clip/image_variance"
UP, FLAT = 2 + 2 * TIME, np.tile([2.0, 2.1, 1.9, 2.05], STEPS // 4)


def short(length: int) -> dict[str, np.ndarray]:
    return {name: column[:length] for name, column in curves().items()}


@pytest.mark.parametrize(
    ("values", "verdict", "level"),
    [
        ({}, "Yes, and still falling", "good"),
        ({TOTAL: np.exp(-TIME * 20)}, "Yes; lately it is level", "good"),
        ({TOTAL: UP}, "No: the loss rises", "bad"),
        ({TOTAL: FLAT}, "No trend to be seen", "watch"),
        ({TOTAL: np.abs(TIME - 0.5)}, "Lately the loss rises", "watch"),
        ({"loss/train/mim": UP}, "In part: mim rises", "watch"),
        (short(29), "Too early to say", "unknown"),
        (dict.fromkeys(name for name in curves() if "loss" in name), "Nothing to judge yet", "unknown"),
    ],
)
def test_is_it_learning(tmp_path: Path, values, verdict: str, level: str):
    answer = learning(read_run(write_run(tmp_path / "run", values)))
    assert (answer.verdict, answer.level) == (verdict, level)
    if values == {}:
        total = curves()[TOTAL]
        assert answer.number == f"total loss {number(total[:12].mean())} → {number(total[-12:].mean())}"
        assert any(line.startswith("lg_clip above the least it can be") for line in answer.lines)
        assert {line.split(":")[0] for line in answer.lines} >= {"mim", "lg_clip"}


def test_a_flat_loss_within_the_warm_up_says_nothing(tmp_path: Path):
    values = {TOTAL: FLAT}
    folder = write_run(tmp_path / "run", values, optimizer={"warmup": "12ep"})
    assert learning(read_run(folder)).verdict == "Still warming up"
    assert learning(read_run(write_run(tmp_path / "run", values))).verdict == "No trend to be seen"


def test_a_run_that_diverged_is_not_called_learning(tmp_path: Path):
    assert learning(read_run(write_run(tmp_path / "run"), state="not finite")).verdict == "No: it diverged"


FALLEN = np.concatenate([np.full(60, 0.3), np.full(60, 0.0001)])


@pytest.mark.parametrize(
    ("values", "verdict", "level"),
    [
        ({}, "No sign of it", "good"),
        ({VARIANCE: FALLEN}, "Yes", "bad"),
        ({VARIANCE: np.concatenate([np.full(60, 0.3), np.full(60, 0.009)])}, "Close to it", "watch"),
        ({"diagnostics/lg_clip/logit_scale": np.full(STEPS, 100.0)}, "The logit scale has run away", "bad"),
        (short(4), "Too early to say", "unknown"),
        (
            {VARIANCE: None, "diagnostics/lg_clip/logit_scale": None},
            "Nothing recorded that would show it",
            "unknown",
        ),
        (
            {VARIANCE: None, "diagnostics/lg_clip/logit_scale": None, "diagnostics/x/effective_rank": 1 + 0 * TIME},
            "Nothing to fall from yet",
            "unknown",
        ),
    ],
)
def test_is_it_collapsing(tmp_path: Path, values, verdict: str, level: str):
    answer = collapse(read_run(write_run(tmp_path / "run", values)))
    assert (answer.verdict, answer.level) == (verdict, level)


def test_the_page_judges_as_the_watch_does(tmp_path: Path):
    rng = np.random.default_rng(3)
    values = {
        VARIANCE: 0.3 * np.exp(-8 * TIME * rng.random(STEPS)),
        "diagnostics/lg_clip/retrieval_at_1": 0.1 + 0.8 * (TIME < 0.5) * rng.random(STEPS),
        "diagnostics/lg_clip/retrieval_chance": np.full(STEPS, 0.1),
        "diagnostics/mfd/teacher_effective_rank": 1 + 9 * (TIME < 0.4),
        "diagnostics/lg_clip/logit_scale": 60 + 45 * TIME,
    }
    watch = Watch(WatchConfig(grace=0))
    watch._limits = {"lg_clip": 100.0}
    for step in range(STEPS):
        numbers = {name.removeprefix("diagnostics/"): float(column[step]) for name, column in values.items()}
        numbers["lg_clip/above_floor"] = 1.0
        watch.judge(numbers, step + 1, SimpleNamespace(log_metrics=lambda metrics: None))
    run = read_run(write_run(tmp_path / "run", values))
    found = {one.name: (one.watched.mean, one.watched.best, one.watched.is_bad) for one in judge(run, WatchConfig())}
    expected = {name: (one.mean, one.best, one.is_bad) for name, one in watch._watched.items()}
    assert found.keys() == expected.keys()
    assert any(is_bad for _, _, is_bad in expected.values())
    assert not all(is_bad for _, _, is_bad in expected.values())
    for name in found:
        assert found[name] == pytest.approx(expected[name])


def test_thresholds_are_those_of_the_runs_config(tmp_path: Path):
    values = {VARIANCE: np.concatenate([np.full(60, 0.3), np.full(60, 0.1)])}
    assert collapse(read_run(write_run(tmp_path / "a", values))).level == "good"
    assert collapse(read_run(write_run(tmp_path / "b", values, watch={"variance": 0.5}))).level == "bad"
    answer = collapse(read_run(write_run(tmp_path / "c", values, watch={"variance": None, "grace": 1000})))
    assert not any("image_variance" in line for line in answer.lines)
    assert any("watch.grace" in line for line in answer.lines)


SPEED = "throughput/samples_per_sec"


@pytest.mark.parametrize(
    ("values", "verdict", "level"),
    [
        ({}, "Steady, and the loader keeps up", "good"),
        ({"time/data_wait_share": None}, "Steady", "good"),
        ({"time/data_wait_share": np.full(STEPS, 0.25)}, "It waits for data 25 % of the time", "watch"),
        (
            {SPEED: np.concatenate([np.full(100, 100.0), np.full(20, 50.0)])},
            "Slower of late: 50 % of its median",
            "watch",
        ),
        ({SPEED: np.tile([30.0] * 5 + [90.0] * 5, STEPS // 10)}, "Uneven over the run", "watch"),
        (short(4), "Too early to say", "unknown"),
    ],
)
def test_how_fast_is_it(tmp_path: Path, values, verdict: str, level: str):
    answer = speed(read_run(write_run(tmp_path / "run", values)))
    assert (answer.verdict, answer.level) == (verdict, level)
    if values == {}:
        assert answer.number == f"{number(float(np.median(curves()[SPEED][-12:])))} images/s"
        assert answer.lines[0].startswith(f"A step takes {number(float(np.median(curves()['time/step'][-12:])))} s")


def test_what_did_it_cost(tmp_path: Path):
    run = read_run(write_run(tmp_path / "run", {"time/total": curves()["time/total"][:60]}))
    answer = cost(run)
    assert answer.number == "4 device-hours"  # an hour on four
    assert answer.verdict == "60.0 min so far"
    assert any("price_per_gpu_hour" in line for line in answer.lines)
    assert not any(sign in "".join(answer.lines) for sign in "$€£")
    half = write_run(tmp_path / "half", {name: column[:60] for name, column in curves().items()})
    assert any(line.startswith("About 60.0 min to go") for line in cost(read_run(half)).lines)
    finished = cost(read_run(half, state="finished"))
    assert not any("to go" in line for line in finished.lines)
    assert finished.verdict == "60.0 min"


def test_money_is_said_where_there_is_a_price(tmp_path: Path):
    answer = cost(read_run(write_run(tmp_path / "run", estimate={"price_per_gpu_hour": 2.5}), state="finished"))
    assert answer.verdict == "20.00"  # two hours on four at 2.5
    assert answer.number == "8 device-hours at 2.5 each"


def test_nothing_is_said_of_a_run_without_a_step(tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("run_name: run\n")
    run = read_run(folder)
    assert [answer(run).level for answer in (learning, collapse, speed, cost)] == ["unknown"] * 4


def test_faults_that_were_cut_off_are_left_out(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    (folder / "faults.jsonl").write_text(json.dumps({"step": 4}) + '\n{"step": 5, "no')
    assert read_run(folder).faults == [{"step": 4}]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (number(0.0123456), "0.0123"),
        (number(123456.7), "123,457"),
        (number(-0.98), "-0.98"),
        (number(99.97), "100"),
        (number(float("nan")), "not finite"),
        (percent(0.0123), "1.2 %"),
        (percent(0.5), "50 %"),
        (duration(0.5), "0.5 s"),
        (duration(7200), "2.0 h"),
        (duration(86400 * 3), "3.0 days"),
    ],
)
def test_numbers_as_people_read_them(told: str, expected: str):
    assert told == expected
