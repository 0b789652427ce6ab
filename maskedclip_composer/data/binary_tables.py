"""Read Parquet and Excel files row by row."""

import zipfile
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from maskedclip_composer.data.cells import BadCell, cell_text
from maskedclip_composer.errors import UserError

PART = " / "
"""Between the parts of a column name that several header rows make up."""
MOST_BYTES = 1 << 31
"""That a workbook may unpack to: a sheet of Excel's million rows has fewer."""

Cells = list[Any]
Lines = Iterator[tuple[int, Cells]]


def parquet_lines(path: Path) -> tuple[Cells, Lines]:
    """Return the names of the columns, and the rows with their numbers from 1.

    Raises:
        UserError: It is no Parquet or damaged, perhaps only when the rows are read.
    """
    import pyarrow.parquet

    def lines() -> Lines:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024):
                columns = [column.to_pylist() for column in batch.columns]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield number, list(cells)
        except UserError:
            raise
        except Exception as error:  # ArrowException, OSError, UnicodeDecodeError, and what else a damaged file brings
            raise UserError(f"table {path}: row {number + 1} and on cannot be read: {error}") from error

    try:
        file = pyarrow.parquet.ParquetFile(path)
        return list(file.schema_arrow.names), lines()
    except Exception as error:
        raise UserError(f"table {path}: is not readable Parquet: {error}") from error


def workbook_lines(path: Path, sheet: str | None, skip: int, header_rows: int) -> tuple[Cells, Lines]:
    """Return the names of the columns of a sheet, and the rows that are not blank with their numbers in the sheet.

    A formula's cell has the value that was saved with it; a `BadCell` where there is none, or an error.

    Args:
        path: Of the workbook.
        sheet: Name, whatever its case; None is the first.
        skip: Rows above the header.
        header_rows: Of more than one, the names are joined.

    Raises:
        UserError: It is no workbook, damaged, lacks the sheet or unpacks to too much; perhaps only when rows are read.
    """
    try:
        values, formulas = _open(path, sheet)
        rows = enumerate(zip_longest(values.iter_rows(), formulas.iter_rows(), fillvalue=()), start=1)
        head = [[cell.value for cell in row] for _, (row, _) in islice(rows, skip + header_rows)][skip:]
    except UserError:
        raise
    except Exception as error:  # openpyxl raises whatever its parts do: a dozen kinds were seen
        raise UserError(f"table {path}: is not a readable .xlsx workbook: {_said(error)}") from error

    def lines() -> Lines:
        number = skip + header_rows
        try:
            for number, (row, formula) in rows:
                cells = [_value(*pair) for pair in zip_longest(row, formula)]
                if any(cell is not None for cell in cells):
                    yield number, cells
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"table {path}: what follows row {number} cannot be read: {_said(error)}") from error
        finally:
            values.parent.close()
            formulas.parent.close()

    return head[0] if header_rows == 1 and head else _joined(head), lines()


def _open(path: Path, sheet: str | None) -> tuple[Any, Any]:
    """Return the sheet with the values that were saved, and with the formulas."""
    import openpyxl

    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())  # no member unpacks to more than it says
    if size > MOST_BYTES:
        raise UserError(f"table {path}: unpacks to {size:,} bytes, which no sheet of images needs; save it as CSV")
    sheets = []
    for data_only in (True, False):
        book = openpyxl.load_workbook(path, read_only=True, data_only=data_only)
        names = {cell_text(name).lower(): name for name in book.sheetnames}
        if sheet is not None and sheet.lower() not in names:
            raise UserError(f"table {path}: has no sheet {sheet}, it has {', '.join(book.sheetnames)}")
        found = book[names[sheet.lower()]] if sheet is not None else book.worksheets[0]
        # Some programs write the size of another sheet, or none: openpyxl would leave out what lies beyond.
        found.reset_dimensions()
        sheets.append(found)
    return sheets[0], sheets[1]


def _value(cell: Any, formula: Any) -> Any:
    if cell is not None and cell.data_type == "e":
        return BadCell(str(cell.value), f"shows the error {cell.value}; mend its formula")
    if cell is None or (cell.value is None and formula is not None and formula.data_type == "f"):
        return BadCell("", "holds a formula without its value; open the workbook in a spreadsheet program and save it")
    return cell.value


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _joined(head: list[Cells]) -> list[str]:
    columns = []
    for number in range(max((len(row) for row in head), default=0)):
        said = [cell_text(row[number]) for row in head if number < len(row)]
        columns.append(PART.join([*dict.fromkeys(text for text in said if text), f"column {number + 1}"]))
    return columns
