"""What makes a step's numbers go wrong, as hardware or a bad photograph would."""

import math
from collections.abc import Collection, Iterable

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from torch import Tensor

from maskedclip_composer.algorithms.ema_teacher import unwrap


class NanImages(Callback):
    """On one rank, all images of some steps are NaN when they are normalised, and so is what follows from them.

    Args:
        steps: From 1.
        rank: The rank.
    """

    def __init__(self, steps: Collection[int], rank: int = 0):
        self.steps, self.rank = steps, rank

    def before_forward(self, state: State, logger: Logger) -> None:
        net = unwrap(state.model).net
        if self._acts(state):  # within the forward pass: before it DDP gives every rank the buffers of the first
            kept = net.image_mean.clone()
            self._hooks = (
                net.register_forward_pre_hook(lambda *_: _fill(net.image_mean, math.nan)),
                net.register_forward_hook(lambda *_: _fill(net.image_mean, kept)),
            )

    def after_forward(self, state: State, logger: Logger) -> None:
        if self._acts(state):
            for hook in self._hooks:
                hook.remove()

    def _acts(self, state: State) -> bool:
        return state.timestamp.batch.value + 1 in self.steps and dist.get_global_rank() == self.rank


class GradientsOf(Callback):
    """Some steps' gradients of one parameter are `value`, on every rank; the losses are as they were."""

    def __init__(self, value: float, steps: Iterable[int]):
        self.value, self.steps = value, set(steps)

    def after_backward(self, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value + 1 in self.steps:
            gradients = (p.grad for p in state.model.parameters() if p.grad is not None)
            next(gradients).mul_(0).add_(self.value)


class LossIsNan(Callback):
    """Some steps' loss of one objective is NaN on one rank, whose gradients are as they were."""

    def __init__(self, name: str, steps: Collection[int], rank: int = 0):
        self.name, self.steps, self.rank = name, steps, rank

    def after_loss(self, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value + 1 in self.steps and dist.get_global_rank() == self.rank:
            assert isinstance(state.loss, dict)
            state.loss[self.name] = torch.full_like(state.loss[self.name], math.nan)


def _fill(buffer: Tensor, value: Tensor | float) -> None:
    buffer[:] = value
