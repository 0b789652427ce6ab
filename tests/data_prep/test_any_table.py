"""Whatever is in a table: it is read exactly, or there is one message that names the file; no row is lost silently."""

import csv
import io
import json
import random
import zipfile

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data_prep.ledger import Ledger
from data_prep.manifest import Source, read_rows
from maskedclip_composer.data.tables import read_table
from maskedclip_composer.errors import UserError

MANY = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLUMNS = ["image", "text", "patient", "Été"]
CELLS = st.text(
    st.sampled_from("aé漢=+-@,;\t\n\r\"' \\/|\0\x1f\x85\u2028\ufeff") | st.characters(exclude_categories=["Cs"]),
    max_size=6,
)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=5)


@MANY
@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    always=st.booleans(),
)
def test_every_cell_of_a_csv_is_read_as_it_was_written(tmp_path, rows, delimiter, end, encoding, always):
    def quoted(cell: str) -> str:  # Python's own writer (3.11) leaves a lone carriage return bare
        return '"' + cell.replace('"', '""') + '"' if always or set(cell) & set(f'"\r\n{delimiter}') else cell

    text = "".join(delimiter.join(map(quoted, row)) + end for row in (COLUMNS, *rows))
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    written = [dict(zip(COLUMNS, row, strict=True)) for row in rows if any(cell.strip() for cell in row)]
    if written:
        assert read_table(tmp_path / "t.csv").rows == written
    else:
        with pytest.raises(UserError, match="no rows"):
            read_table(tmp_path / "t.csv")


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | CELLS | st.lists(CELLS, max_size=2)


@MANY
@given(rows=st.lists(st.dictionaries(st.sampled_from(COLUMNS), VALUES, min_size=1), min_size=1, max_size=4))
def test_every_cell_of_json_lines_is_read_as_it_was_written(tmp_path, rows):
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    names = dict.fromkeys(name for row in rows for name in row)
    assert read_table(tmp_path / "t.jsonl").rows == [{name: row.get(name) for name in names} for row in rows]


@MANY
@given(rows=ROWS)
def test_every_cell_of_parquet_is_read_as_it_was_written(tmp_path, rows):
    table = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").rows == table


