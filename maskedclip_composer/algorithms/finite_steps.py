"""What becomes of a step whose loss or gradient is not finite."""

import logging
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from composer.core import Algorithm, Event, Precision, State
from composer.loggers import Logger
from composer.utils import dist
from torch import Tensor

from maskedclip_composer.algorithms.clip_gradients import ClipGradients
from maskedclip_composer.algorithms.fault import LOOKED_UP, Fault, FindSample, rank_report
from maskedclip_composer.distributed import max_over_ranks
from maskedclip_composer.errors import UserError

log = logging.getLogger(__name__)

REMEDY = "Lower optimizer.lr or optimizer.base_lr, or lengthen optimizer.warmup, under another run_name"


class FiniteSteps(Algorithm):
    """Log each step's gradient norm; stop at a loss or gradient that is nan or inf on any rank, or leave the step out.

    `stop` reads norm and losses at BATCH_END: Composer 0.32.1 has waited for the device by then, to read the losses,
    and writes checkpoints after. Nothing waits for it; the weights in memory are spoilt by then, no checkpoint is.

    `skip` has to know before the optimiser acts, so it costs a reduction over ranks of one number and a wait for the
    device. Composer waits a moment later all the same, without fp16: it hands the loss to the optimiser as a number.
    A skipped step takes the gradients away: AdamW then leaves weights, moments, weight decay and step count alone, and
    the logit scale with them. The teacher stays too (`EMATeacher` asks `skipped`). Only the clock goes on, and with it
    the schedules and the order of the data.

    With fp16 the loss scale starts too high on purpose, and Composer's scaler skips such steps: there only losses
    count, which no loss scale can mend.

    A fault is recorded with the sample ids, losses and norm of every rank. List this before `clip`: Composer runs
    AFTER_* events in reverse order.

    Args:
        clip: Measures the norm.
        non_finite: What a step that is not finite does.
        max_skipped: So many in a row are skipped; one more stops the run. None sets no limit.
        record: Writes a fault down and returns where; called on every rank.
        find_sample: Says which photograph a sample id is; see `rank_report`.

    Attributes:
        skipped: Whether the newest step was left out.
        skipped_steps: How many were since the run began; a checkpoint carries it.
    """

    def __init__(
        self,
        clip: ClipGradients,
        non_finite: Literal["stop", "skip"] = "stop",
        max_skipped: int | None = None,
        *,
        record: Callable[[dict[str, Any]], str] | None = None,
        find_sample: FindSample | None = None,
    ):
        self._clip = clip
        self.non_finite = non_finite
        self.max_skipped = max_skipped
        self._record = record
        self._find_sample = find_sample
        self.skipped = False
        self.skipped_steps = 0
        self._in_a_row = 0

    def state_dict(self) -> dict[str, int]:
        """Return the counts, the same on every rank."""
        return {"skipped_steps": self.skipped_steps, "in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting; a checkpoint from before there was a count has none."""
        self.skipped_steps, self._in_a_row = state.get("skipped_steps", 0), state.get("in_a_row", 0)

    def match(self, event: Event, state: State) -> bool:
        """Run before the optimiser, and when the step is done."""
        return event == Event.BATCH_END or (event == Event.AFTER_TRAIN_BATCH and self.non_finite == "skip")

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Take the gradients away where they would spoil the weights; then log, and stop or note the fault."""
        norm = self._clip.norm
        assert norm is not None
        if event == Event.AFTER_TRAIN_BATCH:
            self.skipped = self._is_bad(norm, state)
            if self.skipped:
                for optimizer in state.optimizers:
                    optimizer.zero_grad(set_to_none=True)
            return
        step = state.timestamp.batch.value - 1  # the clock has moved on; the losses have this number
        value = norm.item()
        logger.log_metrics({"diagnostics/gradient_norm": value}, step=step)
        if self.non_finite == "stop":
            losses = (state.total_loss_dict or {}).values()  # means over the ranks, read by Composer
            scales = state.precision == Precision.AMP_FP16
            if not (all(map(math.isfinite, losses)) and (scales or math.isfinite(value))):
                self._stop(state, value)
        elif self.skipped:
            self._note_skip(state, value)
        else:
            self._in_a_row = 0
        if self.non_finite == "skip" and (self.skipped or step == 0):
            logger.log_metrics({"faults/skipped_steps": self.skipped_steps}, step=step)

    def _is_bad(self, norm: Tensor, state: State) -> bool:
        """Return the same on every rank; a loss may be non-finite on one of them, with finite gradients."""
        assert isinstance(state.loss, dict)
        values = [loss.detach().float().reshape(()) for loss in state.loss.values()]
        if state.precision != Precision.AMP_FP16:
            values.append(norm.float().reshape(()))
        bad = (~torch.isfinite(torch.stack(values))).any().float()
        return bool(max_over_ranks(bad).item())

    def _note_skip(self, state: State, norm: float) -> None:
        self._in_a_row += 1
        self.skipped_steps += 1
        if self.max_skipped is not None and self._in_a_row > self.max_skipped:
            self._stop(state, norm)
        fault, where = self._written("skip", state, norm)
        if dist.get_global_rank() == 0:
            log.warning(f"{fault.what}, so it was skipped, {self.skipped_steps} so far.\n{fault.who}{where}")

    def _stop(self, state: State, norm: float) -> None:
        fault, where = self._written("stop", state, norm)
        if self.non_finite == "stop":
            why, more = "", "; or continue with optimizer.non_finite=skip, which leaves such steps out"
        else:
            why, more = f" after {self.max_skipped} skipped steps in a row (optimizer.max_skipped)", ""
        raise UserError(
            f"{fault.what}{why}, so training has diverged.\n{fault.who}{where}"
            f"Checkpoints are from before this step.\n{REMEDY}{more}."
        )

    def _written(self, action: str, state: State, norm: float) -> tuple[Fault, str]:
        """Collect the fault from all ranks, which all come here, and write it down."""
        at_most = LOOKED_UP if action == "skip" else None  # there may be many of them, and one stop
        ranks = dist.all_gather_object(rank_report(state, self._find_sample, at_most=at_most))
        fault = Fault(step=state.timestamp.batch.value, action=action, norm=norm, ranks=ranks)
        if self._record is None:
            return fault, ""
        return fault, f"All of them are in {self._record(fault.plain() | {'skipped_steps': self.skipped_steps})}.\n"
