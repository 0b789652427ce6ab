import csv

import openpyxl
import pytest

from data_prep.readers import idrid, odir5k
from maskedclip_composer.errors import UserError
from tests.data_prep.drawing import retina, run, samples

COMMA = "\uff0c"


def odir(root, rows, folder="Training Images", missing=()):
    book = openpyxl.Workbook()
    header = ["ID", "Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus"]
    book.active.append([*header, "Left-Diagnostic Keywords", "Right-Diagnostic Keywords", *"NDGCAHMO"])
    (root / folder).mkdir(parents=True)
    for number, (left, right) in enumerate(rows, start=1):
        names = [f"{number}_{eye}.jpg" for eye in ("left", "right")]
        book.active.append([number, 60, "Male", *names, left, right, *[0] * 8])
        for name in names:
            if name not in missing:
                retina(centre=(60 + number, 60)).save(root / folder / name)
    book.save(root / "ODIR-5K_Training_Annotations(Updated)_V2.xlsx")
    return root


def test_odir_takes_each_eyes_keywords(tmp_path):
    rows = [
        ("normal fundus", f"lens dust{COMMA}Macular  epiretinal membrane{COMMA}drusen"),
        ("hypertensive retinopathy,diabetic retinopathy", "low image quality"),
        ("cataract", f"abnormal pigment {COMMA}{COMMA}drusen"),
        ("", "no fundus image\uff0clens dust"),
    ]
    reading = odir5k.read(odir(tmp_path / "odir", rows, missing=("3_left.jpg",)))
    assert [(row["image"], row["text"], row["patient"], row["eye"]) for row in reading.rows] == [
        ("Training Images/1_left.jpg", "normal fundus", "1", "left"),
        ("Training Images/1_right.jpg", f"macular epiretinal membrane{COMMA}drusen", "1", "right"),
        ("Training Images/2_left.jpg", f"hypertensive retinopathy{COMMA}diabetic retinopathy", "2", "left"),
        ("Training Images/3_right.jpg", f"abnormal pigment{COMMA}drusen", "3", "right"),
    ]
    assert reading.left_out == [
        ("Training Images/2_right.jpg", "keywords only say: low image quality"),
        ("3_left.jpg", "image is not on disk"),
        ("Training Images/4_left.jpg", "no keywords"),
        ("Training Images/4_right.jpg", "keywords only say: no fundus image, lens dust"),
    ]


def test_odir_manifest_becomes_shards(tmp_path, capsys):
    odir(tmp_path / "odir" / "ODIR-5K", [("normal fundus", f"drusen{COMMA}cataract")], folder="Training Images")
    assert run("odir5k", "--root", tmp_path / "odir", "--out", tmp_path / "m.csv") == 0
    assert f"--separator {COMMA!r} --label-from-text" in capsys.readouterr().out
    options = ("--images", tmp_path / "odir", "--separator", COMMA, "--label-from-text")
    assert run("manifest", "--csv", tmp_path / "m.csv", "--out", tmp_path / "out", *options) == 0
    found = [(s["texts"], s["labels"], s["eye"], s["dataset"]) for s in samples(tmp_path / "out")]
    assert found == [
        (["normal fundus"], ["normal fundus"], "left", "odir5k"),
        (["drusen", "cataract"], ["drusen", "cataract"], "right", "odir5k"),
    ]


def test_odir_prefers_the_original_images(tmp_path):
    root = odir(tmp_path / "odir", [("drusen", "drusen")])
    (root / "preprocessed_images").mkdir()
    (root / "Training Images" / "1_left.jpg").rename(root / "Training Images" / "1_left.JPG")
    retina().save(root / "preprocessed_images" / "1_left.jpg")
    assert [row["image"] for row in odir5k.read(root).rows] == [
        f"Training Images/1_{e}" for e in ("left.JPG", "right.jpg")
    ]


def test_odir_errors_show_the_layout(tmp_path, capsys):
    assert run("odir5k", "--root", tmp_path, "--out", tmp_path / "m.csv") == 2
    assert "no annotation sheet" in (error := capsys.readouterr().err)
    assert "Training Images/<ID>" in error
    root = odir(tmp_path / "odir", [("drusen", "drusen")])
    book = openpyxl.Workbook()
    book.active.append(["ID", "left_fundus"])
    book.active.append([1, "1_left.jpg"])
    book.save(root / "ODIR-5K_Training_Annotations(Updated)_V2.xlsx")
    with pytest.raises(UserError, match=r"no column Left-Fundus.*it has ID, left_fundus"):
        odir5k.read(root)


