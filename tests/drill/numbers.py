"""Numerical faults: steps that are not finite, a logit scale that runs away, features that collapse."""

import contextlib
import io
import json
import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from mlflow import MlflowClient

import maskedclip_composer.build
import train
from maskedclip_composer.algorithms.ema_teacher import unwrap
from tests import tiny
from tests.broken import GradientsOf, NanImages
from tests.composer_run import fit
from tests.drill.fault import Fault, Seen
from tests.drill.numbers_ranks import skipped_and_stopped
from tests.small_run import DEBUG, debug_overrides, write_shards

SETTINGS = ("checkpoint.interval=1ba", "trainer.max_duration=6ba", "tracking.picture_interval=null")
WITHOUT_MLFLOW = "tracking.mlflow=false"
STEPS, IMAGES = 30, 16  # of a run that is watched
LONG = (f"trainer.max_duration={STEPS}ba", "watch.grace=0", "tracking.diagnostics_interval=1")


class Trained(Callback):
    """The sample ids of each step that a run has computed, by the step's number."""

    def __init__(self):
        self.ids: dict[int, list[int]] = {}

    def batch_start(self, state: State, logger: Logger) -> None:
        ids = [sample for part in state.batch.values() for sample in part["sample_id"].tolist()]
        self.ids[state.timestamp.batch.value + 1] = ids

    def lacks(self, steps: int) -> int:
        """Return how many samples of the first steps were not trained on."""
        return sum(IMAGES - len(self.ids.get(step, [])) for step in range(1, steps + 1))


