"""Partial trees, wrong roots, mirrors, bad sheets and bad photographs, whatever the data set."""

import os
import shutil

import pytest

from data_prep.fixtures.command import write
from data_prep.fixtures.files import photograph, sheet, workbook
from data_prep.readers.catalogue import DATASETS
from data_prep.readers.pretraining_paired import split_keywords
from data_prep.readers.read import read
from data_prep.readers.tree import Lookup, Tree
from maskedclip_composer.errors import UserError


def release(name, tmp_path):
    return write(name, tmp_path / name).resolve()


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        ("eyepacs", "trainLabels.csv", "the sheet trainLabels.csv"),
        ("eyepacs", "train", "the folder train/"),
        ("odir5k", "ODIR-5K_Training_Annotations(Updated)_V2.xlsx", "the sheet ODIR-5K_Training_Annotations"),
        ("idrid", "B.%20Disease%20Grading/B. Disease Grading/2. Groundtruths", "the sheet 2. Groundtruths/a. IDRiD"),
        ("papila", "ClinicalData/patient_data_os.xlsx", "the sheet ClinicalData/patient_data_os.xlsx"),
        ("chaksu", "Test/1.0_Original_Fundus_Images/Forus", "the folder Test/1.0_Original_Fundus_Images/Forus/"),
        ("refuge", "Training400", "the folder Training400/"),
        ("ddr", "DR_grading/valid.txt", "the sheet DR_grading/valid.txt"),
    ],
)
def test_a_partial_tree_names_what_is_missing_and_where_to_get_it(tmp_path, name, gone, message):
    root = release(name, tmp_path)
    shutil.rmtree(root / gone) if (root / gone).is_dir() else (root / gone).unlink()
    with pytest.raises(UserError) as error:
        read(DATASETS[name], root)
    text = str(error.value)
    assert f"lacks {message}" in text
    assert f"get it from {DATASETS[name].source}" in text
    assert "expected layout:" in text


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "class-folders"])
def test_a_wrong_root(tmp_path, name):
    photograph(tmp_path / "holiday" / "beach.jpg")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"lacks the |no photograph is left of") as error:
        read(DATASETS[name], tmp_path.resolve())
    assert DATASETS[name].source in str(error.value)
    if "lacks" in str(error.value):
        assert "found there: holiday, notes.txt" in str(error.value)


@pytest.mark.parametrize(
    "rename",
    [
        {"train": "Train"},
        {"trainLabels.csv": "TRAINLABELS.CSV"},
        {"train": "archive/eyepacs/train", "trainLabels.csv": "archive/trainLabels.csv"},
    ],
)
def test_mirrors_change_case_and_add_folders(tmp_path, rename):
    root = release("eyepacs", tmp_path)
    for old, new in rename.items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)
    for path in list(root.rglob("1?_left.jpeg")):
        path.rename(path.with_suffix(".JPEG"))
    assert len(read(DATASETS["eyepacs"], root).rows) == 6


def test_other_mirrors(tmp_path):
    refuge = tmp_path / "refuge"
    for split, names in (("train", ["g0001", "n0001"]), ("val", ["V0001"]), ("test", ["T0001"])):
        for name in names:
            photograph(refuge / split / "Images" / f"{name}.jpg")
        entry = '"%d": {"ImgName": "%s.jpg", "Fovea_X": 1.5, "Size_X": 2124, "Label": %d}'
        (refuge / split / "index.json").write_text(
            "{" + ",".join(entry % (n, name, n == 0) for n, name in enumerate(names)) + "}"
        )
    reading = read(DATASETS["refuge"], refuge.resolve(), kind="labelled")
    assert [(row.split, code) for row, code in zip(reading.rows, reading.codes, strict=True)] == [
        ("train", "1"),
        ("train", "0"),
        ("val", "1"),
        ("test", "1"),
    ]
    stare = tmp_path / "stare"
    photograph(stare / "im0001.ppm")
    (stare / "all-mg-codes.csv").write_text("im0001;13;Choroidal Neovascularization\n", encoding="utf-8-sig")
    found = read(DATASETS["stare"], stare.resolve(), kind="paired").rows
    assert [row.texts for row in found] == [("Choroidal Neovascularization",)]


