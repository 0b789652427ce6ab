"""Warns when training goes wrong without an error: the logit scale runs away, or features collapse."""

import json
import logging
import math
from dataclasses import asdict, dataclass
from typing import Literal

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from maskedclip_composer.algorithms.ema_teacher import unwrap
from maskedclip_composer.callbacks.config import WatchConfig
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.objectives.two_tower import TwoTower

log = logging.getLogger(__name__)

MOMENTUM = 0.8  # of the mean over records: one batch says little
RECOVERY = 1.5  # times its threshold a number is well again: one that hovers about it is warned of once
# So far above a collapsed model's the best has to be for a fall to mean something: pairs find each other by chance too.
LEAST = {"variance": 0.0, "effective_rank": 0.5, "retrieval": 0.2}

Kind = Literal["logit_scale", "variance", "effective_rank", "retrieval"]


@dataclass
class Watched:
    """A number over the run: its mean over the newest records, the best of that mean, and whether it is bad now."""

    mean: float
    best: float
    is_bad: bool = False

    def add(self, value: float) -> None:
        """Take a record in."""
        self.mean += (1 - MOMENTUM) * (value - self.mean)
        self.best = max(self.best, self.mean)


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
        for name, value in numbers.items():
            objective, _, number = name.partition("/")
            kind = _kind(number)
            share = None if kind is None else getattr(self.config, kind)
            if kind is None or share is None or not math.isfinite(value):
                continue
            if kind == "logit_scale":
                value /= self._limits.get(objective, math.inf)
            elif kind == "retrieval":
                value -= numbers.get(f"{objective}/retrieval_chance", 0.0)
            elif kind == "effective_rank":
                value -= 1
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
        if kind == "logit_scale":
            is_bad = watched.mean >= share
        elif watched.is_bad:
            is_bad = watched.mean < min(1.0, RECOVERY * share) * watched.best
        else:
            is_bad = watched.best > LEAST[kind] and watched.mean < share * watched.best
        if is_bad != watched.is_bad:
            watched.is_bad = is_bad
            if dist.get_global_rank() == 0:
                log.warning(f"Step {step}: {_sentence(name, kind, share, watched)}")


def _kind(number: str) -> Kind | None:
    if number.endswith("retrieval_at_1"):
        return "retrieval"
    kinds: tuple[Kind, ...] = ("logit_scale", "variance", "effective_rank")
    return next((kind for kind in kinds if number.endswith(kind)), None)


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
