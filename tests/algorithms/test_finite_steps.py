"""Steps that are not finite: stopped or skipped, named, counted."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from composer.core import Callback, Event, Precision, State
from composer.devices import DeviceCPU
from composer.loggers import Logger

from maskedclip_composer.algorithms.clip_gradients import ClipGradients
from maskedclip_composer.algorithms.fault import Fault, RankReport, rank_report
from maskedclip_composer.algorithms.finite_steps import FiniteSteps
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.pretrain import MaskedCLIP
from tests import tiny
from tests.broken import GradientsOf, LossIsNan, NanImages
from tests.composer_run import fit


class Checkpoints(Callback):
    """Counts the steps that may write one."""

    def __init__(self):
        self.count = 0

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        self.count += 1


def batches(count: int) -> list:
    """Steps of different photographs."""
    steps = [tiny.batch(4, 4, seed) for seed in range(count)]
    for step, batch in enumerate(steps):
        for part in batch.values():
            part["sample_id"] += 100 * step
    return steps


def optimiser_state(trainer) -> list[dict]:
    (optimizer,) = trainer.state.optimizers
    return [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (GradientsOf(math.nan, [2]), "the gradient norm is nan, so"),
        (GradientsOf(math.inf, [2]), "the gradient norm is (nan|inf), so"),
        (LossIsNan("mim", [2]), "the loss mim is nan, so"),
        (NanImages([2]), "the gradient norm is nan, the loss mim is nan, the loss lg_clip is nan, "),
    ],
)
def test_a_step_that_is_not_finite_stops_the_run_before_its_checkpoint(fault, what):
    checkpoints, written = Checkpoints(), []
    with pytest.raises(UserError, match=rf"^Step 2: {what}") as caught:
        fit(
            tiny.net("maskedclip"),
            batches(3),
            callbacks=[fault, checkpoints],
            record_fault=lambda fault: written.append(fault) or "faults.jsonl",
        )
    assert checkpoints.count == 1
    assert "Samples of rank 0: paired 100, 101, 102, 103; unpaired 104, 105, 106, 107." in str(caught.value)
    assert "faults.jsonl" in str(caught.value)
    (line,) = written
    assert (line["step"], line["action"]) == (2, "stop")
    samples = line["ranks"][0]["samples"]
    assert [s["id"] for part in ("paired", "unpaired") for s in samples[part]] == list(range(100, 108))


def test_a_skipped_step_leaves_no_trace_in_weights_teacher_and_moments():
    """Bit for bit the run that never had the batch. Steps are the schedule's, so the learning rate is constant here."""
    good = batches(4)
    (expected, before, _), (found, after, metrics) = (
        fit(tiny.net("maskedclip"), good[:1] + good[3:], lr=1e-2),
        fit(tiny.net("maskedclip"), good, lr=1e-2, non_finite="skip", callbacks=[NanImages([2, 3])]),
    )
    assert found.state.timestamp.batch.value == 4
    for name, value in before.parameters[-1].items():
        assert torch.equal(after.parameters[-1][name], value), name
    assert before.losses[-1] == after.losses[-1]
    for state, other in zip(optimiser_state(expected), optimiser_state(found), strict=True):
        assert state.keys() == other.keys()
        assert all(torch.equal(state[key], other[key]) for key in state)
    teacher = expected.state.model.state_dict(), found.state.model.state_dict()
    assert any(".teacher." in name for name in teacher[0])
    assert all(torch.equal(teacher[0][name], teacher[1][name]) for name in teacher[0])
    assert [float(value) for _, value in metrics.data["faults/skipped_steps"]] == [0, 1, 2]


@pytest.mark.parametrize("fault", [GradientsOf(math.inf, [1, 2]), LossIsNan("mim", [1, 2])])
def test_skipping_goes_by_losses_and_by_gradients(fault):
    written = []
    net = tiny.net("mae")
    start = {name: value.clone() for name, value in net.named_parameters()}
    fit(net, batches(2), non_finite="skip", callbacks=[fault], record_fault=lambda f: written.append(f) or "")
    assert all(torch.equal(start[name], value) for name, value in net.named_parameters())
    found = [(line["step"], line["action"], line["skipped_steps"]) for line in written]
    assert found == [(1, "skip", 1), (2, "skip", 2)]


