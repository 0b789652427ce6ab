"""Read CSV, TSV, Parquet, JSON lines and Excel sheets into one shape, with the row numbers that a user sees."""

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskedclip_composer.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".xlsx")
PART = " / "
"""Between the parts of a column name that several header rows make up."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a file does not say of itself.

    Attributes:
        sheet: Name of the sheet of a workbook; None takes the first.
        skip: Rows of the workbook above its header.
        header_rows: Rows of the workbook's header. With more than one, a column's name joins what they say and ends in
            its position ("VF / MD / column 14"), so that merged and nameless heads can be told apart.
        names: Columns of a text file without a header; what is left of a line goes to the last one.
        delimiter: Between the columns of such a file; None is any white space.
    """

    sheet: str | None = None
    skip: int = 0
    header_rows: int = 1
    names: tuple[str, ...] = ()
    delimiter: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A sheet with stripped column names.

    Attributes:
        path: Where it was read from.
        columns: Names of the columns; nameless columns are left out.
        rows: One mapping of column to cell per row; blank rows are left out. Cells are as the format gives them.
        numbers: For each row, its line in a text file or its row in a sheet (header is 1); 1-based row in Parquet.
        respelled: Names of columns as they were written, where white space was taken out of them.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    numbers: list[int]
    respelled: tuple[str, ...] = ()


def read_table(path: Path, form: Form = Form()) -> Table:  # noqa: B008 (frozen)
    """Read the table at `path`; its suffix tells the format.

    Data sets also come as text files without a header (`form.names`) and as JSON whose keys are image names: those
    names become the column `image`.

    Raises:
        UserError: The file is missing, of an unknown format, not UTF-8, ragged, without rows, or repeats a column.
    """
    if not path.is_file():
        raise UserError(f"table {path}: no such file")
    suffix = path.suffix.lower()
    if form.names:
        table = _read_lines(path, form)
    elif suffix in (".csv", ".tsv"):
        table = _read_delimited(path, "\t" if suffix == ".tsv" else None)
    elif suffix == ".jsonl":
        table = _read_json_lines(path)
    elif suffix == ".parquet":
        table = _read_parquet(path)
    elif suffix == ".xlsx":
        table = _read_excel(path, form)
    elif suffix == ".json":
        table = _read_json(path)
    else:
        raise UserError(
            f"table {path}: format {suffix or '(no suffix)'} is not known; use one of {', '.join(SUFFIXES)}"
        )
    if not table.rows:
        raise UserError(f"table {path}: has no rows below its header")
    return table


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


def _read_delimited(path: Path, delimiter: str | None) -> Table:
    text = _decode(path)
    if delimiter is None:
        header = text.splitlines()[0] if text else ""
        # Excel writes semicolons where the comma is the decimal mark.
        delimiter = max([",", ";", "\t"], key=header.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        rows, numbers = [], []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            # Missing trailing cells that have no column name lose nothing (IDRiD's sheets differ in this).
            if any(cell.strip() for cell in cells[len(names) :]) or any(name.strip() for name in names[len(cells) :]):
                raise UserError(
                    f"table {path}: line {reader.line_num} has {len(cells)} cells, the header has {len(names)}; "
                    f"quote cells that hold the delimiter {delimiter!r}"
                )
            rows.append(cells)
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"table {path}: line {reader.line_num} is not well-formed CSV: {error}") from error
    return _assemble(path, names, rows, numbers)


def _decode(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"table {path}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); save it as 'CSV UTF-8', "
            f"or convert it: iconv -f <its encoding, e.g. UTF-16, GB18030 or WINDOWS-1252> -t UTF-8"
        ) from error


def _read_json_lines(path: Path) -> Table:
    rows, numbers, columns = [], [], {}
    for number, line in enumerate(_decode(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"table {path}: line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"table {path}: line {number} is a JSON {type(row).__name__}, not an object")
        columns |= dict.fromkeys(row)
        rows.append(row)
        numbers.append(number)
    return _assemble(path, list(columns), [[row.get(name) for name in columns] for row in rows], numbers)


def _read_json(path: Path) -> Table:
    text = _decode(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"table {path}: is not JSON: {error}") from error
    pieces = content if isinstance(content, list) else [content]
    if not all(
        isinstance(piece, dict) and all(isinstance(value, dict) for value in piece.values()) for piece in pieces
    ):
        raise UserError(f"table {path}: is not JSON of the form {{image: {{column: value}}}}, alone or in a list")
    records = [{"image": image, **fields} for piece in pieces for image, fields in piece.items()]
    columns = list(dict.fromkeys(name for record in records for name in record))
    rows = [[record.get(name) for name in columns] for record in records]
    return _assemble(path, columns, rows, list(range(1, len(rows) + 1)))


def _read_lines(path: Path, form: Form) -> Table:
    rows, numbers = [], []
    for number, line in enumerate(_decode(path).splitlines(), start=1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.strip().split(form.delimiter, len(form.names) - 1)]
        if len(cells) < len(form.names):
            raise UserError(
                f"table {path}: line {number} has {len(cells)} columns, not {len(form.names)} "
                f"({', '.join(form.names)}); download the file again"
            )
        rows.append(cells)
        numbers.append(number)
    return _assemble(path, list(form.names), rows, numbers)


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise UserError(f"table {path}: is not readable Parquet: {error}") from error
    rows = [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    return _assemble(path, table.column_names, rows, list(range(1, len(rows) + 1)))


def _read_excel(path: Path, form: Form) -> Table:
    from zipfile import BadZipFile

    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (BadZipFile, InvalidFileException, KeyError) as error:
        raise UserError(f"table {path}: is not a readable .xlsx workbook: {error}") from error
    names = {cell_text(name).lower(): name for name in book.sheetnames}
    if form.sheet is not None and form.sheet.lower() not in names:
        raise UserError(f"table {path}: has no sheet {form.sheet}, it has {', '.join(book.sheetnames)}")
    sheet = book[names[form.sheet.lower()]] if form.sheet is not None else book.worksheets[0]
    rows = [list(row) for row in sheet.iter_rows(values_only=True)]
    book.close()
    first = form.skip + form.header_rows
    head = rows[form.skip : first]
    numbered = [
        (n, row) for n, row in enumerate(rows[first:], start=first + 1) if any(cell is not None for cell in row)
    ]
    columns = head[0] if form.header_rows == 1 and head else _joined(head)
    return _assemble(path, columns, [row for _, row in numbered], [n for n, _ in numbered])


def _joined(head: list[list[Any]]) -> list[str]:
    columns = []
    for number in range(max((len(row) for row in head), default=0)):
        said = [cell_text(row[number]) for row in head if number < len(row)]
        columns.append(PART.join([*dict.fromkeys(text for text in said if text), f"column {number + 1}"]))
    return columns


def _assemble(path: Path, names: list[Any], rows: list[list[Any]], numbers: list[int]) -> Table:
    columns = [cell_text(name) for name in names]
    named = [index for index, name in enumerate(columns) if name]
    repeated = sorted({columns[i] for i in named if columns.count(columns[i]) > 1})
    if repeated:
        raise UserError(f"table {path}: the header repeats {', '.join(repeated)}; give every column its own name")
    return Table(
        path=path,
        columns=tuple(columns[i] for i in named),
        rows=[{columns[i]: row[i] if i < len(row) else None for i in named} for row in rows],
        numbers=numbers,
        respelled=tuple(str(names[i]) for i in named if str(names[i]) != columns[i]),
    )
