import csv
import json
from dataclasses import replace

import pytest

from data_prep.fixtures.command import FIXTURES, write
from data_prep.fixtures.files import photograph, sheet
from data_prep.readers.catalogue import DATASETS
from data_prep.readers.dataset import Division
from data_prep.readers.division import divide
from data_prep.readers.read import read
from tests.data_prep.drawing import run, samples

FAST = ("--workers", "1", "--size", "64")


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_list_shows_every_set(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    for name, dataset in DATASETS.items():
        assert f"  {name} " in out
        assert dataset.title in out
        assert dataset.licence in out
        assert name == "class-folders" or dataset.source in out


@pytest.mark.parametrize("name", DATASETS)
def test_expect_prints_the_tree_and_finds_the_fixture_whole(tmp_path, capsys, name):
    assert run("prepare", name, "--expect") == 0
    out = capsys.readouterr().out
    assert f"get it from {DATASETS[name].source}" in out
    for part in DATASETS[name].parts:
        assert part.example in out
        assert not part.sheets or part.sheets[0].paths[0] in out
    assert run("prepare", name, "--expect", "--root", write(name, tmp_path / name)) == 0
    whole = capsys.readouterr().out
    assert "missing:" not in whole
    # REFUGE's labels of the validation set are optional, and not in the fixture.
    assert whole.count("MISSING") == (1 if name == "refuge" else 0)


def test_expect_says_what_is_missing(tmp_path, capsys):
    root = write("idrid", tmp_path / "idrid")
    next(root.glob("**/b. IDRiD*.csv")).unlink()
    assert run("prepare", "idrid", "--expect", "--root", root) == 1
    out = capsys.readouterr().out
    assert "MISSING  2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv" in out
    assert "found    1. Original Images/a. Training Set/IDRiD_<nnn>.jpg" in out
    assert "missing: the sheet 2. Groundtruths/b. IDRiD" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("odir-5k",), "do you mean odir5k?"),
        (("odir5k",), "give --root DIR"),
        (("odir5k", "--root", "{root}"), "give --out DIR for shards, --manifest FILE.csv for a table, or both"),
        (("odir5k", "--root", "{root}", "--manifest", "m.txt"), "ends in .csv"),
        (("odir5k", "--root", "{root}/none", "--out", "x"), "no such folder"),
        (("odir5k", "--root", "{root}", "--out", "x", "--kind", "labelled"), "odir5k has no labels"),
        (("odir5k", "--root", "{root}", "--out", "x", "--val", "0.2"), "--val is for labelled records"),
        (("odir5k", "--root", "{root}", "--out", "x", "--template", "a {name}"), "has no {label}"),
        (("odir5k", "--root", "{root}", "--out", "x", "--kind", "unpaired", "--template", "{label}"), "--kind paired"),
        (("odir5k", "--root", "{root}", "--out", "x", "--workers", "0"), "--workers 0"),
    ],
)
def test_wrong_options(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    root = write("odir5k", tmp_path / "odir")
    assert run("prepare", *(argument.replace("{root}", str(root)) for argument in arguments)) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odir"]


def test_manifest_alone_and_its_next_command_give_the_same_shards(tmp_path, capsys):
    root = write("odir5k", tmp_path / "odir")
    assert run("prepare", "odir5k", "--root", root, "--manifest", tmp_path / "m.csv") == 0
    out = capsys.readouterr().out
    assert "left out: 4" in out
    assert f"manifest --csv {tmp_path}/m.csv --images {root} --kind paired --separator '|'" in out
    assert [(row["image"], row["text"], row["eye"]) for row in table(tmp_path / "m.csv")][1] == (
        "ODIR-5K_Training_Dataset/0_right.jpg",
        "macular epiretinal membrane|drusen",
        "right",
    )
    assert len(table(tmp_path / "m.left_out.csv")) == 4
    options = ("--csv", tmp_path / "m.csv", "--images", root, "--kind", "paired", "--separator", "|")
    assert run("manifest", *options, "--out", tmp_path / "one", *FAST) == 0
    assert run("prepare", "odir5k", "--root", root, "--out", tmp_path / "two", *FAST) == 0
    assert samples(tmp_path / "one") == samples(tmp_path / "two")


@pytest.mark.parametrize("name", [name for name in FIXTURES if name not in ("idrid", "odir5k")])
def test_manifests_of_all_sets_are_read_back(tmp_path, name):
    root = write(name, tmp_path / name)
    assert run("prepare", name, "--root", root, "--manifest", tmp_path / "m.csv") == 0
    kind = DATASETS[name].kind
    separator = ("--separator", "|") if name == "deepeyenet" else ()
    out = tmp_path / "out"
    options = ("--csv", tmp_path / "m.csv", "--images", root, "--kind", kind, *separator, "--out", out, *FAST)
    assert run("manifest", *options) == 0
    report = json.loads((out / "report.json").read_bytes())
    assert report["stored"] == report["rows"] == len(table(tmp_path / "m.csv"))
    assert report["datasets"] == {name: report["rows"]}


def test_report_says_where_the_photographs_come_from(tmp_path):
    root = write("deepdrid", tmp_path / "deepdrid")
    assert run("prepare", "deepdrid", "--root", root, "--out", tmp_path / "out", *FAST) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["licence"] == "CC BY-SA 4.0"
    assert report["about"]["terms"] == "attribution, share alike"
    assert report["about"]["citation"].startswith("Liu et al., 2022")
    assert report["about"]["classes"]["4"] == "proliferative diabetic retinopathy"
    assert any("2000" in note for note in report["about"]["notes"])
    # One folder for a stream of pre-training, the official split in its records.
    assert {sample["split"] for sample in samples(tmp_path / "out")} == {"train", "val", "test"}


def test_a_broken_photograph_is_quarantined(tmp_path):
    root = write("aptos2019", tmp_path / "aptos")
    images = sorted((root / "train_images").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:300])
    assert run("prepare", "aptos2019", "--root", root, "--out", tmp_path / "out", *FAST) == 1
    assert sum(len(samples(index.parent)) for index in (tmp_path / "out").rglob("index.json")) == 9
    assert table(tmp_path / "out" / "quarantine.csv")[0]["image"] == f"train_images/{images[0].name}"
    assert table(tmp_path / "out" / "left_out.csv") == []


