"""Read CSV, TSV, Parquet, JSON lines and Excel sheets into one shape, with the row numbers that a user sees."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from maskedclip_composer.data.binary_tables import Cells, Lines, parquet_lines, workbook_lines
from maskedclip_composer.data.cells import cell_text
from maskedclip_composer.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".xlsx")


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
            row = _loaded(line, f"table {path}: line {number}")
            if not isinstance(row, dict):
                raise UserError(f"table {path}: line {number} is a JSON {type(row).__name__}, not an object")
            yield number, row


def _json(path: Path, form: Form) -> tuple[Cells, Lines]:
    with _decoded(path) as file:
        text = file.read()
    content = _loaded(text, f"table {path}:")
    pieces = content if isinstance(content, list) else [content]
    if not all(
        isinstance(piece, dict) and all(isinstance(value, dict) for value in piece.values()) for piece in pieces
    ):
        raise UserError(f"table {path}: is not JSON of the form {{image: {{column: value}}}}, alone or in a list")
    records = [{"image": image, **fields} for piece in pieces for image, fields in piece.items()]
    columns = list(dict.fromkeys(name for record in records for name in record))
    return columns, ((n, [record.get(name) for name in columns]) for n, record in enumerate(records, start=1))


def _loaded(text: str, where: str) -> Any:
    """Parse JSON, of which Python's parser lets the last of two equal keys win without a word."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        count = Counter(name for name, _ in pairs)
        if repeated := [name for name in count if count[name] > 1]:
            raise UserError(f"{where} names {repeated[0]!r} twice; take one of them out")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except UserError:
        raise
    except ValueError as error:  # JSONDecodeError, or of a number with thousands of digits
        raise UserError(f"{where} is not JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where} nests too deeply") from error


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


_READERS: dict[str, Callable[[Path, Form], tuple[Cells, Lines]]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": lambda path, _: parquet_lines(path),
    ".xlsx": lambda path, form: workbook_lines(path, form.sheet, form.skip, form.header_rows),
}