def test_too_many_in_a_row_stop_the_run_and_good_ones_between_do_not_count():
    checkpoints = Checkpoints()
    with pytest.raises(UserError, match=r"^Step 6: .* after 2 skipped steps in a row"):
        fit(
            tiny.net("mae"),
            batches(7),
            non_finite="skip",
            max_skipped=2,
            callbacks=[GradientsOf(math.nan, [1, 2, 4, 5, 6]), checkpoints],
        )
    assert checkpoints.count == 5


def test_the_count_goes_on_after_a_resume(tmp_path: Path):
    def run(spoilt: list[int], duration: str, **arguments):
        return fit(
            tiny.net("mae"),
            batches(4),
            non_finite="skip",
            max_skipped=2,
            callbacks=[GradientsOf(math.nan, spoilt)],
            max_duration=duration,
            run_name="run",
            save_folder=str(tmp_path),
            save_interval="1ba",
            save_latest_filename="latest-rank{rank}.pt",
            autoresume=True,
            **arguments,
        )

    run([2], "2ba")[0].close()
    with pytest.raises(UserError, match="Step 4: "):  # the third in a row
        run([3, 4], "4ba")


def test_with_fp16_the_scaler_may_skip_gradients_but_not_losses():
    def judge(norm: float, loss: float, policy) -> bool:
        state = State(MaskedCLIP(tiny.net("mae")), 0, "none", DeviceCPU(), max_duration="3ba", precision="amp_fp16")
        state._precision = Precision.AMP_FP16
        clip = ClipGradients(None)
        clip.norm = torch.tensor(norm)
        steps = FiniteSteps(clip, policy)
        state.loss = {"mim": torch.tensor(loss), "total": torch.tensor(loss)}
        state.total_loss_dict = {"loss/train/mim": loss}
        state.batch, state.outputs = tiny.batch(0, 2), {}
        try:
            for event in (Event.AFTER_TRAIN_BATCH, Event.BATCH_END):
                if steps.match(event, state):
                    steps.apply(event, state, Logger(state))
        except UserError:
            return True
        return steps.skipped

    for policy in ("stop", "skip"):
        assert not judge(math.inf, 1.0, policy)
        assert judge(1.0, math.nan, policy)


def test_a_single_broken_image_is_named_alone():
    class Spoil(Callback):
        def after_forward(self, state, logger):
            state.outputs["mim"]["prediction"].data[5] = math.nan

    with pytest.raises(UserError, match="Samples of rank 0: unpaired 5\\.") as caught:
        fit(tiny.net("maskedclip"), batches(1), callbacks=[Spoil()])
    assert "paired 0" not in str(caught.value)


@pytest.mark.parametrize(
    ("broken", "at_most", "expected"),
    [([], None, range(12)), ([], 2, [0, 1, 8, 9]), ([7, 8, 11], None, [7, 8, 11]), ([7, 8, 11], 1, [7, 8])],
)
def test_only_broken_images_are_looked_up_or_a_few(broken: list[int], at_most: int | None, expected: Sequence[int]):
    """Each costs reading its record."""
    prediction = torch.zeros(12, 3)
    prediction[broken] = math.nan
    part = {"paired": {"sample_id": torch.arange(8)}, "unpaired": {"sample_id": torch.arange(8, 12)}}
    outputs = {"mim": {"prediction": prediction}}
    state: Any = SimpleNamespace(batch=part, outputs=outputs, loss={"total": torch.tensor(math.nan)})
    asked: list[int] = []
    report = rank_report(state, lambda sample_id: asked.append(sample_id) or {"source": "x"}, at_most=at_most)
    assert asked == list(expected)
    assert [sample["id"] for samples in report.samples.values() for sample in samples] == list(range(12))
    assert report.broken == broken


def test_a_fault_says_on_which_rank_a_loss_was_lost_and_which_photographs_were_there():
    samples = [{"id": n, "dataset": "odir", "source": f"{n}.jpg"} for n in range(6)]
    ranks = [
        RankReport(rank=0, losses={"mim": 1.0, "total": math.nan}, samples={"paired": samples}, broken=[]),
        RankReport(rank=1, losses={"mim": math.inf, "total": math.nan}, samples={"unpaired": samples[:1]}, broken=[]),
    ]
    fault = Fault(step=7, action="skip", norm=1.0, ranks=ranks)
    assert fault.what == "Step 7: the loss mim is inf on rank 1"
    assert fault.who.splitlines() == [
        "Samples of rank 0: paired 0 (odir: 0.jpg), 1 (odir: 1.jpg), 2 (odir: 2.jpg), 3 (odir: 3.jpg) and 2 more.",
        "Samples of rank 1: unpaired 0 (odir: 0.jpg).",
    ]
