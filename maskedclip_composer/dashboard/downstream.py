"""Which checkpoint is best downstream: by the suites that have evaluated this run."""

from collections.abc import Sequence
from dataclasses import dataclass

from maskedclip_composer.dashboard.answer import Answer, Level
from maskedclip_composer.dashboard.run import Run
from maskedclip_composer.dashboard.suites import Comparison, Evaluated

QUESTION = "Which checkpoint is best downstream?"
LEVEL = 0.05

BY_VALIDATION = "highest mean ROC on validation over the tasks, with the largest amount of labels"
BY_TEST = (
    "highest mean ROC on test over the tasks, with the largest amount of labels, since the protocol has no score on "
    "validation: it flatters the one that is chosen"
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best of this run's encoders in one comparison.

    Attributes:
        comparison: All encoders by one protocol.
        best: Of this run; None where none of them is finished.
        rule: By which it was chosen.
        rivals: How many encoders of this run were compared, the best included.
    """

    comparison: Comparison
    best: Evaluated | None
    rule: str
    rivals: int

    @property
    def is_clear(self) -> bool:
        """Whether each other encoder of this run lies below the best one's interval on some task."""
        own = [one for one in self.comparison.encoders if one.is_own and one is not self.best]
        return self.best is not None and all(self._lies_below(one, self.best) for one in own)

    @staticmethod
    def _lies_below(one: Evaluated, best: Evaluated) -> bool:
        lows = {task: score.low for task, score in best.scores.items()}
        return any(low is not None and one.scores[task].mean < low for task, low in lows.items())


def choose(comparison: Comparison) -> Choice:
    """Choose by validation where every encoder of this run has a score on it, else by test."""
    own = [one for one in comparison.encoders if one.is_own]
    by_validation = all(one.val_roc is not None for one in own)
    best = max(
        own, key=lambda one: one.mean_roc if one.val_roc is None or not by_validation else one.val_roc, default=None
    )
    return Choice(comparison=comparison, best=best, rule=BY_VALIDATION if by_validation else BY_TEST, rivals=len(own))


def downstream(run: Run, comparisons: Sequence[Comparison]) -> Answer:
    """Answer by the first protocol of the newest suite; its other protocols have a line each, other suites none."""
    choices = [choose(comparison) for comparison in comparisons]
    choices = [choice for choice in choices if choice.best is not None]
    if not choices:
        return Answer(
            question=QUESTION,
            verdict="Not evaluated yet",
            number="no suite beside this run has a finished cell of it",
            level="unknown",
            command=command(run),
        )
    first = choices[0]
    assert first.best is not None
    newest = [choice for choice in choices if choice.comparison.suite == first.comparison.suite]
    lines = [line for choice in newest for line in _lines(choice)]
    if len(newest) < len(choices):
        lines.append("Other suites have evaluated this run too: see the tables below")
    verdict, level = _verdict(first, first.best)
    return Answer(question=QUESTION, verdict=verdict, number=_number(first), level=level, lines=lines)


def _verdict(choice: Choice, best: Evaluated) -> tuple[str, Level]:
    found = [values for (encoder, _), values in choice.comparison.differences.items() if encoder == best.encoder]
    is_better = any(difference > 0 and p < LEVEL for difference, p in found)
    if found and not is_better:
        return f"{best.encoder}; not shown to be better than {choice.comparison.baseline}", "watch"
    if choice.rivals == 1:
        return f"{best.encoder}: the only one evaluated", "unknown"
    if not choice.is_clear:
        return f"{best.encoder}; no clear winner of {choice.rivals}", "unknown"
    return best.encoder, "good"


def command(run: Run) -> str:
    """Return what evaluates this run's final encoder and its checkpoints of now."""
    name = "".join(letter if letter.isalnum() or letter in "_.+-" else "_" for letter in run.name)
    return (
        f"composer evaluate.py yamls/evaluate.yaml checkpoints.{name}={run.folder} "
        f"checkpoints.untrained=random:{run.folder} data_root=FOLDER"
    )


def roc_text(mean: float, low: float | None = None, high: float | None = None) -> str:
    """Return a ROC in per cent with its interval."""
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * mean:.1f}{interval}"


def against_baseline(choice: Choice) -> str:
    """Return what the suite's tests say of the best one and the baseline; empty where they have not compared them."""
    best, baseline = choice.best, choice.comparison.baseline
    assert best is not None
    found = [values for (encoder, _), values in choice.comparison.differences.items() if encoder == best.encoder]
    if not found:
        return ""
    better = sum(difference > 0 and p < LEVEL for difference, p in found)
    worse = sum(difference < 0 and p < LEVEL for difference, p in found)
    tasks = f"{len(found)} task{'s' if len(found) > 1 else ''}"
    if not better and not worse:
        return f"no different from {baseline} on {tasks} (p ≥ {LEVEL:g} after Holm)"
    told = [f"{word} on {count}" for word, count in (("better", better), ("worse", worse)) if count]
    return f"{' and '.join(told)} of {tasks} than {baseline} (p < {LEVEL:g} after Holm)"


def _number(choice: Choice) -> str:
    best = choice.best
    assert best is not None
    tasks = choice.comparison.tasks
    if len(tasks) == 1:
        score = best.scores[tasks[0]]
        return f"ROC {roc_text(score.mean, score.low, score.high)} on {tasks[0]}, test"
    return f"mean ROC {roc_text(best.mean_roc)} over {len(tasks)} tasks, test"


def _lines(choice: Choice) -> list[str]:
    best, comparison = choice.best, choice.comparison
    assert best is not None
    what = f"{comparison.protocol}, {comparison.amount} of the labels, suite {comparison.suite}"
    compared = against_baseline(choice)
    lines = [f"{what}: {best.encoder}, {_number(choice)}{f'; {compared}' if compared else ''}"]
    if comparison.unfinished:
        lines.append(f"Not finished there: {', '.join(comparison.unfinished)}")
    if not comparison.has_report:
        lines.append(f"For intervals: python -m maskedclip_composer.report on the suite {comparison.suite}")
    return lines