WORDS = [b"image", b"text", b"eye", b"split", b"a.jpg", b"../", b'"image"', b"null", b"1e999", b"NaN", b"3.0", b"=1+1"]
MARKS = [bytes([byte]) for byte in b',;\t\n\r"\\{}[]: \0\xff\xe4']
OTHERS = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xa8", b'"\\ud800"', b"9" * 5000, b"[" * 2000, b"x" * 140_000]
PIECES = st.sampled_from([*WORDS, *MARKS, *OTHERS])
BYTES = st.lists(PIECES, max_size=20).map(b"".join) | st.binary(max_size=40)


@MANY
@given(data=BYTES, name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "t.xlsx"]))
@example(data=b'{"image": "a.jpg", "image": "b.jpg"}', name="t.jsonl")
@example(data=b'{"image": ' + b"[" * 100_000, name="t.jsonl")
@example(data=b'{"image": ' + b"9" * 5000 + b"}", name="t.jsonl")
@example(data="image\na.jpg".encode("utf-16"), name="t.csv")
@example(data="image,text\na.jpg,röte".encode("latin-1"), name="t.csv")
def test_any_bytes_are_a_table_or_one_message_that_names_the_file(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    try:
        _, rows = read_rows(Source(table=tmp_path / name, images=tmp_path.resolve()))
        list(rows)
    except UserError as error:
        assert str(error).startswith(f"table {tmp_path / name}: ")  # noqa: PT017 (most are refused, some are not)


def workbook() -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in (["image", "text"], ["a.jpg", "röte"], [None, None], ["b.jpg", 3]):
        book.active.append(row)
    book.save(buffer)
    return buffer.getvalue()


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed))
        changed[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
    return bytes(changed)


def damaged_inside(book: bytes, rng: random.Random) -> bytes:
    """A workbook one of whose parts is damaged, the archive being whole."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(buffer, "w") as new:
        victim = rng.choice(old.namelist())
        for name in old.namelist():
            new.writestr(name, damaged(old.read(name), rng) if name == victim else old.read(name))
    return buffer.getvalue()


def test_damaged_workbooks_and_parquet_are_one_message(tmp_path):
    rng = random.Random(0)
    pyarrow.parquet.write_table(pyarrow.table({"image": ["a.jpg"], "text": [["x", "y"]]}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    book, refused = workbook(), 0
    for number in range(150):
        files = {
            "t.xlsx": damaged_inside(book, rng) if number % 3 else damaged(book, rng),
            "t.parquet": damaged(whole, rng),
        }
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            try:
                read_table(tmp_path / name)
            except UserError as error:
                assert str(error).startswith(f"table {tmp_path / name}: ")  # noqa: PT017
                refused += 1
    assert refused > 100


NAMES = st.sampled_from(["a.jpg", "b/a.jpg", "./a.jpg", "../a.jpg", "/etc/passwd", "..\\a.jpg", "b\\a.jpg", "", "=a"])


@settings(MANY, max_examples=25)  # each makes a database
@given(rows=st.lists(st.tuples(NAMES | CELLS, st.sampled_from(["", "p", "q"])), min_size=1, max_size=8))
def test_every_row_is_taken_or_rejected_or_the_table_is_refused(tmp_path, rows):
    """Rows in are rows to convert and rows in quarantine; the rest of the way keeps their number (`write_part`)."""
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "patient"], *rows])
    given_rows = sum(any(cell.strip() for cell in row) for row in rows)
    try:
        _, read = read_rows(Source(table=tmp_path / "t.csv", images=tmp_path.resolve()))
        ledger, _ = Ledger.plan(tmp_path / "ledger", read, "", part_rows=2, by_split=False)
    except UserError as error:
        assert str(error).startswith(f"table {tmp_path / 't.csv'}: ")  # noqa: PT017
        return
    rejected = list(ledger.rejected())
    parts = [ledger.rows(part) for part in ledger.parts()]
    assert ledger.num_rows() + len(rejected) == given_rows
    assert sum(map(len, parts)) == ledger.num_rows()
    for row in (row for part in parts for row in part):
        assert (tmp_path / row.image).resolve().is_relative_to(tmp_path.resolve())
    ledger.close()


def sheet_with(*cells: object, dimension: str | None = None) -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["image", "patient"])
    book.active.append(cells)
    book.save(buffer)
    if dimension is None:
        return buffer.getvalue()
    changed = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            new.writestr(name, text.replace(b'<dimension ref="A1:B2"', f'<dimension ref="{dimension}"'.encode()))
    return changed.getvalue()


def rows_of(tmp_path, name: str, data: bytes) -> list:
    (tmp_path / name).write_bytes(data)
    return list(read_rows(Source(table=tmp_path / name, images=tmp_path.resolve()))[1])


def test_a_workbook_that_states_a_wrong_size_is_read_whole(tmp_path):
    (row,) = rows_of(tmp_path, "t.xlsx", sheet_with("a.jpg", "p", dimension="A1:A1"))
    assert (row.image, row.patient) == ("a.jpg", "p")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.xlsx", sheet_with("a.jpg", '=A2&"x"'), "row 2: column 'patient' holds a formula without its value"),
        ("t.xlsx", sheet_with("a.jpg", "#N/A"), "row 2: column 'patient' shows the error #N/A"),
        ("t.jsonl", b'{"image": "a.jpg", "patient": {"a": 1}}', "row 1: column 'patient' holds a dict"),
        ("t.jsonl", b'{"image": ["a.jpg", "b.jpg"]}', "row 1: column 'image' holds a list"),
        ("t.jsonl", b'{"image": "a.jpg", "text": ["a", ["b"]]}', "row 1: column 'text' holds a list inside"),
        ("t.jsonl", b'{"image": "a.jpg", "patient": "\\ud800"}', "row 1: column 'patient' holds half a character"),
        ("t.jsonl", b'{"image": "a.jpg", "image": "b.jpg"}', "line 1 names 'image' twice"),
        ("t.csv", b"image,Patient,patient\na.jpg,p,q\n", "has 'Patient' and 'patient'; rename one"),
        ("t.csv", b"image,split\na.jpg,report.json\n", "1 row (2) have split 'report.json', which cannot name"),
        ("t.csv", b"image,split\na.jpg," + b"x" * 101 + b"\n", "which cannot name"),
    ],
)
def test_what_would_be_lost_or_mistaken_is_refused_with_its_place(tmp_path, name, data, message):
    with pytest.raises(UserError) as error:
        rows_of(tmp_path, name, data)
    assert message in str(error.value)


def test_a_workbook_that_unpacks_to_a_bomb_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("maskedclip_composer.data.binary_tables.MOST_BYTES", 5000)
    with pytest.raises(UserError, match="unpacks to"):
        rows_of(tmp_path, "t.xlsx", workbook())
