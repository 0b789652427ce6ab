"""Tables as Markdown, LaTeX, CSV and JSON."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.report.quoted import SOURCE
from maskedclip_composer.report.table import Entry, Table

_MEASURED = "measured"
_MARKDOWN_MARKS = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
# pandas' notation for \textbf{...} and \underline{...} around a cell.
_LATEX_MARKS = {"": "", "best": "textbf: --rwrap;", "second": "underline: --rwrap;"}

_LATEX_SIGNS = {"✓": r"$\checkmark$", "±": r"$\pm$", "<": "$<$", ">": "$>$", "|": "$|$"}


def write_tables(folder: Path, name: str, tables: Sequence[Table]) -> list[Path]:
    """Write NAME.md, .tex, .csv and .json, all protocols one after the other, and return the files."""
    lines = [line for table in tables for line in records(table)]
    contents = {
        "md": "\n".join(markdown(table) for table in tables),
        "tex": "\n".join(latex(table) for table in tables),
        "csv": pd.DataFrame(lines).to_csv(index=False),
        "json": json.dumps(lines, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for suffix, content in contents.items():
        write_whole(folder / f"{name}.{suffix}", content)
    return [folder / f"{name}.{suffix}" for suffix in contents]


def records(table: Table) -> list[dict[str, Any]]:
    """Return one mapping per row, from columns' names to unrounded values; scores and differences as fractions."""
    table = table.with_task_column()
    lines = []
    for row in table.rows:
        line: dict[str, Any] = {"Protocol": table.protocol, table.section_name: row.section}
        line["Source"] = SOURCE if row.quoted else _MEASURED
        for heading, entry in zip(table.columns, row.entries, strict=True):
            line |= {_name(heading) + suffix: value for suffix, value in entry.values.items()}
        lines.append(line)
    return lines


def markdown(table: Table) -> str:
    """Return a title, a pipe table and notes."""
    table = table.with_task_column()
    heads = [table.section_name, *(_name(heading) for heading in table.columns)]
    lines = [[row.section, *(_markdown(entry) for entry in row.entries)] for row in table.rows]
    columns = pd.Index([_piped(head) for head in heads])
    frame = pd.DataFrame([[_piped(cell) for cell in line] for line in lines], columns=columns)
    # Numbers stay as they are written: tabulate would print 73.0 as 73.
    body = frame.to_markdown(index=False, disable_numparse=True)
    notes = "\n\n".join(_plain(note) for note in table.notes)
    return f"## {_plain(table.title)}\n\n{body}\n\n{notes}\n"


def latex(table: Table) -> str:
    """Return a tabular with booktabs' rules under a comment that says what it is; check marks want amssymb."""
    table = table.with_task_column()
    frame = pd.DataFrame(
        [[entry.text for entry in row.entries] for row in table.rows],
        # The name of the columns' second level is printed above the index.
        columns=pd.MultiIndex.from_tuples(table.columns, names=["", table.section_name]),
        # Two levels, since pandas draws rules between sections of a MultiIndex only.
        index=pd.MultiIndex.from_arrays([[row.section for row in table.rows], range(len(table.rows))]),
    )
    marks = [[_LATEX_MARKS[entry.mark] for entry in row.entries] for row in table.rows]
    style = frame.style
    style.apply(lambda data: pd.DataFrame(marks, index=data.index, columns=data.columns), axis=None)
    style.format(escape="latex")
    style.format_index(escape="latex", axis=0)
    style.format_index(escape="latex", axis=1)
    style.hide(axis=0, level=1)
    text = style.to_latex(
        hrules=True,
        clines="skip-last;data",
        multirow_align="naive",
        multicol_align="c",
        column_format=_alignment(table),
    )
    # pandas draws \\cline, also after the last section; booktabs has its own rule.
    text = re.sub(r"\\cline\{[\d-]+\}\n(?!\\bottomrule)", r"\\midrule\n", text)
    text = re.sub(r"\\cline\{[\d-]+\}\n", "", text)
    # What text fonts lack, or print as something else (OT1 encoding); the tabular has no other of these characters.
    for character, command in _LATEX_SIGNS.items():
        text = text.replace(character, command)
    comments = [f"% {line}" for line in (table.title, *table.notes)]
    return "\n".join(comments) + "\n" + text


def file_name(protocol: str) -> str:
    """Return a name for files: letters, digits, dash and underscore."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in protocol)


def _alignment(table: Table) -> str:
    letters = {"": "r", "text": "l", "check": "c"}
    return "l" + "".join(letters[entry.align] for entry in table.rows[0].entries)


def _name(heading: tuple[str, str]) -> str:
    return " ".join(part for part in heading if part)


def _markdown(entry: Entry) -> str:
    return _MARKDOWN_MARKS[entry.mark].format(_plain(entry.text))


def _plain(text: str) -> str:
    """Keep what a name says from being taken for Markdown or HTML."""
    for character in "\\`*_[]<>":
        text = text.replace(character, "\\" + character)
    return text


def _piped(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
