"""Is it learning: the trend of every loss."""

from maskedclip_composer.dashboard.answer import Answer, Level, number
from maskedclip_composer.dashboard.run import Run
from maskedclip_composer.dashboard.trend import FEWEST, Trend, trend

QUESTION = "Is it learning?"
_LOSS = "loss/train/"
_LATELY = {
    "falling": "still falling in its last third",
    "rising": "rising in its last third",
    "level": "level in its last third",
    "short": "",
}
_OVERALL = {"falling": "falls", "rising": "rises", "level": "no clear trend", "short": "too short to judge"}


def learning(run: Run) -> Answer:
    """Answer by the total loss; below stand each objective's, and how far a contrastive one is above its floor."""
    losses = {name.removeprefix(_LOSS): trend(one.y) for name, one in run.series.items() if name.startswith(_LOSS)}
    total = losses.pop("total", None)
    if total is None:
        return Answer(question=QUESTION, verdict="Nothing to judge yet", number="no loss recorded", level="unknown")
    values = f"total loss {number(total.first)} → {number(total.last)}"
    records = len(run.series[f"{_LOSS}total"])
    lines = [_line(name, one) for name, one in losses.items()]
    for name, one in run.series.items():
        if name.endswith("/above_floor"):
            objective = name.split("/")[1]
            lines.append(_line(f"{objective} above the least it can be (nats)", trend(one.y)))
    verdict, level = _verdict(run, total, losses)
    if total.overall == "short":
        values = f"{records} of the {FEWEST} steps that a verdict needs"
    return Answer(question=QUESTION, verdict=verdict, number=values, level=level, lines=lines)


def _verdict(run: Run, total: Trend, losses: dict[str, Trend]) -> tuple[str, Level]:
    if run.state == "not finite":
        return "No: it diverged", "bad"
    if total.overall == "short":
        return "Too early to say", "unknown"
    if run.warmup_steps is not None and run.step <= run.warmup_steps and total.overall != "falling":
        return "Still warming up", "unknown"
    if total.overall == "rising":
        return "No: the loss rises", "bad"
    if total.lately == "rising":
        return "Lately the loss rises", "watch"
    if total.overall == "level":
        return "No trend to be seen", "watch"
    rising = [name for name, one in losses.items() if one.overall == "rising"]
    if rising:
        return f"In part: {', '.join(rising)} rises", "watch"
    if total.lately == "level":
        return "Yes; lately it is level", "good"
    return ("Yes, and still falling" if total.lately == "falling" else "Yes"), "good"


def _line(name: str, one: Trend) -> str:
    lately = f", {_LATELY[one.lately]}" if _LATELY[one.lately] and one.overall != "short" else ""
    return f"{name}: {number(one.first)} → {number(one.last)}, {_OVERALL[one.overall]}{lately}"