def test_an_optional_sheet_without_labels(tmp_path):
    root = release("refuge", tmp_path)
    workbook(root / "Fovea_locations.xlsx", {"Sheet1": [["ImgName", "Fovea_X"], ["V0001.jpg", 5], ["V0002.jpg", 6]]})
    reading = read(DATASETS["refuge"], root)
    assert [row.split for row in reading.rows].count("val") == 2
    assert any("Fovea_locations.xlsx: has no labels (Label(Glaucoma=1) or" in note for note in reading.notes)


def test_odir_of_kaggle_has_each_eye_once(tmp_path):
    head = ["ID", "Left-Fundus", "Right-Fundus", "Left-Diagnostic Keywords", "Right-Diagnostic Keywords", "filename"]
    both = [0, "0_left.jpg", "0_right.jpg", "cataract", "drusen"]
    sheet(tmp_path / "full_df.csv", [head, [*both, "0_right.jpg"], [*both, "0_left.jpg"]])
    for eye in ("left", "right"):
        photograph(tmp_path / "preprocessed_images" / f"0_{eye}.jpg")
    reading = read(DATASETS["odir5k"], tmp_path.resolve())
    assert [(row.eye, row.texts) for row in reading.rows] == [("right", ("drusen",)), ("left", ("cataract",))]
    assert reading.left_out == []
    # With the official images and sheet beside them, these are what counts.
    write("odir5k", tmp_path)
    assert all("ODIR-5K_Training_Dataset" in row.image for row in read(DATASETS["odir5k"], tmp_path.resolve()).rows)


def test_keywords_split_at_both_commas():
    assert split_keywords("Drusen\uff0c drusen,lens  dust\uff0c") == ["drusen", "lens dust"]
    assert split_keywords(None) == []


def aptos(tmp_path, rows, names):
    sheet(tmp_path / "train.csv", [["id_code", "diagnosis"], *rows])
    for name in names:
        photograph(tmp_path / "train_images" / name)
    return tmp_path.resolve()


def test_bad_rows_are_listed_and_the_good_ones_stay(tmp_path):
    root = aptos(
        tmp_path,
        [["a", 0], ["b", 7], ["c", ""], ["gone", 1], ["a", 0], ["a", 2], ["", 1], ["d", "3.0"], ["e", "x=__import__"]],
        ["a.png", "b.png", "c.png", "d.png", "e.png", "unnamed.png"],
    )
    reading = read(DATASETS["aptos2019"], root)
    assert [(row.number, row.image, code) for row, code in zip(reading.rows, reading.codes, strict=True)] == [
        (2, "train_images/a.png", "0"),
        (9, "train_images/d.png", "3"),
    ]
    assert reading.left_out == [
        ("gone", "is not on disk"),
        ("train.csv row 8", "has no image name"),
        ("train_images/b.png", "label '7' is not one of 0, 1, 2, 3, 4"),
        ("train_images/c.png", "has no label"),
        ("train_images/a.png", "repeats the photograph of row 2"),
        ("train_images/a.png", "repeats the photograph of row 2 with another label"),
        ("train_images/e.png", "label 'x=__import__' is not one of 0, 1, 2, 3, 4"),
    ]
    notes = "\n".join(reading.notes)
    assert "missing: 1 photographs, the first is gone; the set is at https://www.kaggle.com" in notes
    assert "does not name 1 photographs of train_images, such as unnamed.png" in notes
    assert "WARNING: 7 photographs found, APTOS 2019 Blindness Detection has 3662" in notes
    assert "0: 1, not 1805" in notes


def test_nothing_fits(tmp_path):
    root = aptos(tmp_path, [["a", 0]], ["b.png"])
    with pytest.raises(UserError, match=r"no photograph is left of APTOS.*1 is not on disk"):
        read(DATASETS["aptos2019"], root)


def test_a_name_that_means_two_photographs_is_not_guessed(tmp_path):
    root = aptos(tmp_path, [["a", 0], ["b", 1]], ["one/a.png", "two/a.png", "b.png"])
    reading = read(DATASETS["aptos2019"], root)
    assert [row.image for row in reading.rows] == ["train_images/b.png"]
    assert reading.left_out == [("a", "is ambiguous: one/a.png, two/a.png")]