class Collapse(Callback):
    """From a step on no photograph reaches the network: the patch embedding is zero, and all images are alike."""

    def __init__(self, step: int):
        self.step = step

    def batch_end(self, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value >= self.step:
            net = unwrap(state.model).net
            for branch in (net.branch, net.teacher):
                assert branch is not None
                branch.image_encoder.vit.patch_embed.proj.weight.data.zero_()
                branch.image_encoder.vit.patch_embed.proj.bias.data.zero_()


class RaiseScale(Callback):
    """The gradient of the logit scale says "up" in every step, whatever the loss is."""

    def after_backward(self, state: State, logger: Logger) -> None:
        (objective,) = (o for o in unwrap(state.model).net.objectives.values() if hasattr(o, "log_logit_scale"))
        objective.log_logit_scale.grad.fill_(-1.0)


def run(folder: Path, *overrides: str, callbacks: Sequence[Callback] = ()) -> tuple[int, str]:
    """Start or continue the debug run through train.py; return its exit status and what it printed as an error."""
    if not (folder / "shards").exists():
        write_shards(folder / "shards")
        tiny.save_text_tower(folder / "text")
    build = maskedclip_composer.build.build_trainer

    def build_with_more(config: Any) -> Any:
        trainer = build(config)
        trainer.state.callbacks[:0] = callbacks
        return trainer

    maskedclip_composer.build.build_trainer = build_with_more  # in this process, which ends with the rehearsal
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    logging.getLogger("maskedclip_composer").addHandler(handler)
    base = debug_overrides(folder / "shards", folder / "text", folder / "runs")
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            status = train.main([DEBUG, *base, *SETTINGS, *overrides])
    finally:
        maskedclip_composer.build.build_trainer = build
        logging.getLogger("maskedclip_composer").removeHandler(handler)
    return status, printed.getvalue()


def faults(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs" / "debug" / "faults.jsonl").read_text().splitlines()]


def metrics(folder: Path, name: str) -> list[float]:
    lines = (folder / "runs" / "debug" / "metrics.jsonl").read_text().splitlines()
    return [line[name] for line in map(json.loads, lines) if name in line]


def not_listed(folder: Path, trained: Trained, steps: Sequence[int]) -> int:
    """Count the samples of spoilt steps that faults.jsonl does not list, with the photograph of each."""
    listed = {
        (fault["step"], sample["id"])
        for fault in faults(folder)
        for report in fault["ranks"]
        for part in report["samples"].values()
        for sample in part
        if sample["source"].endswith(".jpg")
    }
    return len({(step, sample) for step in steps for sample in trained.ids[step]} - listed)


def stopped(folder: Path, fault: Callback, what: str) -> Seen:
    """Spoil the third step, see the run stop, and let the same command go on where it was."""
    trained = Trained()
    status, message = run(folder, WITHOUT_MLFLOW, callbacks=[trained, fault])
    checkpoints = {path.name for path in (folder / "runs/debug/checkpoints").glob("ep*")}
    spoilt = [name for name in checkpoints if "ba3" in name]
    lost = not_listed(folder, trained, [3])
    again, rest = run(folder, WITHOUT_MLFLOW, callbacks=[trained])
    kept = status == 2 and f"Step 3: {what}" in message and not spoilt and lost == again == 0 and max(trained.ids) == 6
    return Seen(what=f"exit {status}, then {again}: {message}{rest}", lost=lost, kept=kept)


def skipped(folder: Path) -> Seen:
    """Skip one step of a whole run; and of tiny steps compare with a run that never had the spoilt one."""
    trained = Trained()
    status, message = run(folder, WITHOUT_MLFLOW, "optimizer.non_finite=skip", callbacks=[trained, NanImages([3])])
    lost = not_listed(folder, trained, [3])
    counted = metrics(folder, "faults/skipped_steps")
    good = [tiny.batch(4, 4, seed) for seed in range(4)]
    _, without, _ = fit(tiny.net("maskedclip"), [*good[:1], *good[2:]])
    _, with_it, _ = fit(tiny.net("maskedclip"), good, non_finite="skip", callbacks=[NanImages([2])])
    pairs = [(value, with_it.parameters[-1][name]) for name, value in without.parameters[-1].items()]
    same = all(torch.equal(*pair) for pair in pairs) and without.losses[-1] == with_it.losses[-1]
    kept = status == lost == 0 and same and counted == [0, 1] and "Step 3:" in message
    equal = f"{len(pairs)} parameters, the teacher's too, are {'bit for bit' if same else 'NOT'} those without the step"
    return Seen(what=f"exit {status}, counted {counted}; {equal}. {message}", lost=lost, kept=kept)


def too_many(folder: Path) -> Seen:
    """Spoil more steps in a row than may be skipped, across a stop and a resume."""
    trained, settings = Trained(), (WITHOUT_MLFLOW, "optimizer.non_finite=skip", "optimizer.max_skipped=2")
    first, _ = run(folder, *settings, "trainer.max_duration=3ba", callbacks=[trained, NanImages([2, 3])])
    status, message = run(folder, *settings, callbacks=[trained, NanImages([4])])
    lost = not_listed(folder, trained, [2, 3, 4])
    kept = first == 0 and status == 2 and "Step 4:" in message and "after 2 skipped steps in a row" in message
    return Seen(what=f"exit {status}: {message}", lost=lost, kept=kept and not lost)


def runaway(folder: Path) -> Seen:
    """Drive the logit scale to its limit."""
    trained, overrides = Trained(), ("optimizer.lr=1.0e-3", "objectives.lg_clip.temperature=0.0102")
    status, message = run(folder, WITHOUT_MLFLOW, *overrides, *LONG, callbacks=[trained, RaiseScale()])
    told = message.count("lg_clip/logit_scale is at")
    kept = status == 0 and told == 1 and max(metrics(folder, "health/warnings")) >= 1
    return Seen(what=f"exit {status}, told {told} times: {message}", lost=trained.lacks(STEPS), kept=kept)


def collapsed(folder: Path) -> Seen:
    """Blind the encoder and its teacher, and read the warning in the log, the metrics and MLflow."""
    trained = Trained()
    status, message = run(folder, *LONG, callbacks=[trained, Collapse(5)])
    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    run_id = json.loads((folder / "runs" / "debug" / "mlflow_run.json").read_text())["run_id"]
    tag = client.get_run(run_id).data.tags.get("health", "no tag")
    most = max(metrics(folder, "health/warnings"))
    kept = status == 0 and most >= 1 and tag.startswith("collapse: ") and message.count("image_variance is at") == 1
    what = f"exit {status}, {most:.0f} warnings, MLflow's tag {tag!r}. {message}"
    return Seen(what=what, lost=trained.lacks(STEPS), kept=kept)


STOPS = "stops before the step's checkpoint, names losses and photographs; the same command goes on"
FAULTS = [
    Fault(
        name="a loss is NaN",
        expected=STOPS,
        within=120,
        run=partial(stopped, fault=NanImages([3]), what="the gradient norm is nan, the loss mim is nan"),
    ),
    Fault(
        name="a gradient is infinite",
        expected=STOPS,
        within=120,
        run=partial(stopped, fault=GradientsOf(math.inf, [3]), what="the gradient norm is"),
    ),
    Fault(
        name="a loss is NaN, with optimizer.non_finite=skip",
        expected="goes on, bit for bit as without the step; the photographs are listed",
        within=120,
        run=skipped,
    ),
    Fault(
        name="more steps in a row are NaN than may be skipped",
        expected="stops, also when a resume lies between them",
        within=120,
        run=too_many,
    ),
    Fault(
        name="a loss is NaN on one of two ranks, DDP and FSDP2",
        expected="both ranks skip the step or both stop",
        within=400,
        run=skipped_and_stopped,
    ),
    Fault(
        name="the logit scale runs to its limit",
        expected="one warning; the run goes on",
        within=120,
        run=runaway,
    ),
    Fault(
        name="features collapse",
        expected="one warning a number, in the log, the metrics and MLflow; the run goes on",
        within=180,
        run=collapsed,
    ),
]