def test_template_and_kind(tmp_path):
    root = write("hrf", tmp_path / "hrf")
    arguments = ("--root", root, "--kind", "paired", "--template", "A photograph of {label}", "--out", tmp_path / "out")
    assert run("prepare", "hrf", *arguments, *FAST) == 0
    found = [(s["texts"], s["labels"]) for s in samples(tmp_path / "out")]
    assert found[1:3] == [
        (["A photograph of glaucoma"], ["glaucoma"]),
        (["A photograph of normal fundus"], ["normal fundus"]),
    ]


def test_regions_are_not_cropped_again(tmp_path):
    root = write("acrima", tmp_path / "acrima")
    assert run("prepare", "acrima", "--root", root, "--out", tmp_path / "out", *FAST) == 0
    assert {sample["crop"]["status"] for sample in samples(tmp_path / "out")} == {"off"}


def graded(root, train, test):
    """IDRiD with one photograph per content number: a number that repeats is the same file."""
    first = {}
    for letter, folder, name, rows in (
        ("a", "Training Set", "Training", train),
        ("b", "Testing Set", "Testing", test),
    ):
        cells = [["Image name", "Retinopathy grade", "Risk of macular edema "]]
        for number, (content, grade) in enumerate(rows, start=1):
            cells.append([f"IDRiD_{number:03}", grade, 0])
            path = root / "1. Original Images" / f"{letter}. {folder}" / f"IDRiD_{number:03}.jpg"
            photograph(path, like=first.get(content), size=(32, 32))
            first.setdefault(content, path)
        sheet(root / "2. Groundtruths" / f"{letter}. IDRiD_Disease Grading_{name} Labels.csv", cells)
    return root


TRAIN = [(n, n % 5) for n in range(100)]
TEST = [(200 + n, n % 5) for n in range(10)]


def divided(tmp_path, root, *options):
    assert run("prepare", "idrid", "--root", root, "--manifest", tmp_path / "m.csv", *options) == 0
    return table(tmp_path / "m.csv")


def test_validation_is_taken_equally_of_every_class(tmp_path):
    root = graded(tmp_path / "idrid", TRAIN, TEST)
    found = divided(tmp_path, root, "--val", "0.2")
    labels = {split: [r["label"] for r in found if r["split"] == split] for split in ("train", "val", "test")}
    assert labels["test"] == [str(n % 5) for n in range(10)]
    assert sorted(labels["val"]) == sorted("01234" * 4)
    assert sorted(labels["train"]) == sorted("01234" * 16)
    assert found == divided(tmp_path, root, "--val", "0.2")
    assert found != divided(tmp_path, root, "--val", "0.2", "--seed", "18")
    assert found == divided(tmp_path, root)  # the default of IDRiD
    assert {row["split"] for row in divided(tmp_path, root, "--val", "0")} == {"train", "test"}


