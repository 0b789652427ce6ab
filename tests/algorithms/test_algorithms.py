import math

import pytest
import torch
from composer.core import Callback, Event, State
from composer.devices import DeviceCPU
from composer.loggers import Logger, LoggerDestination
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from maskedclip_composer.algorithms.clip_gradients import ClipGradients
from maskedclip_composer.algorithms.ema_teacher import EMATeacher, progress, unwrap, update_teacher
from maskedclip_composer.algorithms.progress import Progress
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.models.teacher import TeacherConfig
from maskedclip_composer.optim import OptimizerConfig, build_optimizer
from tests import tiny
from tests.composer_run import fit

STEPS, MOMENTUM = 4, 0.9


@pytest.fixture(scope="module")
def run():
    """Train a few steps, the logit scale pushed beyond its limit at the start."""
    net = tiny.net("maskedclip")
    with torch.no_grad():
        net.objectives["lg_clip"].log_logit_scale.fill_(math.log(100) + 0.5)
    batches = [tiny.batch(4, 4, seed=seed) for seed in range(STEPS)]
    return fit(net, batches, momentum=MOMENTUM, max_grad_norm=0.5, lr=1e-2)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_the_teacher_is_the_closed_form_of_the_students_history(momentum):
    teacher, student = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    first = [p.detach().clone() for p in teacher.parameters()]
    history = []
    for _ in range(7):
        with torch.no_grad():
            for p in student.parameters():
                p.add_(torch.randn_like(p))
        history.append([p.detach().clone() for p in student.parameters()])
        update_teacher(teacher, student, momentum)
    for index, parameter in enumerate(teacher.parameters()):
        expected = momentum**7 * first[index]
        expected = expected + sum((1 - momentum) * momentum ** (7 - k) * history[k - 1][index] for k in range(1, 8))
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-12, rtol=1e-12)


def test_parameters_that_differ_in_shape_or_number_are_refused():
    with pytest.raises(RuntimeError, match="not sharded alike"):
        update_teacher(nn.Linear(3, 2), nn.Linear(2, 3), 0.9)
    with pytest.raises(RuntimeError, match="not sharded alike"):
        update_teacher(nn.Linear(3, 2), nn.Linear(3, 2, bias=False), 0.9)


def test_in_training_the_teacher_follows_the_students_branch_from_its_first_step(run):
    _, record, _ = run
    assert len(record.parameters) == STEPS + 1
    names = [name for name in record.parameters[0] if name.startswith("net.teacher.")]
    students = [name.replace("net.teacher.", "net.branch.") for name in names]
    for name, student in zip(names, students, strict=True):
        assert torch.equal(record.parameters[0][name], record.parameters[0][student])
        expected = record.parameters[0][name]
        for after_step in record.parameters[1:]:
            expected = MOMENTUM * expected + (1 - MOMENTUM) * after_step[student]
            torch.testing.assert_close(after_step[name], expected, atol=1e-6, rtol=1e-5)
    moved = [name for name in names if not torch.equal(record.parameters[0][name], record.parameters[-1][name])]
    assert set(names) - set(moved) == {"net.teacher.image_encoder.vit.pos_embed"}


def test_the_teacher_stays_out_of_the_optimiser_and_out_of_training_mode(run):
    trainer, _, _ = run
    teacher = {id(p) for p in unwrap(trainer.state.model).net.teacher.parameters()}
    optimised = {id(p) for group in trainer.state.optimizers[0].param_groups for p in group["params"]}
    assert teacher
    assert not teacher & optimised
    assert trainer.state.model.training
    assert not unwrap(trainer.state.model).net.teacher.training


def test_the_logit_scale_stays_within_its_limits(run):
    _, record, _ = run
    scales = [step["net.objectives.lg_clip.log_logit_scale"].item() for step in record.parameters]
    assert scales[0] == pytest.approx(math.log(100) + 0.5)
    assert max(scales[1:]) <= math.log(100) + 1e-6
    assert min(scales[1:]) > 0


def test_the_logit_scale_does_not_fall_below_one():
    net = tiny.net("clip")
    with torch.no_grad():
        net.objectives["lg_clip"].log_logit_scale.fill_(-1.0)
    _, record, _ = fit(net, [tiny.batch(4, 0)])
    assert record.parameters[-1]["net.objectives.lg_clip.log_logit_scale"].item() == 0


def test_the_norm_of_each_step_is_logged(run):
    _, _, metrics = run
    norms = [float(value) for _, value in metrics.data["diagnostics/gradient_norm"]]
    assert len(norms) == STEPS
    assert all(math.isfinite(norm) and norm > 0 for norm in norms)


def test_losses_are_logged_by_name(run):
    _, record, metrics = run
    for name in ("total", "mim", "lg_clip", "mfd"):
        logged = [float(value) for _, value in metrics.data[f"loss/train/{name}"]]
        assert logged == pytest.approx([step[name] for step in record.losses])


class Reads(TorchDispatchMode):
    """Counts how often a tensor's value is asked for, which on a GPU waits for all work before it.

    Stops counting when the optimiser's update begins.
    """

    def __init__(self):
        super().__init__()
        self.count = 0
        self.updates = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.updates |= func.overloadpacket == torch.ops.aten._fused_adamw_
        reads = (torch.ops.aten._local_scalar_dense, torch.ops.aten.is_nonzero, torch.ops.aten.nonzero)
        self.count += not self.updates and func.overloadpacket in reads
        return func(*args, **(kwargs or {}))


