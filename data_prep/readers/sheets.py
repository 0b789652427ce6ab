"""From the cells of a set's sheets to entries, whatever its columns are called."""

import re
from pathlib import PurePosixPath
from typing import Any

from data_prep.readers.dataset import Cell, Entry, Part, Sheet, Target
from data_prep.readers.texts import sentence
from data_prep.readers.tree import Tree
from maskedclip_composer.data.binary_tables import PART
from maskedclip_composer.data.cells import cell_text
from maskedclip_composer.data.tables import Table, read_table
from maskedclip_composer.errors import UserError


def entries_of(sheet: Sheet, target: Target | None, table: Table) -> list[tuple[int, Entry]]:
    """Return the entries of all rows with the rows' numbers.

    Args:
        sheet: What its columns mean.
        target: Which of its columns holds the label.
        table: Its content.

    Raises:
        UserError: A column is missing.
    """
    names = _names(table)
    columns = target.columns if target else ()
    entries = []
    for number, cells in zip(table.numbers, table.rows, strict=True):
        cell = _cell(table, names, cells)
        of_row = sheet.entries(cell, columns) if sheet.entries else [_entry(sheet, cell, columns)]
        entries += [(number, entry) for entry in of_row]
    return entries


def has_column(table: Table, columns: tuple[str, ...]) -> bool:
    """Whether the table has one of the columns."""
    return any(name.casefold() in _names(table) for name in columns)


def _names(table: Table) -> dict[str, str]:
    names = {name.casefold(): name for name in table.columns}
    for name in table.columns:
        for said in name.split(PART):
            names.setdefault(said.casefold(), name)
    return names


def _cell(table: Table, names: dict[str, str], cells: dict[str, Any]) -> Cell:
    def cell(*wanted: str) -> Any:
        name = next((names[name.casefold()] for name in wanted if name.casefold() in names), None)
        if name is None:
            raise UserError(
                f"sheet {table.path}: has no column {' or '.join(wanted)}, it has {', '.join(table.columns)}; "
                "the release has it, so download the sheet again, or rename the column"
            )
        return cells[name]

    return cell


def _entry(sheet: Sheet, cell: Cell, columns: tuple[str, ...]) -> Entry:
    def text(names: tuple[str, ...]) -> str:
        return cell_text(cell(*names)) if names else ""

    image = "_".join(text(names) for names in sheet.key) if sheet.key else text(sheet.image)
    if sheet.rename:
        image = re.sub(*sheet.rename, image)
    eye, split, said = text(sheet.eye), text(sheet.split), text(sheet.text)
    telling = said and said.casefold() not in sheet.no_text
    return Entry(
        image=image,
        label=re.sub(r"^(\d+)\.0+$", r"\1", text(columns)),  # a column with gaps went through floating point
        patient=text(sheet.patient),
        eye=sheet.eyes.get(eye, eye),
        split=sheet.splits.get(split, split),
        texts=(sentence(said),) if telling else (),
    )


def corrected_labels(part: Part, tree: Tree, sheet: Sheet, target: Target | None) -> dict[str, str]:
    """Map the stems of the photographs in the sheet of corrections to their labels there."""
    path = tree.file(part.corrections) if part.corrections else None
    if path is None:
        return {}
    entries = entries_of(sheet, target, read_table(tree.root / path, sheet.form))
    return {stem(entry.image): entry.label for _, entry in entries}


def partners(part: Part, tree: Tree) -> dict[str, tuple[str, str]]:
    """Map the stems of a table of left and right photographs to (patient, eye)."""
    path = tree.file(part.pairs) if part.pairs else None
    if path is None:
        return {}
    found = {}
    for cells in read_table(tree.root / path).rows:
        names = {eye: PurePosixPath(cell_text(cells.get(eye))).name.split(".")[0] for eye in ("left", "right")}
        patient = names["left"] or names["right"]
        found |= {name.lower(): (patient, eye) for eye, name in names.items() if name}
    return found


def stem(image: str) -> str:
    """Return a photograph's name without folders and suffixes, in lower case."""
    return PurePosixPath(image.replace("\\", "/")).name.split(".")[0].lower()
