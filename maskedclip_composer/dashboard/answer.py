"""One of the five questions with its answer."""

from dataclasses import dataclass, field
from typing import Literal

Level = Literal["good", "watch", "bad", "unknown"]
MARKS: dict[Level, str] = {"good": "✓", "watch": "!", "bad": "✕", "unknown": "?"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A tile.

    Attributes:
        question: As it is asked.
        verdict: In words.
        number: That stands behind it, with its unit.
        level: How the tile is coloured; the words say the same.
        lines: What else a reader wants to know, a sentence each.
        command: What to run for an answer, where there is none yet.
    """

    question: str
    verdict: str
    number: str
    level: Level
    lines: list[str] = field(default_factory=list)
    command: str = ""


def number(value: float) -> str:
    """Return a number as people read it, with three digits, and all of those before the point."""
    if value != value:
        return "not finite"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def percent(share: float) -> str:
    """Return a share as per cent: one decimal below ten, none above."""
    return f"{100 * share:.1f} %" if abs(share) < 0.0995 else f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """Return a time as people read it."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{number(seconds)} s"