def test_training_photographs_of_the_test_set_are_left_out(tmp_path, capsys):
    root = graded(tmp_path / "idrid", TRAIN, [*TEST, (50, 3)])
    for options in (("--val", "0"), ("--val", "0.2")):
        found = divided(tmp_path, root, *options)
        assert len(found) == 110
        left_out = table(tmp_path / "m.left_out.csv")
        assert [(row["image"].rsplit("/")[-1], row["reason"]) for row in left_out] == [
            ("IDRiD_051.jpg", "is byte-identical to 1. Original Images/b. Testing Set/IDRiD_011.jpg")
        ]
        expected = "a. Training Set/IDRiD_051.jpg (0) = b. Testing Set/IDRiD_011.jpg (3), different labels"
        assert f"byte-identical: {expected}" in capsys.readouterr().out


def test_twins_stay_in_training(tmp_path):
    root = graded(tmp_path / "idrid", [*TRAIN, (7, 4)], TEST)
    for seed in range(5):
        found = divided(tmp_path, root, "--val", "0.2", "--seed", str(seed))
        twins = ("a. Training Set/IDRiD_008.jpg", "a. Training Set/IDRiD_101.jpg")
        assert [row["split"] for row in found if row["image"].endswith(twins)] == ["train", "train"]


def test_patients_stay_whole(tmp_path):
    """DeepDRiD's four views of a patient go one way."""
    root = tmp_path / "deepdrid"
    head = ["patient_id", "image_id", "left_eye_DR_Level", "right_eye_DR_Level"]
    for name, patients in (("training", range(20)), ("validation", ())):
        folder = root / "regular_fundus_images" / f"regular-fundus-{name}"
        cells = [head, *([p, f"{p}_{view}", p % 2, p % 2] for p in patients for view in ("l1", "r1"))]
        if name == "validation":
            cells.append([90, "90_l1", 0, 0])
        sheet(folder / f"regular-fundus-{name}.csv", cells)
        for cell in cells[1:]:
            photograph(folder / "Images" / str(cell[0]) / f"{cell[1]}.jpg", size=(32, 32))
    reading = read(DATASETS["deepdrid"], root.resolve(), kind="labelled")
    official = replace(reading, rows=[replace(r, split="test" if r.split == "val" else r.split) for r in reading.rows])
    patients = {}
    for row in divide(official, root, Division(val=0.3), 17).rows:
        patients.setdefault(row.patient, set()).add(row.split)
    assert all(len(splits) == 1 for splits in patients.values())
    assert sum(splits == {"val"} for splits in patients.values()) == 6


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("idrid", ("--val=1.0",), "--val 1.0: give a share between 0 and 1, or 0 for no validation set"),
        ("idrid", ("--val=-1",), "--val -1.0: give a share between 0 and 1"),
        ("aptos2019", ("--test=1",), "--test 1.0: give a share between 0 and 1, or 0 for no test set"),
        ("idrid", ("--test", "0.3"), "--test 0.3: the split test of IDRiD, disease grading is official; leave"),
        ("ddr", ("--kind", "labelled", "--val", "0.3"), "--val 0.3: the split val of DDR"),
        ("odir5k", ("--redraw",), "--redraw is for labelled records, these are paired"),
        ("odir5k", ("--split-file", "x.csv"), "--split-file is for labelled records, these are paired"),
        ("idrid", ("--split-file", "x.csv"), "--split-file x.csv: no such file; `python -m data_prep split idrid`"),
        ("idrid", ("--split-file", "x.csv", "--val", "0.1"), "--val: --split-file divides already"),
    ],
)
def test_divisions_that_cannot_be(tmp_path, capsys, name, options, message):
    root = write(name, tmp_path / name)
    assert run("prepare", name, "--root", root, "--manifest", tmp_path / "m.csv", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m.csv").exists()


def test_a_class_that_is_too_small_is_said(tmp_path, capsys):
    root = graded(tmp_path / "idrid", [(n, 0) for n in range(9)] + [(9, 1)], TEST)
    labels = {row["label"] for row in divided(tmp_path, root) if row["split"] == "val"}
    assert labels == {"0"}
    assert "WARNING: val has no photograph of 1 (1 in all): too few to divide" in capsys.readouterr().out


def test_fixtures_command(tmp_path, capsys):
    assert run("fixtures", "hrf", "les-av", "--out", tmp_path / "f") == 0
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["hrf", "les-av"]
    assert run("fixtures", "--out", tmp_path / "f") == 2
    assert "is not empty" in capsys.readouterr().err
    assert run("fixtures", "hrv", "--out", tmp_path / "g") == 2
    assert "do you mean hrf?" in capsys.readouterr().err
