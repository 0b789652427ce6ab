"""Warns when training goes wrong without an error: the logit scale runs away, or features collapse."""

import json
import logging
import math
from dataclasses import asdict

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from maskedclip_composer.algorithms.ema_teacher import unwrap
from maskedclip_composer.callbacks.config import WatchConfig
from maskedclip_composer.callbacks.judged import Kind, Watched, judged_numbers
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.objectives.two_tower import TwoTower

log = logging.getLogger(__name__)


class Watch(Callback):
    """Judge the numbers of `Diagnostics`; warn once when one crosses its threshold, and once when it is well again.

    Judged is the mean over about the last five records. A collapse is measured by the number's own best in this run,
    because what is good depends on data, batch and network: photographs of the fundus are much alike, and a wide batch
    has a higher rank. What counts is how far a number is above that of a collapsed model: 0 for a variance, 1 for an
    effective rank, chance for retrieval. A logit scale is measured by its own limit.

    MLflow has `health/warnings`, how many numbers are beyond their thresholds, and the tag `health`: "ok" or what is
    wrong. Every rank judges the same numbers, so that what they save agrees.

    Args:
        config: The thresholds.
        tracker: Takes the tag; None when MLflow is off.
    """

    def __init__(self, config: WatchConfig, tracker: FaultTolerantMLFlowLogger | None = None):
        self.config = config
        self._tracker = tracker
        self._limits: dict[str, float] = {}
        self._watched: dict[str, Watched] = {}
        self._bad: list[str] | None = None  # what the tag says

    def state_dict(self) -> dict[str, str]:
        """Return what was seen: as one text, for a sharded checkpoint gives back only entries that are there before."""
        return {"watched": json.dumps({name: asdict(watched) for name, watched in self._watched.items()})}

    def load_state_dict(self, state: dict[str, str]) -> None:
        """Go on where the run was."""
        watched = json.loads(state.get("watched", "{}"))
        self._watched = {name: Watched(**values) for name, values in watched.items()}

    def fit_start(self, state: State, logger: Logger) -> None:
        """Note the limits of logit scales."""
        self._limits = {
            name: math.exp(objective.max_log_logit_scale)
            for name, objective in unwrap(state.model).net.objectives.items()
            if isinstance(objective, TwoTower)
        }

    def judge(self, numbers: dict[str, float], step: int, logger: Logger) -> None:
        """Take a step's numbers, and warn where it is time to.

        Args:
            numbers: By name, `<objective>/<number>`; those that are not finite say nothing here.
            step: The step's number, from 1.
            logger: Takes `health/warnings`.
        """
        for name, kind, share, value in judged_numbers(numbers, self.config, self._limits):
            watched = self._watched.setdefault(name, Watched(value, value))
            watched.add(value)
            if step > self.config.grace:
                self._turn(name, kind, share, watched, step)
        bad = sorted(name for name, watched in self._watched.items() if watched.is_bad)
        logger.log_metrics({"health/warnings": len(bad)})
        if self._tracker is not None and bad != self._bad:
            health = "; ".join(_short(name, self._watched[name]) for name in bad) or "ok"
            self._tracker.set_tags({"health": health})
        self._bad = bad

    def _turn(self, name: str, kind: Kind, share: float, watched: Watched, step: int) -> None:
        is_bad = watched.is_bad_now(kind, share)
        if is_bad != watched.is_bad:
            watched.is_bad = is_bad
            if dist.get_global_rank() == 0:
                log.warning(f"Step {step}: {_sentence(name, kind, share, watched)}")


def _short(name: str, watched: Watched) -> str:
    if name.endswith("logit_scale"):
        return f"runaway: {name} at {watched.mean:.0%} of its limit"
    return f"collapse: {name} at {watched.mean / watched.best:.1%} of its best"


def _sentence(name: str, kind: Kind, share: float, watched: Watched) -> str:
    above = {"effective_rank": " above 1", "retrieval": " above chance"}.get(kind, "")
    if kind == "logit_scale":
        value = f"{watched.mean:.1%} of its limit"
        remedy = "Pairs may be learnt by heart: lower the objective's weight or optimizer.lr"
    else:
        value = f"{watched.mean:.3g}{above}; its best was {watched.best:.3g}{above}"
        remedy = "Features may have collapsed: go back to a checkpoint from before, and lower optimizer.lr"
    if not watched.is_bad:
        return f"{name} is well again, at {value}."
    return f"{name} is at {value} (watch.{kind}={share:g}).\n{remedy}. Where it is meant so: watch.{kind}=null."
