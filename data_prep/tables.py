"""Read CSV, TSV, Parquet, JSON lines and Excel sheets into one shape, with the row numbers that a user sees."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

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


Cells = list[Any]
Lines = Iterator[tuple[int, Cells]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A sheet with stripped column names, in memory.

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


@dataclass(frozen=True, kw_only=True)
class TableStream:
    """A sheet that is read once, row by row: memory does not grow with it. Attributes as of `Table`."""

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[tuple[int, dict[str, Any]]]
    respelled: tuple[str, ...] = ()


def read_table(path: Path, form: Form = Form()) -> Table:  # noqa: B008 (frozen)
    """Read the table at `path` into memory; errors as of `stream_table`."""
    stream = stream_table(path, form)
    numbers, rows = [], []
    for number, row in stream.rows:
        numbers.append(number)
        rows.append(row)
    return Table(path=path, columns=stream.columns, rows=rows, numbers=numbers, respelled=stream.respelled)


def stream_table(path: Path, form: Form = Form()) -> TableStream:  # noqa: B008 (frozen)
    """Open the table at `path`; its suffix tells the format.

    Data sets also come as text files without a header (`form.names`) and as JSON whose keys are image names: those
    names become the column `image`.

    Raises:
        UserError: The file is missing, of an unknown format, not UTF-8, ragged, without rows, or repeats a column;
            what is wrong with a row is raised when it is reached.
    """
    if not path.is_file():
        raise UserError(f"table {path}: no such file")
    suffix = path.suffix.lower()
    if form.names:
        names, lines = list(form.names), _lines_without_header(path, form)
    elif suffix in _READERS:
        names, lines = _READERS[suffix](path, form)
    else:
        raise UserError(
            f"table {path}: format {suffix or '(no suffix)'} is not known; use one of {', '.join(SUFFIXES)}"
        )
    columns = [cell_text(name) for name in names]
    named = [index for index, name in enumerate(columns) if name]
    repeated = sorted({columns[i] for i in named if columns.count(columns[i]) > 1})
    if repeated:
        raise UserError(f"table {path}: the header repeats {', '.join(repeated)}; give every column its own name")

    def rows() -> Iterator[tuple[int, dict[str, Any]]]:
        number = None
        for number, cells in lines:
            yield number, {columns[i]: cells[i] if i < len(cells) else None for i in named}
        if number is None:
            raise UserError(f"table {path}: has no rows below its header")

    return TableStream(
        path=path,
        columns=tuple(columns[i] for i in named),
        rows=rows(),
        respelled=tuple(str(names[i]) for i in named if str(names[i]) != columns[i]),
    )


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


def _delimited(path: Path, form: Form) -> tuple[Cells, Lines]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else None
    if delimiter is None:
        with _decoded(path) as file:
            header = file.readline()
        # Excel writes semicolons where the comma is the decimal mark.
        delimiter = max([",", ";", "\t"], key=header.count)
    lines = _delimited_lines(path, delimiter)
    _, names = next(lines, (0, []))
    return names, lines


def _delimited_lines(path: Path, delimiter: str) -> Lines:
    names: Cells | None = None
    with _decoded(path) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if names is None:
                    names = cells
                elif not any(cell.strip() for cell in cells):
                    continue
                # Missing trailing cells that have no column name lose nothing (IDRiD's sheets differ in this).
                elif any(cell.strip() for cell in (*cells[len(names) :], *names[len(cells) :])):
                    raise UserError(
                        f"table {path}: line {reader.line_num} has {len(cells)} cells, the header has {len(names)}; "
                        f"quote cells that hold the delimiter {delimiter!r}"
                    )
                yield reader.line_num, cells
        except csv.Error as error:
            raise UserError(f"table {path}: line {reader.line_num} is not well-formed CSV: {error}") from error


@contextmanager
def _decoded(path: Path) -> Iterator[TextIO]:
    """Open a text file as UTF-8, with or without a byte order mark; say where it is not."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError:
        data = path.read_bytes()
        try:
            data.decode("utf-8-sig")
        except UnicodeDecodeError as error:  # its place in the file; the other's was in a block of it
            line = data.count(b"\n", 0, error.start) + 1
            raise UserError(
                f"table {path}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); save it as 'CSV UTF-8', "
                f"or convert it: iconv -f <its encoding, e.g. UTF-16, GB18030 or WINDOWS-1252> -t UTF-8"
            ) from error
        raise


def _json_lines(path: Path, form: Form) -> tuple[Cells, Lines]:
    columns = list(dict.fromkeys(name for _, row in _json_objects(path) for name in row))
    return columns, ((number, [row.get(name) for name in columns]) for number, row in _json_objects(path))


def _json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _decoded(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"table {path}: line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"table {path}: line {number} is a JSON {type(row).__name__}, not an object")
            yield number, row


def _json(path: Path, form: Form) -> tuple[Cells, Lines]:
    with _decoded(path) as file:
        text = file.read()
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
    return columns, ((n, [record.get(name) for name in columns]) for n, record in enumerate(records, start=1))


def _lines_without_header(path: Path, form: Form) -> Lines:
    with _decoded(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            cells = [cell.strip() for cell in line.strip().split(form.delimiter, len(form.names) - 1)]
            if len(cells) < len(form.names):
                raise UserError(
                    f"table {path}: line {number} has {len(cells)} columns, not {len(form.names)} "
                    f"({', '.join(form.names)}); download the file again"
                )
            yield number, cells


def _parquet(path: Path, form: Form) -> tuple[Cells, Lines]:
    import pyarrow
    import pyarrow.parquet

    def lines() -> Lines:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024):
                columns = [column.to_pylist() for column in batch.columns]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield number, list(cells)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"table {path}: row {number + 1} and on cannot be read: {error}") from error

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"table {path}: is not readable Parquet: {error}") from error
    return list(file.schema_arrow.names), lines()


def _excel(path: Path, form: Form) -> tuple[Cells, Lines]:
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
    rows = enumerate(sheet.iter_rows(values_only=True), start=1)
    first = form.skip + form.header_rows
    head = [list(row) for _, row in islice(rows, first)][form.skip :]

    def lines() -> Lines:
        for number, row in rows:
            if any(cell is not None for cell in row):
                yield number, list(row)
        book.close()

    return head[0] if form.header_rows == 1 and head else _joined(head), lines()


def _joined(head: list[Cells]) -> list[str]:
    columns = []
    for number in range(max((len(row) for row in head), default=0)):
        said = [cell_text(row[number]) for row in head if number < len(row)]
        columns.append(PART.join([*dict.fromkeys(text for text in said if text), f"column {number + 1}"]))
    return columns


_READERS: dict[str, Callable[[Path, Form], tuple[Cells, Lines]]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".xlsx": _excel,
}
