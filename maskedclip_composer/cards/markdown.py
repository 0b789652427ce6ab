"""Words of others as Markdown that says the same and does nothing: no markup, no HTML, no broken table."""

import re
from collections.abc import Iterable, Sequence

# What opens markup within a line. Underscores within a word open none; `$` does on the hub, which sets formulas.
_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_ENTITY = re.compile(r"&(?=#?\w+;)")


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""


def plain(value: object) -> Markdown:
    """Escape a value to be read within a line or a cell of a table; what comes before it must begin the line."""
    if isinstance(value, Markdown):
        return value
    text = _ENTITY.sub("&amp;", " ".join(str(value).split()))
    text = _MARKUP.sub(lambda found: f"\\{found.group()}", text)
    return Markdown(text.replace("<", "&lt;").replace(">", "&gt;"))


def code(value: object) -> Markdown:
    """Return a value as a span of code, for hashes, names of files and the like; others are escaped."""
    text = " ".join(str(value).split())
    return plain(text) if not text or set(text) & set("`|") else Markdown(f"`{text}`")


def table(head: Sequence[object], lines: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a pipe table; every cell is escaped."""
    rows = [[plain(cell) for cell in row] for row in (head, *lines)]
    rows.insert(1, [Markdown("---")] * len(head))
    return ["| " + " | ".join(row) + " |" for row in rows]