def test_links(tmp_path):
    photograph(tmp_path / "elsewhere" / "secret.png")
    root = aptos(tmp_path / "aptos", [["a", 0], ["b", 1]], ["a.png"])
    (root / "train_images" / "b.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    reading = read(DATASETS["aptos2019"], root)
    assert reading.left_out == [("train_images/b.png", "is a link that leads out of the root")]
    (root / "train_images").rename(tmp_path / "moved")
    (root / "train_images").symlink_to(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"lacks the folder train_images/\n.*\nlinks to folders are not followed: train_images\n"
    ):
        read(DATASETS["aptos2019"], root)


def test_headers(tmp_path):
    root = aptos(tmp_path, [["a", 0]], ["a.png"])
    sheet(root / "train.csv", [[" ID_Code", "diagnosis "], ["a", 0]], encoding="utf-8-sig")
    reading = read(DATASETS["aptos2019"], root)
    assert len(reading.rows) == 1
    assert "sheet train.csv: column 'diagnosis ' read without its white space" in reading.notes
    sheet(root / "train.csv", [["id_code", "grade"], ["a", 0]])
    with pytest.raises(UserError, match=r"has no column diagnosis, it has id_code, grade"):
        read(DATASETS["aptos2019"], root)
    sheet(root / "train.csv", [["id_code", "diagnosis"], ["ä", 0]], encoding="latin-1")
    with pytest.raises(UserError, match=r"line 2 is not UTF-8"):
        read(DATASETS["aptos2019"], root)


def test_workbooks_and_lists_that_are_broken(tmp_path):
    root = release("grape", tmp_path)
    workbook(root / "VF and clinical information.xlsx", {"Sheet1": [["Subject Number"], [1]]})
    with pytest.raises(UserError, match="has no sheet Baseline, it has Sheet1"):
        read(DATASETS["grape"], root)
    (root / "VF and clinical information.xlsx").write_bytes(b"not a workbook")
    with pytest.raises(UserError, match="not a readable"):
        read(DATASETS["grape"], root)
    ddr = release("ddr", tmp_path)
    (ddr / "DR_grading" / "train.txt").write_text("007-train-0.jpg\n")
    with pytest.raises(UserError, match=r"train.txt: line 1 has 1 columns, not 2 \(image, grade\)"):
        read(DATASETS["ddr"], ddr)
    den = release("deepeyenet", tmp_path)
    for content, message in (("[1]", "is not JSON of the form"), ("{", "is not JSON:")):
        (den / "DeepEyeNet_train.json").write_text(content)
        with pytest.raises(UserError, match=message):
            read(DATASETS["deepeyenet"], den)


def test_targets_and_kinds_that_do_not_exist(tmp_path):
    root = release("chase-db1", tmp_path)
    with pytest.raises(UserError, match="has no such target; it has none"):
        read(DATASETS["chase-db1"], root, target="grade")
    with pytest.raises(UserError, match="chase-db1 has no labels"):
        read(DATASETS["chase-db1"], root, kind="labelled")
    with pytest.raises(UserError, match=r"no photograph is left of CHASE_DB1 \(3 has no text\)"):
        read(DATASETS["chase-db1"], root, kind="paired")
    with pytest.raises(UserError, match="it has grade, dme"):
        read(DATASETS["idrid"], release("idrid", tmp_path), target="risk")


def test_lookup_is_blind_to_case_suffix_and_leading_folders():
    lookup = Lookup({path: path for path in ("x/A..JPG", "y/b.png", "z/b.png", "c.jpg", "C.png")})
    assert lookup.find("a.jpg") == ["x/A..JPG"]
    assert lookup.find("a") == ["x/A..JPG"]
    assert lookup.find("root\\y\\B") == lookup.find("y/b") == lookup.find("Y/b.jpg") == ["y/b.png"]
    assert lookup.find("b") == ["y/b.png", "z/b.png"]
    assert lookup.find("c.PNG") == ["C.png"]
    assert lookup.find("d") == []


def test_tree_takes_the_least_deep(tmp_path):
    for path in ("a/b/train/x.jpg", "Train/y.jpg", "strain/z.jpg"):
        photograph(tmp_path / path)
    os.mkdir(tmp_path / "B.%20Disease%20Grading")
    tree = Tree(tmp_path)
    assert tree.folder(("train",)) == "Train"
    assert tree.folder(("b/train",)) == "a/b/train"
    assert tree.folder(("none", "B. Disease Grading")) == "B.%20Disease%20Grading"
    assert tree.file(("*.jpg",)) == "Train/y.jpg"
    assert tree.file(("x.*",)) == "a/b/train/x.jpg"
    assert tree.folder(("rain",)) is None
