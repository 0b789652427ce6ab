"""Keeps the learnt logit scale of contrastive losses in range."""

import torch
from composer.core import Algorithm, Event, State
from composer.loggers import Logger
from torch.distributed.tensor import DTensor

from maskedclip_composer.algorithms.ema_teacher import unwrap
from maskedclip_composer.objectives.two_tower import TwoTower


class ClampLogitScale(Algorithm):
    """After each optimiser step, clamp the logarithm of the logit scale to [0, ln max], as CLIP does.

    A clamp inside the forward pass would have no gradient beyond the limit, so the parameter could never come back.
    """

    def match(self, event: Event, state: State) -> bool:
        """Run after every optimiser step."""
        return event == Event.BATCH_END

    @torch.no_grad()
    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Clamp in place."""
        for objective in unwrap(state.model).net.objectives.values():
            if isinstance(objective, TwoTower):
                scale = objective.log_logit_scale
                local = scale.to_local() if isinstance(scale, DTensor) else scale
                local.clamp_(0, objective.max_log_logit_scale)