class ReadsBeforeTheUpdate(Callback):
    """Counts reads from the end of each step's backward pass to the optimiser's update."""

    def __init__(self):
        self.counts: list[int] = []

    def after_backward(self, state: State, logger: Logger) -> None:
        self.reads = Reads()
        self.reads.__enter__()

    def batch_end(self, state: State, logger: Logger) -> None:
        self.reads.__exit__(None, None, None)
        assert self.reads.updates
        self.counts.append(self.reads.count)


@pytest.mark.parametrize(("non_finite", "more"), [("stop", 0), ("skip", 1)])
def test_only_composer_and_a_policy_to_skip_read_from_the_device_before_the_update(non_finite, more):
    watch = ReadsBeforeTheUpdate()
    batches = [tiny.batch(4, 4, seed) for seed in range(2)]
    fit(tiny.net("maskedclip"), batches, non_finite=non_finite, callbacks=[watch])
    assert watch.counts == [1 + more] * 2  # one is the loss, which Composer 0.32.1 hands to the optimiser as a number


def test_the_norm_has_the_number_of_its_losses():
    steps = Steps()
    fit(tiny.net("mae"), [tiny.batch(2, 2, seed) for seed in range(3)], loggers=[steps])
    assert steps.of["diagnostics/gradient_norm"] == steps.of["loss/train/total"] == [0, 1, 2]


class Steps(LoggerDestination):
    """The step numbers that metrics are logged with."""

    def __init__(self):
        self.of: dict[str, list[int | None]] = {}

    def log_metrics(self, metrics, step=None):
        for name in metrics:
            self.of.setdefault(name, []).append(step)


@pytest.mark.parametrize("max_norm", [0.1, 5.0, None])
def test_gradients_are_scaled_to_the_norm_and_the_norm_before_is_kept_without_a_wait(max_norm, batch):
    model = MaskedCLIP(tiny.net("maskedclip"))
    model.loss(model(batch), batch)["total"].backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    norm = torch.cat([g.flatten() for g in before.values()]).norm().item()
    optimizer = build_optimizer(OptimizerConfig(), model.net, batch_size=4)
    state = State(model, 0, "none", DeviceCPU(), optimizers=optimizer)
    algorithm = ClipGradients(max_norm)
    with Reads() as reads:
        algorithm.apply(Event.AFTER_TRAIN_BATCH, state, Logger(state))
    assert reads.count == 0
    assert float(algorithm.norm) == pytest.approx(norm, rel=1e-5)
    factor = 1 if max_norm is None else min(1, max_norm / norm)
    for name, parameter in model.named_parameters():
        if name in before:
            torch.testing.assert_close(parameter.grad, before[name] * factor, atol=1e-7, rtol=1e-4)


def test_a_network_without_a_teacher_is_a_programming_error():
    state = State(MaskedCLIP(tiny.net("mae")), 0, "none", DeviceCPU())
    with pytest.raises(RuntimeError, match="built with a teacher"):
        EMATeacher(TeacherConfig(momentum=0.9)).apply(Event.BATCH_END, state, Logger(state))


def test_algorithms_act_once_for_each_optimiser_step():
    state = State(MaskedCLIP(tiny.net("mae")), 0, "none", DeviceCPU())
    assert [event for event in Event if EMATeacher(TeacherConfig()).match(event, state)] == [Event.BATCH_END]
    assert [event for event in Event if Progress().match(event, state)] == [Event.BATCH_START]
    clipping = [event for event in Event if ClipGradients(1.0).match(event, state)]
    assert clipping == [Event.AFTER_TRAIN_BATCH]


def test_objectives_learn_how_far_the_training_is():
    class Listening(tiny.Objective):
        loss = staticmethod(lambda heard: heard.sum())

        def __init__(self):
            super().__init__(1.0)
            self.heard: list[float] = []
            self.head = nn.Linear(1, 1)

        def forward(self, views):
            return {"heard": self.head(views.images.new_ones(1))}

        def on_progress(self, done):
            self.heard.append(done)

    net = tiny.net("mae")
    net.objectives["listening"] = listening = Listening()
    fit(net, [tiny.batch(2, 2, seed) for seed in range(4)])
    assert listening.heard == [0.0, 0.25, 0.5, 0.75]


def test_modules_of_an_objective_follow_by_momentum_too():
    class Following(tiny.Objective):
        loss = staticmethod(lambda score: score.sum())

        def __init__(self):
            super().__init__(1.0)
            self.student = nn.Linear(1, 1, bias=False)
            self.follower = nn.Linear(1, 1, bias=False).requires_grad_(False)

        def forward(self, views):
            return {"score": self.student(views.images.new_ones(1))}

        def momentum_pairs(self):
            return [(self.follower, self.student)]

    net = tiny.net("mae")
    net.objectives["following"] = following = Following()
    start = following.follower.weight.clone()
    _, record, _ = fit(net, [tiny.batch(2, 2)], momentum=0.75)
    student = record.parameters[-1]["net.objectives.following.student.weight"]
    torch.testing.assert_close(following.follower.weight, 0.75 * start + 0.25 * student)


def test_progress_moves_within_an_epoch():
    """Composer's own share of a run that is counted in epochs stands still there."""
    state = State(MaskedCLIP(tiny.net("mae")), 0, "none", DeviceCPU(), max_duration="2ep")
    state.set_dataloader([0] * 4, "train", dataloader_len=4)
    shares = []
    for step in range(8):
        shares.append(progress(state))
        state.timestamp = state.timestamp.to_next_batch()
        if step % 4 == 3:
            state.timestamp = state.timestamp.to_next_epoch()
    assert shares == [step / 8 for step in range(8)]
