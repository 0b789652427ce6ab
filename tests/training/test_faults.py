"""A whole run with a step that is not finite: stopped, then continued by the other policy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import maskedclip_composer.build
import train
from maskedclip_composer.config import TrainConfig
from tests.broken import NanImages
from tests.training.conftest import DEBUG
from tests.training.test_train import lines


@pytest.fixture
def _spoilt_third_step(monkeypatch: pytest.MonkeyPatch):
    build = maskedclip_composer.build.build_trainer

    def spoilt(config: TrainConfig):
        trainer = build(config)
        trainer.state.callbacks.append(NanImages([3]))
        return trainer

    monkeypatch.setattr(maskedclip_composer.build, "build_trainer", spoilt)


@pytest.mark.usefixtures("_spoilt_third_step")
def test_a_run_that_stopped_at_a_step_goes_on_without_it(
    overrides: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    without = ("tracking.mlflow=false", "tracking.picture_interval=null")
    given = overrides("checkpoint.interval=1ba", "trainer.max_duration=4ba", *without)
    assert train.main([DEBUG, *given]) == 2
    run = tmp_path / "runs" / "debug"
    message = capsys.readouterr().err
    assert "Step 3: the gradient norm is nan, the loss mim is nan" in message
    assert "(TOY: paired/" in message
    assert str(run / "faults.jsonl") in message
    assert not list(run.glob("checkpoints/*ba3*"))

    more = ["optimizer.non_finite=skip", "optimizer.max_skipped=1", "watch.grace=0"]
    assert train.main([DEBUG, *given, *more]) == 0
    stop, skip = (json.loads(line) for line in (run / "faults.jsonl").read_text().splitlines())
    assert (stop["step"], stop["action"], skip["step"], skip["action"]) == (3, "stop", 3, "skip")
    (report,) = skip["ranks"]
    assert report["samples"] == stop["ranks"][0]["samples"]
    for stream in ("paired", "unpaired"):
        first = 0 if stream == "paired" else 19  # ids count over both streams
        assert [sample["source"] for sample in report["samples"][stream]] == [
            f"{stream}/{sample['id'] - first}.jpg" for sample in report["samples"][stream]
        ]
    assert lines(run, "faults/skipped_steps") == [1]
    assert lines(run, "health/warnings")[-1] == 0
