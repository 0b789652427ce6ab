import csv

import pytest

from data_prep.fixtures.command import write
from data_prep.fixtures.files import photograph, sheet
from tests.data_prep.drawing import run, samples


@pytest.fixture(scope="module")
def brset(tmp_path_factory):
    """Both eyes of 30 patients, of three grades."""
    root = write("brset", tmp_path_factory.mktemp("brset") / "downloads")
    with (root / "labels.csv").open(newline="") as file:
        head = next(csv.reader(file))
    cells = [head]
    for n in range(60):
        known = {"image_id": f"img{n:05}", "patient_id": n // 2, "exam_eye": n % 2 + 1, "DR_ICDR": (n // 2) % 3}
        cells.append([known.get(column, 0) for column in head])
        photograph(root / "fundus_photos" / f"img{n:05}.jpg", size=(32, 32))
    sheet(root / "labels.csv", cells)
    return root


def rows_of(brset, tmp_path, *options):
    assert run("prepare", "brset", "--root", brset, "--manifest", tmp_path / "m.csv", *options) == 0
    with (tmp_path / "m.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["labelled", "paired", "unpaired"])
def test_only_these_patients_whatever_the_records(brset, tmp_path, kind):
    (tmp_path / "half.txt").write_text("".join(f"{n}\n" for n in range(12)) + "\n")
    found = rows_of(brset, tmp_path, "--kind", kind, "--patients", tmp_path / "half.txt")
    assert {row["patient"] for row in found} == {str(n) for n in range(12)}
    assert len(found) == 24
    assert "fundus_photos/img00024.jpg,patient is not in half.txt" in (tmp_path / "m.left_out.csv").read_text()
    if kind == "labelled":  # the division is one of these patients, not what is left of that of all
        assert sum(row["split"] == "test" for row in found) in (6, 8)
        for patient in range(12):
            assert len({row["split"] for row in found if row["patient"] == str(patient)}) == 1


def test_records_name_who_was_left_out(brset, tmp_path, capsys):
    (tmp_path / "one.txt").write_text("3\n")
    options = ("--patients", tmp_path / "one.txt", "--out", tmp_path / "out", "--size", "32", "--workers", "1")
    assert run("prepare", "brset", "--root", brset, *options) == 0
    assert {sample["patient"] for sample in samples(tmp_path / "out")} == {"3"}
    assert run("check", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "patients: the 1 of one.txt" in out
    assert "2 stored, 0 quarantined, 58 left out" in out


def test_an_index_of_all_patients_still_divides_some(brset, tmp_path):
    assert run("split", "brset", "--root", brset, "--out", tmp_path) == 0
    index = ("--kind", "labelled", "--split-file", tmp_path / "brset.csv")
    of_all = {row["image"]: row["split"] for row in rows_of(brset, tmp_path, *index)}
    (tmp_path / "half.txt").write_text("".join(f"{n}\n" for n in range(15)))
    found = {
        row["image"]: row["split"] for row in rows_of(brset, tmp_path, *index, "--patients", tmp_path / "half.txt")
    }
    assert len(found) == 30
    assert found.items() <= of_all.items()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n\n99\n", "half.txt: line 3: the set has no unpaired photograph of the patient '99'; take the line out"),
        ("1\n2\n1\n", "half.txt: names '1' twice"),
        ("\n", "half.txt: names no patient; write one a line"),
        ("\xff", "half.txt: cannot be read as text in UTF-8"),
    ],
)
def test_files_that_do_not_fit(brset, tmp_path, capsys, text, message):
    (tmp_path / "half.txt").write_bytes(text.encode("latin1"))
    options = ("--manifest", tmp_path / "m.csv", "--patients", tmp_path / "half.txt")
    assert run("prepare", "brset", "--root", brset, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m.csv").exists()


def test_a_set_that_knows_no_patients(tmp_path, capsys):
    root = write("aptos2019", tmp_path / "aptos")
    (tmp_path / "half.txt").write_text("1\n")
    options = ("--manifest", tmp_path / "m.csv", "--patients", tmp_path / "half.txt")
    assert run("prepare", "aptos2019", "--root", root, *options) == 2
    assert "the set does not say whose its photographs are; leave the option out" in capsys.readouterr().err
