"""What the cells of a table are as text, and which of them are none."""

import math
from collections.abc import Iterable
from typing import Any

_SEVERAL = ("text", "text_kind", "label")
"""Columns of a manifest whose cell may be a list."""


class BadCell(str):
    """A cell of a workbook that has no value, as the text that it shows; `why` says why not."""

    __slots__ = ("why",)

    def __new__(cls, shown: str, why: str) -> "BadCell":
        """Make the text `shown` with a reason."""
        cell = super().__new__(cls, shown)
        cell.why = why
        return cell


def cell_text(cell: Any) -> str:
    """Write a cell as text: whitespace collapsed, empty for None and NaN, `3` for the whole number 3.0."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return " ".join(str(cell).split())


def cell_texts(cell: Any, separator: str | None) -> list[str]:
    """Split a cell into its non-empty texts: the items of a list cell, else the parts between separators."""
    if isinstance(cell, list | tuple):
        parts: Iterable[Any] = cell
    else:
        text = cell_text(cell)
        parts = text.split(separator) if separator else [text]
    return [text for text in map(cell_text, parts) if text]


def inert(cell: str) -> str:
    """Put an apostrophe before a cell of a CSV file that a spreadsheet would run as a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def unusable(column: str, cell: Any) -> str:
    """Say why the cell of a column of a manifest cannot be written as text without loss; empty where it can."""
    if isinstance(cell, BadCell):
        return cell.why
    if isinstance(cell, list | tuple):
        if column not in _SEVERAL:
            return "holds a list; write one value"
        return next((why for item in cell if (why := _of_one(item))), "")
    return _of_one(cell)


def _of_one(cell: Any) -> str:
    if isinstance(cell, list | tuple | dict):
        return f"holds a {type(cell).__name__} inside a cell; write texts or numbers"
    if isinstance(cell, bytes):
        return "holds bytes; store the column as text"
    if isinstance(cell, str):
        try:
            cell.encode()
        except UnicodeEncodeError:
            return "holds half a character (a lone surrogate such as \\ud800), which no file can store; mend the text"
    return ""
