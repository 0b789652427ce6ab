"""What a collection of photographs carries along that pictures use."""

import difflib
from collections.abc import Mapping, Sequence

from maskedclip_composer.errors import UserError

PATIENT = "patient"
TEXTS = ("text", "texts")


def check_column(flag: str, name: str | None, columns: Sequence[str], photos: str) -> None:
    """Refuse a column that is not there.

    Raises:
        UserError: It names the columns that are.
    """
    if name is None or name in columns:
        return
    near = difflib.get_close_matches(name, columns, n=1)
    remedy = f"Did you mean {near[0]}?" if near else f"It has {', '.join(columns) or 'none'}."
    raise UserError(f"{flag} {name}: {photos} has no such column.\n{remedy}")


def column(rows: Sequence[Mapping[str, str]], name: str | None) -> list[str | None] | None:
    """Return a column's values, None for an empty one; None without a name, or where no row has the column."""
    if name is None or not any(name in row for row in rows):
        return None
    return [row.get(name, "").strip() or None for row in rows]


def first_texts(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the first text of each photograph that has one: texts of one photograph stand with `|` between."""
    found = [row.get(name, "") for row in rows for name in TEXTS if name in row]
    return [text for value in found if (text := value.partition("|")[0].strip())]


def patients(rows: Sequence[Mapping[str, str]]) -> list[str] | None:
    """Return whose each photograph is, one that nobody's name stands with being alone; None without the column."""
    found = column(rows, PATIENT)
    return None if found is None else [name or f"row {row}" for row, name in enumerate(found)]
