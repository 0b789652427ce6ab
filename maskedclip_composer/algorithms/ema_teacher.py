"""The teacher: a momentum copy of the student's image branch."""

import torch
from composer.core import Algorithm, Event, State, TimeUnit
from composer.loggers import Logger
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from maskedclip_composer.algorithms.finite_steps import FiniteSteps
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.teacher import TeacherConfig


class EMATeacher(Algorithm):
    """After each optimiser step, move the teacher towards the student: teacher = m * teacher + (1 - m) * student.

    Modules that an objective keeps a momentum copy of (`Objective.momentum_pairs`) follow in the same way.

    MaskedCLIP (arXiv 2507.17239), eq. 5: M-hat is EMA(B after E_I). It runs at BATCH_END, which comes once for each
    optimiser step and before checkpoints are written. The update is local to each rank's shard; the teacher is part of
    the model's state, so checkpoints carry it. Parameters are kept in float32: at a momentum of 0.999 a bfloat16
    average would lose most updates.

    Composer's own EMA averages the whole model and swaps the average into evaluations and checkpoints.

    Args:
        config: The momentum and its schedule.
        steps: Knows which steps were skipped; the teacher skips them too.
    """

    def __init__(self, config: TeacherConfig, steps: FiniteSteps | None = None):
        self.config = config
        self._steps = steps
        self._net: PretrainNet | None = None
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = []

    def match(self, event: Event, state: State) -> bool:
        """Run after every optimiser step."""
        return event == Event.BATCH_END and not (self._steps is not None and self._steps.skipped)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Update the teacher in place."""
        net = unwrap(state.model).net
        if self._net is not net:  # the same tensors in all steps: optimiser, checkpoints and FSDP2 write into them
            self._net, self._pairs = net, [matching(*pair) for pair in net.momentum_pairs()]
        if not self._pairs:
            raise RuntimeError("EMATeacher needs a network that was built with a teacher")
        momentum = self.config.at(progress(state))
        with net.timed("teacher_update"), torch.no_grad():
            for teachers, students in self._pairs:
                torch._foreach_lerp_(teachers, students, 1 - momentum)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set every parameter of `teacher` to momentum * teacher + (1 - momentum) * student.

    Raises:
        RuntimeError: As `matching`.
    """
    teachers, students = matching(teacher, student)
    torch._foreach_lerp_(teachers, students, 1 - momentum)


@torch.no_grad()
def matching(teacher: nn.Module, student: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters of both in the same order, of sharded ones this rank's shard.

    Raises:
        RuntimeError: The two are not sharded alike, so that an update would mix up parameters.
    """
    teachers = [_local(parameter) for parameter in teacher.parameters()]
    students = [_local(parameter) for parameter in student.parameters()]
    if [p.shape for p in teachers] != [p.shape for p in students]:
        raise RuntimeError("teacher and student are not sharded alike: their local parameters differ in shape")
    return teachers, students


def progress(state: State) -> float:
    """Return the share of the training steps that are done, 0 to 1."""
    now, end = state.timestamp, state.max_duration
    assert end is not None
    done = float(now.get(end.unit).value)
    if end.unit == TimeUnit.EPOCH and state.dataloader_len is not None:
        # Composer's own share of a run in epochs stands still within an epoch.
        done += now.batch_in_epoch.value / state.dataloader_len.value
    return min(1.0, done / end.value)


def unwrap(model: nn.Module) -> MaskedCLIP:
    """Return the ComposerModel inside DDP, or the model itself."""
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    assert isinstance(inner, MaskedCLIP)
    return inner


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
