"""Tells the objectives how far the training is."""

from composer.core import Algorithm, Event, State
from composer.loggers import Logger

from maskedclip_composer.algorithms.ema_teacher import progress, unwrap
from maskedclip_composer.objectives.base import Objective


class Progress(Algorithm):
    """Before each step hand the share of training that is done to the objectives, whose schedules depend on it alone.

    The share comes from Composer's clock, which a checkpoint carries: a resumed run goes on where it was.
    """

    def match(self, event: Event, state: State) -> bool:
        """Run before every step."""
        return event == Event.BATCH_START

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Set what follows a schedule."""
        done = progress(state)
        for objective in unwrap(state.model).net.objectives.values():
            assert isinstance(objective, Objective)
            objective.on_progress(done)
