import json
import math
from pathlib import Path

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from maskedclip_composer.callbacks.config import TrackingConfig
from tests.callbacks.tiny import make_trainer, run

QUIET = TrackingConfig(mlflow=False, picture_interval=None, diagnostics_interval=1)


class LogAtEnds(Callback):
    """Log as an evaluation does: after the step, and after the epoch."""

    def batch_end(self, state: State, logger: Logger) -> None:
        logger.log_metrics({"eval/step": state.timestamp.batch.value, "eval/diverged": torch.tensor(math.nan)})

    def epoch_end(self, state: State, logger: Logger) -> None:
        logger.log_metrics({"eval/epoch": state.timestamp.epoch.value})


def read(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "tiny" / "metrics.jsonl").read_text().splitlines()]


def test_a_step_has_one_line_and_an_epoch_one_more(tmp_path: Path):
    run(make_trainer(tmp_path, QUIET, callbacks=(LogAtEnds(),))[0])
    lines = read(tmp_path)
    steps = [line for line in lines if "loss/train/total" in line]
    assert [line["batch"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["eval/step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert math.isnan(steps[0]["eval/diverged"])
    assert [(line["batch"], line["eval/epoch"]) for line in lines if "eval/epoch" in line] == [(3, 1), (6, 2)]
    names = "loss/train/mim loss/train/lg_clip loss/train/mfd lr-AdamW/group0 diagnostics/lg_clip/above_floor"
    names += " diagnostics/lg_clip/logit_scale diagnostics/mfd/teacher_patch_variance diagnostics/host_memory_gib"
    assert set(names.split()) <= set(steps[0])


def test_throughput_is_logged(tmp_path: Path):
    run(make_trainer(tmp_path, QUIET, duration="12ba", num_batches=12)[0])
    assert read(tmp_path)[11]["throughput/samples_per_sec"] > 0


def test_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path: Path):
    run(make_trainer(tmp_path, QUIET, duration="4ba", save=True)[0])
    path = tmp_path / "tiny" / "metrics.jsonl"
    # The killed run had come two steps further than its last checkpoint, and amid a line.
    path.write_text(path.read_text() + '{"batch": 5, "stale": 1}\n{"batch": 6, "stale": 1}\n{"batch": 7, "lo')
    run(make_trainer(tmp_path, QUIET, save=True)[0])
    lines = read(tmp_path)
    assert [line["batch"] for line in lines if "loss/train/total" in line] == [1, 2, 3, 4, 5, 6]
    assert not any("stale" in line for line in lines)


def test_a_run_that_composer_refuses_leaves_another_runs_metrics_alone(tmp_path: Path):
    run(make_trainer(tmp_path, QUIET, save=True)[0])
    before = read(tmp_path)
    trainer, _ = make_trainer(tmp_path, QUIET, save=True, resume=False)
    try:
        run(trainer)
    except FileExistsError:
        assert read(tmp_path) == before
    else:
        raise AssertionError("Composer accepted a folder with checkpoints")
