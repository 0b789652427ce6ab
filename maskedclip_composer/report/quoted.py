"""What the paper prints, to be laid beside what was measured here and never mixed with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

SOURCE = "quoted from arXiv 2507.17239, not measured here"
_FILE = Path(__file__).with_name("quoted.yaml")


@dataclass(frozen=True, kw_only=True)
class Quoted:
    """One line of the paper's Table 1 or Table 2, with scores as fractions.

    Attributes:
        name: Of the method, as printed.
        paired: Size of the paired data, as printed; empty in Table 2, likewise below.
        unpaired: Size of the unpaired data.
        parts: Of the recipe; empty in Table 1.
        scores: ROC and PRC by task.
        average: Over the paper's seven tasks, as printed.
    """

    name: str
    paired: str = ""
    unpaired: str = ""
    parts: tuple[str, ...] = ()
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    average: tuple[float, float]

    def average_over(self, tasks: Sequence[str]) -> tuple[float, float] | None:
        """Return the printed average for its seven tasks, the mean of what is printed for a part, None beyond."""
        if set(tasks) == set(self.scores):
            return self.average
        if not tasks or not set(tasks) <= set(self.scores):
            return None
        roc, prc = zip(*(self.scores[task] for task in tasks), strict=True)
        return sum(roc) / len(roc), sum(prc) / len(prc)


def quoted_table(table: str, amount: str, tasks: Sequence[str]) -> list[Quoted]:
    """Return the lines of `table1` or `table2` for an amount; none where the paper has no number for these tasks.

    The paper fine-tunes: its lines beside a probe's would compare protocols.
    """
    lines = _load()[table].get(amount, [])
    return lines if any(task in line.scores for line in lines for task in tasks) else []


@cache
def _load() -> dict[str, dict[str, list[Quoted]]]:
    content = yaml.safe_load(_FILE.read_text())
    return {
        table: {amount: [_line(line) for line in lines] for amount, lines in amounts.items()}
        for table, amounts in content.items()
    }


def _line(line: dict[str, Any]) -> Quoted:
    scores = {name: (round(roc / 100, 4), round(prc / 100, 4)) for name, (roc, prc) in line["scores"].items()}
    return Quoted(
        name=line["name"],
        paired=line.get("paired", ""),
        unpaired=line.get("unpaired", ""),
        parts=tuple(line.get("parts", ())),
        average=scores.pop("average"),
        scores=scores,
    )