def idrid_set(root, train, test, top="B. Disease Grading"):
    """Write the published layout; a number that repeats makes byte-identical photographs."""
    base = root / top
    (base / "2. Groundtruths").mkdir(parents=True)
    for part, letter, name, rows, extra in (
        ("Training Set", "a", "Training", train, [""] * 9),
        ("Testing Set", "b", "Testing", test, []),
    ):
        images = base / "1. Original Images" / f"{letter}. {part}"
        images.mkdir(parents=True)
        sheet = base / "2. Groundtruths" / f"{letter}. IDRiD_Disease Grading_{name} Labels.csv"
        with sheet.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Image name", "Retinopathy grade", "Risk of macular edema ", *extra])
            for number, (content, grade, dme) in enumerate(rows, start=1):
                writer.writerow([f"IDRiD_{number:03}", grade, dme, *extra])
                retina(300, 80, (40 + content, 40), 20).save(images / f"IDRiD_{number:03}.jpg", quality=95)
    return root


TRAIN = [(n, n % 5, n % 3) for n in range(100)]
TEST = [(200 + n, n % 5, n % 3) for n in range(10)]


def test_idrid_keeps_the_test_set_and_divides_training_by_class(tmp_path):
    reading = idrid.read(idrid_set(tmp_path, TRAIN, TEST))
    labels = {split: [r["label"] for r in reading.rows if r["split"] == split] for split in ("train", "val", "test")}
    assert labels["test"] == [str(n % 5) for n in range(10)]
    assert sorted(labels["val"]) == sorted("01234" * 4)
    assert sorted(labels["train"]) == sorted("01234" * 16)
    assert reading.left_out == []
    assert reading.rows == idrid.read(tmp_path).rows
    assert reading.rows != idrid.read(tmp_path, seed=18).rows
    assert [r["label"] for r in idrid.read(tmp_path, "dme").rows][:4] == ["0", "1", "2", "0"]


def test_idrid_leaves_out_training_images_that_are_in_the_test_set(tmp_path):
    train = [*TRAIN, (200, 3, 0), (7, 4, 0)]
    reading = idrid.read(idrid_set(tmp_path, train, TEST))
    training = "B. Disease Grading/1. Original Images/a. Training Set/"
    assert reading.left_out == [
        (
            f"{training}IDRiD_101.jpg",
            "is byte-identical to B. Disease Grading/1. Original Images/b. Testing Set/IDRiD_001.jpg",
        )
    ]
    assert reading.notes == (
        "byte-identical: a. Training Set/IDRiD_008.jpg (2) = a. Training Set/IDRiD_102.jpg (4), different labels",
        "byte-identical: a. Training Set/IDRiD_101.jpg (3) = b. Testing Set/IDRiD_001.jpg (0), different labels",
    )
    for seed in range(5):
        split = {row["image"]: row["split"] for row in idrid.read(tmp_path, seed=seed).rows}
        assert split[f"{training}IDRiD_008.jpg"] == split[f"{training}IDRiD_102.jpg"] == "train"


def test_idrid_becomes_three_folders_from_a_mirror(tmp_path, capsys):
    idrid_set(tmp_path / "idrid", TRAIN, TEST, top="B.%20Disease%20Grading/B. Disease Grading")
    assert run("idrid", "--root", tmp_path / "idrid", "--out", tmp_path / "m.csv", "--target", "dme") == 0
    assert "splits: " in capsys.readouterr().out
    options = ("--images", tmp_path / "idrid", "--size", "40", "--workers", "1")
    assert run("manifest", "--csv", tmp_path / "m.csv", "--out", tmp_path / "out", *options) == 0
    sizes = {split: len(samples(tmp_path / "out" / split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 80, "val": 20, "test": 10}
    assert samples(tmp_path / "out" / "test")[4]["label"] == "1"


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        ([(0, 7, 0)], {}, "row 2: label '7' is not one of 0, 1, 2, 3, 4"),
        ([(n, 0, 0) for n in range(9)] + [(9, 1, 0)], {}, "cannot take 2 validation images"),
        (TRAIN, {"val_share": 1.0}, "--val 1.0"),
    ],
)
def test_idrid_errors(tmp_path, train, options, message):
    with pytest.raises(UserError, match=message):
        idrid.read(idrid_set(tmp_path, train, TEST), **options)


def test_idrid_misses_files(tmp_path):
    root = idrid_set(tmp_path, TRAIN, TEST)
    next(root.glob("**/b. Testing Set/IDRiD_003.jpg")).unlink()
    with pytest.raises(UserError, match="row 4: no image IDRiD_003"):
        idrid.read(root)
    with pytest.raises(UserError, match=r"a\. Training Set is missing; IDRiD is expected as"):
        idrid.read(root / "B. Disease Grading" / "2. Groundtruths")


def test_manifest_file_is_a_csv(tmp_path, capsys):
    assert run("idrid", "--root", tmp_path, "--out", tmp_path / "m.txt") == 2
    assert "ends in .csv" in capsys.readouterr().err
