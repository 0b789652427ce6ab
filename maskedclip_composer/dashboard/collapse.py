"""Is it collapsing: the run's diagnostics against the thresholds that its own watch warns by."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from maskedclip_composer.callbacks.config import WatchConfig
from maskedclip_composer.callbacks.judged import LEAST, Kind, Watched, judged_numbers
from maskedclip_composer.dashboard.answer import Answer, percent
from maskedclip_composer.dashboard.run import Run
from maskedclip_composer.dashboard.series import Series

QUESTION = "Is it collapsing?"
FEWEST = 5
"""Records under which nothing is said: as many as the judged mean is made of."""
_CLOSE = 2.0  # times its threshold a number is worth a look
_DIAGNOSTICS = "diagnostics/"


@dataclass
class Judged:
    """A number over the run: what it is, its threshold, and how it stands."""

    name: str
    kind: Kind
    share: float
    watched: Watched
    records: int = 1

    @property
    def relative(self) -> float:
        """The share of its best, or of its limit for a logit scale."""
        if self.kind == "logit_scale" or self.watched.best <= 0:
            return self.watched.mean
        return self.watched.mean / self.watched.best

    @property
    def tells(self) -> bool:
        """Whether it was ever far enough above that of a collapsed model for a fall to mean something."""
        return self.kind == "logit_scale" or self.watched.best > LEAST[self.kind]

    @property
    def is_close(self) -> bool:
        """Whether it is near its threshold."""
        if self.kind == "logit_scale":
            return self.watched.mean >= 1 - _CLOSE * (1 - self.share)
        return self.tells and self.relative < _CLOSE * self.share


def collapse(run: Run) -> Answer:
    """Answer by the number that is worst off, as `callbacks/watch.py` judges it."""
    config = watch_config(run)
    found = judge(run, config)
    told = [one for one in found if one.tells]
    if not found:
        return Answer(
            question=QUESTION,
            verdict="Nothing recorded that would show it",
            number="no variance, rank or retrieval in the diagnostics",
            level="unknown",
        )
    if max(one.records for one in found) < FEWEST:
        return Answer(
            question=QUESTION,
            verdict="Too early to say",
            number=f"{max(one.records for one in found)} of the {FEWEST} records that a verdict needs",
            level="unknown",
            lines=[_line(one) for one in found],
        )
    bad, close = [one for one in told if one.watched.is_bad], [one for one in told if one.is_close]
    worst = min(told, key=_margin, default=None)
    lines = [_line(one) for one in found]
    if run.step <= config.grace:
        lines.append(f"The run itself warns only after step {config.grace} (watch.grace).")
    if worst is None:
        verdict, level, about = "Nothing to fall from yet", "unknown", "no number is clearly above a collapsed model's"
    elif bad:
        runaway = all(one.kind == "logit_scale" for one in bad)
        verdict, level, about = (
            "The logit scale has run away" if runaway else "Yes",
            "bad",
            _short(min(bad, key=_margin)),
        )
    elif close:
        verdict, level, about = "Close to it", "watch", _short(min(close, key=_margin))
    else:
        verdict, level, about = "No sign of it", "good", _short(worst)
    return Answer(question=QUESTION, verdict=verdict, number=about, level=level, lines=lines)


def watch_config(run: Run) -> WatchConfig:
    """Return the run's thresholds; defaults for what its config does not say."""
    given = run.setting("watch") or {}
    return WatchConfig(**{field.name: given[field.name] for field in fields(WatchConfig) if field.name in given})


def judge(run: Run, config: WatchConfig) -> list[Judged]:
    """Replay the run's diagnostics through its watch, without the grace."""
    objectives = run.setting("objectives") or {}
    limits = {
        name: float(settings["max_logit_scale"])
        for name, settings in objectives.items()
        if isinstance(settings, Mapping) and "max_logit_scale" in settings
    }
    found: dict[str, Judged] = {}
    for numbers in _records(run.series):
        for name, kind, share, value in judged_numbers(numbers, config, limits):
            if name not in found:
                found[name] = Judged(name, kind, share, Watched(value, value))
            else:
                found[name].records += 1
            watched = found[name].watched
            watched.add(value)
            watched.is_bad = watched.is_bad_now(kind, share)
    return list(found.values())


def _records(series: Mapping[str, Series]) -> list[dict[str, float]]:
    """Return the diagnostics of each step that has some, oldest first."""
    steps: dict[int, dict[str, float]] = {}
    for name, one in series.items():
        if name.startswith(_DIAGNOSTICS) and name.count("/") == 2:
            for step, value in zip(one.steps, one.values, strict=True):
                steps.setdefault(step, {})[name.removeprefix(_DIAGNOSTICS)] = value
    return [steps[step] for step in sorted(steps)]


def _margin(one: Judged) -> float:
    """Return how many times its threshold a number is, the smaller the worse."""
    if one.kind == "logit_scale":
        return (1 - one.watched.mean) / max(1 - one.share, 1e-9)
    return one.relative / one.share


def _short(one: Judged) -> str:
    if one.kind == "logit_scale":
        return f"{one.name} at {percent(one.watched.mean)} of its limit"
    return f"{one.name} at {percent(one.relative)} of its best"


def _line(one: Judged) -> str:
    if one.kind == "logit_scale":
        return f"{_short(one)} (warns from {percent(one.share)})"
    if not one.tells:
        return f"{one.name}: hardly above that of a collapsed model yet, so a fall would say nothing"
    return f"{_short(one)} (warns under {percent(one.share)})"
