import json
import math

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from maskedclip_composer.data.cells import cell_text, cell_texts
from maskedclip_composer.data.tables import Form, read_table
from maskedclip_composer.errors import UserError

EXPECTED = [{"image": "a.jpg", "text": "röte"}, {"image": "b.jpg", "text": "blass, grau"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", 'image,text\na.jpg,röte\nb.jpg,"blass, grau"\n'.encode()),
        ("bom.csv", 'image,text\r\na.jpg,röte\r\nb.jpg,"blass, grau"\r\n'.encode("utf-8-sig")),
        ("semicolon.csv", "image;text\na.jpg;röte\nb.jpg;blass, grau\n".encode()),
        ("tabs.tsv", "image\t text \na.jpg\tröte\n\nb.jpg\tblass, grau\n".encode()),
        ("trailing.csv", 'image,text,,\na.jpg,röte,,\nb.jpg,"blass, grau"\n'.encode()),
        ("lines.jsonl", "\n".join(json.dumps(row) for row in EXPECTED).encode()),
    ],
)
def test_text_formats_read_alike(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    table = read_table(tmp_path / name)
    assert table.rows == EXPECTED
    assert table.columns == ("image", "text")


def test_parquet_keeps_lists_and_excel_strips_names(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"image": ["a"], "text": [["x", "y"]]}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").rows == [{"image": "a", "text": ["x", "y"]}]
    book = openpyxl.Workbook()
    for row in (["image ", None, "grade"], ["a", None, 3], [None, None, None], ["b", None, 4.0]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert [cell_text(row["grade"]) for row in table.rows] == ["3", "4"]
    assert table.columns == ("image", "grade")
    assert table.numbers == [2, 4]


def test_row_numbers_are_lines_of_the_file(tmp_path):
    (tmp_path / "t.csv").write_text('image,text\n\na.jpg,"two\nlines"\nb.jpg,one\n')
    table = read_table(tmp_path / "t.csv")
    assert table.numbers == [4, 5]
    assert cell_text(table.rows[0]["text"]) == "two lines"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "image,text\na.jpg,r\xf6te\n".encode("latin-1"), "line 2 is not UTF-8.*0xf6.*iconv"),
        ("t.csv", b"image,text\na.jpg,red, round\n", "line 2 has 3 cells, the header has 2"),
        ("t.csv", b"image,text\na.jpg\n", "line 2 has 1 cells"),
        ("t.csv", b'image,text\na.jpg,"open\n', "not well-formed"),
        ("t.csv", b"image,text\n", "no rows"),
        ("t.csv", b"", "no rows"),
        ("t.csv", b"image,text,text\na,b,c\n", "repeats text"),
        ("t.jsonl", b'{"image": 1}\n{oops\n', "line 2 is not JSON"),
        ("t.jsonl", b"[1]\n", "JSON list"),
        ("t.parquet", b"not parquet", "not readable Parquet"),
        ("t.xlsx", b"not a zip", "not a readable .xlsx"),
        ("t.ods", b"", r"format \.ods is not known.*\.csv"),
    ],
)
def test_unreadable_tables_are_explained(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"(?s){name}.*{message}"):
        read_table(tmp_path / name)


def test_missing_table(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "none.csv")


def test_cells():
    assert [cell_text(cell) for cell in (None, math.nan, 3, 3.0, 3.5, " a \n b ")] == ["", "", "3", "3", "3.5", "a b"]
    assert cell_texts("a | b||", "|") == ["a", "b"]
    assert cell_texts("a | b", None) == ["a | b"]
    assert cell_texts(["a | b", None, "c"], "|") == ["a | b", "c"]


def test_workbook_with_two_header_rows_and_rows_above(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "Notes"
    page = book.create_sheet("Baseline")
    for row in (["made in 2020"], [None, "VF", None], ["ID", "MD", "PSD"], [None, None, None], [7, 1.5, 2]):
        page.append(row)
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx", Form(sheet="baseline", skip=1, header_rows=2))
    assert table.columns == ("ID / column 1", "VF / MD / column 2", "PSD / column 3")
    assert (table.rows, table.numbers) == ([{"ID / column 1": 7, "VF / MD / column 2": 1.5, "PSD / column 3": 2}], [5])


def test_lines_without_header(tmp_path):
    (tmp_path / "t.txt").write_text('im1\t 3 4 \t"odd" text, with\ttabs\n\nim2\t0\tnormal\n', encoding="utf-8")
    table = read_table(tmp_path / "t.txt", Form(names=("image", "codes", "text"), delimiter="\t"))
    assert [tuple(row.values()) for row in table.rows] == [
        ("im1", "3 4", '"odd" text, with\ttabs'),
        ("im2", "0", "normal"),
    ]
    assert table.numbers == [1, 3]


@pytest.mark.parametrize(
    "content", ['[{"a.jpg": {"k": 1}}, {"b.jpg": {"t": 2}}]', '{"a.jpg": {"k": 1}, "b.jpg": {"t": 2}}']
)
def test_json_by_image(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    table = read_table(tmp_path / "t.json")
    assert table.rows == [{"image": "a.jpg", "k": 1, "t": None}, {"image": "b.jpg", "k": None, "t": 2}]
