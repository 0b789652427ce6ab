import csv
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import data_prep
from data_prep.fixtures.command import write
from data_prep.fixtures.files import photograph, sheet
from data_prep.readers.catalogue import DATASETS
from data_prep.split_index import index_name
from maskedclip_composer.data.subsets import FRACTIONS, below_common_folder, smallest_fractions
from maskedclip_composer.evaluation.data import load_labelled
from maskedclip_composer.evaluation.kinds import Amount
from tests.data_prep.drawing import run

COMMITTED = Path(data_prep.__file__).parent / "splits"


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def brset(tmp_path_factory):
    """Both eyes of 30 patients, of unlike grades for some."""
    root = write("brset", tmp_path_factory.mktemp("brset") / "downloads")
    head = list(table(root / "labels.csv")[0])
    shutil.rmtree(root / "fundus_photos")
    cells = [head]
    for n in reversed(range(60)):  # an index is sorted all the same
        grade = (n // 2) % 3 if n % 10 else 0
        known = {"image_id": f"img{n:05}", "patient_id": n // 2, "exam_eye": n % 2 + 1, "DR_ICDR": grade}
        cells.append([known.get(column, 0) for column in head])
        photograph(root / "fundus_photos" / f"img{n:05}.jpg", size=(32, 32))
    sheet(root / "labels.csv", cells)
    return root


@pytest.fixture
def index(brset, tmp_path):
    assert run("split", "brset", "--root", brset, "--out", tmp_path / "splits", "--draws", "2") == 0
    return tmp_path / "splits" / "brset.csv"


def rewrite(path, change):
    """Change the rows of an index, and take the description away that would refuse it."""
    rows = table(path)
    change(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    path.with_suffix(".json").unlink()


def prepare(brset, index, tmp_path, *options):
    options = ("--kind", "labelled", "--split-file", index, *options)
    return run("prepare", "brset", "--root", brset, "--manifest", tmp_path / "m.csv", *options)


def test_index_and_its_description(brset, index, tmp_path, capsys):
    rows = table(index)
    assert list(rows[0]) == ["image", "label", "patient", "split", "fraction_0", "fraction_1"]
    assert rows[0]["image"] == "img00000.jpg"
    assert sorted(row["image"] for row in rows) == [row["image"] for row in rows]
    for row in rows:
        held = {row["fraction_0"], row["fraction_1"]}
        assert (held == {""}) == (row["split"] != "train")
    about = json.loads(index.with_suffix(".json").read_bytes())
    assert about["sha256"] == hashlib.sha256(index.read_bytes()).hexdigest()
    assert (about["dataset"], about["target"], about["seed"], about["label_draws"]) == ("brset", "grade", 17, [0, 1])
    for part in ("train", "val", "test"):
        assert about["counts"][part] == Counter(row["label"] for row in rows if row["split"] == part)
    assert any(note.startswith("division: test 30% of the photographs") for note in about["notes"])
    files = {path.name: path.read_bytes() for path in index.parent.iterdir()}
    assert set(files) == {"brset.csv", "brset.json"}
    # The same bytes again, also from a folder further up.
    for root, out in ((brset, "again"), (brset.parent, "above")):
        assert run("split", "brset", "--root", root, "--out", tmp_path / out, "--draws", "2") == 0
        assert {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} == files
    assert run("split", "brset", "--root", brset, "--out", tmp_path / "other", "--draws", "2", "--seed", "18") == 0
    assert (tmp_path / "other" / "brset.csv").read_bytes() != files["brset.csv"]
    assert "next: python -m data_prep prepare brset" in capsys.readouterr().out


def test_prepare_takes_the_index_and_evaluation_its_label_fractions(brset, index, tmp_path):
    options = ("--kind", "labelled", "--split-file", index, "--out", tmp_path / "out", "--size", "32", "--workers", "1")
    assert run("prepare", "brset", "--root", brset, *options) == 0
    data = load_labelled(str(tmp_path / "out"))
    rows = table(index)
    for part in ("train", "val", "test"):
        stored = below_common_folder(getattr(data, part).photographs.names)
        assert sorted(stored) == [row["image"] for row in rows if row["split"] == part]
    for draw in (0, 1):
        for fraction in FRACTIONS:
            expected = [row["image"] for row in rows if float(row[f"fraction_{draw}"] or 2) <= fraction]
            chosen = below_common_folder(data.train.photographs.names)
            assert sorted(chosen[index] for index in data.train.draw(Amount(fraction=fraction), draw)) == expected


def test_prepare_draws_what_split_writes(brset, index, tmp_path):
    options = ("--root", brset, "--kind", "labelled", "--manifest", tmp_path / "drawn.csv")
    assert run("prepare", "brset", *options) == 0
    assert prepare(brset, index, tmp_path) == 0
    assert (tmp_path / "drawn.csv").read_bytes() == (tmp_path / "m.csv").read_bytes()


def test_photographs_that_the_index_does_not_name_are_left_out(brset, index, tmp_path):
    rewrite(index, lambda rows: rows.pop(3))
    assert prepare(brset, index, tmp_path) == 0
    assert len(table(tmp_path / "m.csv")) == 59
    assert [tuple(row.values()) for row in table(tmp_path / "m.left_out.csv")] == [
        ("fundus_photos/img00003.jpg", "is not in brset.csv")
    ]


def test_hashes_of_the_photographs(brset, tmp_path, capsys):
    assert run("split", "brset", "--root", brset, "--out", tmp_path, "--hash", "--draws", "0") == 0
    index = tmp_path / "brset.csv"
    first = table(index)[0]
    assert list(first) == ["image", "label", "patient", "split", "sha256"]
    assert first["sha256"] == hashlib.sha256((brset / "fundus_photos" / "img00000.jpg").read_bytes()).hexdigest()
    assert prepare(brset, index, tmp_path) == 0
    rewrite(index, lambda rows: rows[4].update(sha256="0" * 64))
    assert prepare(brset, index, tmp_path) == 2
    assert "row 6: 'img00004.jpg' is another file than the index was made for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[2].update(label="4"), "row 4: 'img00002.jpg' has label '4', but grade of BRSET is '1'"),
        (lambda rows: rows[2].update(split="dev"), "row 4: 'img00002.jpg' has split 'dev'; write train, val or test"),
        (lambda rows: rows[2].update(image="x.jpg"), "1 of its photographs are not below"),
        (lambda rows: rows[2].update(image="x.jpg"), "the first is 'x.jpg' in row 4; complete the download"),
        (lambda rows: rows.append(rows[2]), "row 62: 'img00002.jpg' is named a second time"),
        (lambda rows: [row.pop("split") for row in rows], "has no column split"),
    ],
)
def test_indices_that_do_not_fit(brset, index, tmp_path, capsys, change, message):
    rewrite(index, change)
    assert prepare(brset, index, tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(index) in error
    assert not (tmp_path / "m.csv").exists()


def test_an_index_with_torn_rows(brset, index, tmp_path, capsys):
    index.write_text("image,label,split\nimg00000.jpg,0\n")
    index.with_suffix(".json").unlink()
    assert prepare(brset, index, tmp_path) == 2
    assert "row 2 has not as many cells as the header" in capsys.readouterr().err


def test_an_index_and_its_description_belong_together(brset, index, tmp_path, capsys):
    index.write_bytes(index.read_bytes().replace(b",val,", b",test,", 1))
    assert prepare(brset, index, tmp_path) == 2
    assert "is not the file that brset.json describes" in capsys.readouterr().err
    index.with_suffix(".json").write_text("{}")
    assert prepare(brset, index, tmp_path) == 2
    assert "brset.json: does not describe an index" in capsys.readouterr().err
    other = write("ddr", tmp_path / "ddr")
    assert run("split", "ddr", "--root", other, "--out", tmp_path / "other") == 0
    assert prepare(brset, tmp_path / "other" / "ddr.csv", tmp_path) == 2
    assert "is for grade of ddr, not for grade of brset" in capsys.readouterr().err


def test_a_name_that_several_photographs_have(tmp_path, capsys):
    root = write("glaucoma-fundus", tmp_path / "gf")
    (tmp_path / "i.csv").write_text("image,label,split\n1.png,normal_control,train\n")
    options = ("--manifest", tmp_path / "m.csv", "--split-file", tmp_path / "i.csv")
    assert run("prepare", "glaucoma-fundus", "--root", root, *options) == 2
    assert "row 2: '1.png' may be " in capsys.readouterr().err


def test_official_sets_and_redraw(tmp_path):
    """ORIGA's A and B are its own train and test, unless they are set aside."""
    root = tmp_path / "origa"
    sets = {f"{n:03}.jpg": "AB"[n % 2] for n in range(40)}
    head = ["Eye", "Filename", "ExpCDR", "Set", "Glaucoma"]
    rows = [["OD", name, 0.5, letter, n // 2 % 2] for n, (name, letter) in enumerate(sets.items())]
    sheet(root / "OrigaList.csv", [head, *rows])
    for name in sets:
        photograph(root / "Images" / name, size=(32, 32))
    assert run("split", "origa", "--root", root, "--out", tmp_path / "a") == 0
    found = table(tmp_path / "a" / "origa.csv")
    assert all((row["split"] == "test") == (sets[row["image"]] == "B") for row in found)
    assert Counter(row["split"] for row in found) == {"train": 16, "val": 4, "test": 20}
    assert run("split", "origa", "--root", root, "--out", tmp_path / "b", "--redraw", "--test", "0.3") == 0
    redrawn = table(tmp_path / "b" / "origa.csv")
    assert Counter(row["split"] for row in redrawn) == {"train": 22, "val": 6, "test": 12}
    assert {sets[row["image"]] for row in redrawn if row["split"] == "test"} == {"A", "B"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chase-db1",), "chase-db1 has no labels; leave --kind out"),
        (("brset", "--draws", "-1"), "--draws -1: give a number from 0"),
        (("brset", "--target", "dme"), "brset has no such target"),
    ],
)
def test_indices_that_cannot_be_made(tmp_path, capsys, arguments, message):
    root = write(arguments[0], tmp_path / "set")
    assert run("split", *arguments, "--root", root, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["grade", "dme"])
def test_the_committed_index_of_idrid(target):
    path = COMMITTED / f"{index_name(DATASETS['idrid'], target)}.csv"
    about = json.loads(path.with_suffix(".json").read_bytes())
    assert about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    rows = table(path)
    assert Counter(row["split"] for row in rows) == {"train": 330, "val": 82, "test": 103}
    assert all((row["split"] == "test") == row["image"].startswith("b. Testing Set/") for row in rows)
    assert "a. Training Set/IDRiD_118.jpg" not in {row["image"] for row in rows}  # a test photograph
    train = [row for row in rows if row["split"] == "train"]
    labels, targets = np.unique([row["label"] for row in train], return_inverse=True)
    for part in ("train", "val", "test"):
        assert {row["label"] for row in rows if row["split"] == part} == set(labels)
        assert about["counts"][part] == Counter(row["label"] for row in rows if row["split"] == part)
    for draw in range(5):
        held = np.array([float(row[f"fraction_{draw}"]) for row in train])
        assert held.tolist() == smallest_fractions(targets, draw, names=[row["image"] for row in train]).tolist()
        for fraction in FRACTIONS:
            for number, whole in zip(np.bincount(targets[held <= fraction]), np.bincount(targets), strict=True):
                assert number == max(1, int(fraction * whole + 0.5))
