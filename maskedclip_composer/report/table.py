"""A table before it is Markdown, LaTeX, HTML, CSV or JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

Value = float | int | str | bool | None
Mark = Literal["", "best", "second"]
Align = Literal["", "text", "check"]

NOTHING = "-"


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    Attributes:
        text: As people read it.
        values: As programs read it, by what they add to the column's name; scores as fractions.
        mark: Best or second of its column and section.
        small: Said after the text in smaller type where there is room.
        align: Text to the left, check marks in the middle, numbers ("") to the right.
    """

    text: str
    values: dict[str, Value]
    mark: Mark = ""
    small: str = ""
    align: Align = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line.

    Attributes:
        section: Lines with the same one stand together, under it as a heading.
        entries: One per column.
        task: Likewise together within a section; empty where the columns are the tasks.
        quoted: Whether the numbers are somebody else's.
    """

    section: str
    entries: list[Entry]
    task: str = ""
    quoted: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Lines in sections below two rows of headings.

    Attributes:
        title: Of the table.
        protocol: What it is about, for the first column of CSV and JSON.
        columns: Heading over neighbours that share it, and the column's own; either may be empty, not both.
        rows: Sections stand together.
        notes: Said below.
        section_name: Heading of the sections' column where they have one.
    """

    title: str
    protocol: str
    columns: list[tuple[str, str]]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    section_name: str = "Labels"

    @property
    def sections(self) -> list[tuple[str, list[Row]]]:
        """Rows below their headings, in order; for people."""
        names = dict.fromkeys((row.section, row.task) for row in self.rows)
        return [
            (
                f"{f'{task}, ' if task else ''}{self.section_name.lower() if task else self.section_name}: {section}",
                [row for row in self.rows if (row.section, row.task) == (section, task)],
            )
            for section, task in names
        ]

    def with_task_column(self) -> "Table":
        """Return the same with the rows' tasks as the first column, where they have any; for files."""
        if not any(row.task for row in self.rows):
            return self
        rows = [replace(row, task="", entries=[words(row.task), *row.entries]) for row in self.rows]
        return replace(self, columns=[("", "Task"), *self.columns], rows=rows)


def words(text: str) -> Entry:
    """Return an entry of text."""
    return Entry(text or NOTHING, {"": text or None}, align="text")


def count(value: int | None, unknown: str = NOTHING) -> Entry:
    """Return an entry of a whole number."""
    return Entry(unknown if value is None else f"{value:,}", {"": value})


def images(value: int | None) -> Entry:
    """Return an entry of a number of images, large ones in millions as the paper has them."""
    if value is None or value < 100_000:
        return count(value, "unknown")
    return Entry(f"{value / 1e6:.2f}M", {"": value})


def about(text: str) -> Entry:
    """Return an entry of a number as somebody else rounded it, such as 0.14M."""
    value = round(1e6 * float(text.removesuffix("M"))) if text.endswith("M") else int(text)
    return Entry(text, {"": value})


def extent(values: tuple[int, int]) -> Entry:
    """Return an entry of a number that may differ between seeds."""
    low, high = values
    if low == high:
        return Entry(f"{low:,}", {"": low, " max": high})
    return Entry(f"{low:,} to {high:,}", {"": low, " max": high})


def check(is_true: bool) -> Entry:
    """Return an entry of a check mark."""
    return Entry("✓" if is_true else "", {"": is_true}, align="check")


def percent(
    mean: float | None, deviation: float | None = None, interval: tuple[float, float] | None = None, *, spread: bool
) -> Entry:
    """Return an entry of a score.

    Args:
        mean: As a fraction; None or NaN where there is none.
        deviation: Sample standard deviation, None for one seed.
        interval: Low and high end.
        spread: Show deviation and interval in the text; else only the mean, with the deviation as the small print.
    """
    if mean is None or np.isnan(mean):
        return Entry(NOTHING, {"": None})
    values: dict[str, Value] = {"": float(mean)}
    text, small = f"{100 * mean:.1f}", ""
    if deviation is not None:
        values[" sd"] = float(deviation)
        small = f"± {100 * deviation:.1f}"
    interval = _defined(interval)
    if interval is not None:
        values |= {" low": float(interval[0]), " high": float(interval[1])}
    if spread:
        text = f"{text} {small}".rstrip()
        text += "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
        small = ""
    return Entry(text, values, small=small)


def difference(value: float | None, interval: tuple[float, float] | None = None) -> Entry:
    """Return an entry of a difference of two scores, in percentage points."""
    if value is None or np.isnan(value):
        return Entry(NOTHING, {"": None})
    interval = _defined(interval)
    if interval is None:
        return Entry(f"{100 * value:+.1f}", {"": float(value)})
    low, high = interval
    text = f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return Entry(text, {"": float(value), " low": float(low), " high": float(high)})


def p_value(value: float | None) -> Entry:
    """Return an entry of a p value."""
    if value is None or np.isnan(value):
        return Entry(NOTHING, {"": None})
    return Entry("< 0.001" if value < 0.001 else f"{value:.3f}", {"": float(value)})


def mark_best(rows: Sequence[Row], columns: Iterable[int]) -> list[Row]:
    """Mark the best and the second of each column among the rows that were measured here.

    What is equal in print shares its mark; a column whose numbers are all equal gets none.
    """
    marked = list(rows)
    for column in columns:
        shown = {row.entries[column].text for row in rows if not row.quoted} - {NOTHING}
        places = dict(zip(sorted(shown, key=float, reverse=True), ("best", "second"), strict=False))
        if len(places) == 2:
            marked = [row if row.quoted else _marked(row, column, places) for row in marked]
    return marked


def _defined(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return None for the interval of a score that no draw of patients has."""
    return None if interval is None or np.isnan(interval).any() else interval


def _marked(row: Row, column: int, places: Mapping[str, Mark]) -> Row:
    entries = list(row.entries)
    entries[column] = replace(entries[column], mark=places.get(entries[column].text, ""))
    return replace(row, entries=entries)
