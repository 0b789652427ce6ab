"""Records with every label that is true of a photograph: from tables and from ODIR-5K, to evaluation."""

import csv
import json
from collections import Counter

import pyarrow.parquet
import pytest

from data_prep.fixtures.files import photograph, sheet
from maskedclip_composer.data.schema import COLUMNS
from maskedclip_composer.data.subsets import below_common_folder
from maskedclip_composer.evaluation.data import load_labelled
from maskedclip_composer.evaluation.kinds import Amount
from tests.data_prep.drawing import run, samples, save_retinas, write_csv

FAST = ("--workers", "1", "--size", "64")
KEYWORDS = (
    "normal fundus",
    "mild nonproliferative retinopathy",
    "cataract\uff0cmoderate non proliferative retinopathy",
    "drusen\uff0clens dust",
    "suspected glaucoma",
    "pathological myopia",
    "dry age-related macular degeneration",
    "hypertensive retinopathy,mild nonproliferative retinopathy",
)
CODES = ("N", "D", "C|D", "O", "G", "M", "A", "D|H")


@pytest.fixture(scope="module")
def odir(tmp_path_factory):
    """48 patients in Kaggle's table of one row an eye, which says both eyes' keywords in each; unlike eyes."""
    root = tmp_path_factory.mktemp("odir")
    cells = [["ID", "Left-Fundus", "Right-Fundus", "Left-Diagnostic Keywords", "Right-Diagnostic Keywords", "filename"]]
    for patient in range(48):
        names = [f"{patient}_left.jpg", f"{patient}_right.jpg"]
        said = [KEYWORDS[patient % 8], KEYWORDS[(patient // 8 + patient) % 8]]
        for name in names:
            cells.append([patient, *names, *said, name])
            photograph(root / "preprocessed_images" / name, size=(32, 32))
    sheet(root / "full_df.csv", cells)
    return root


def expected(name):
    patient, eye = name.split("/")[-1].removesuffix(".jpg").split("_")
    return CODES[(int(patient) + (int(patient) // 8 if eye == "right" else 0)) % 8]


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def index(odir, tmp_path_factory):
    out = tmp_path_factory.mktemp("splits")
    assert run("split", "odir5k", "--root", odir, "--out", out, "--draws", "2") == 0
    return out / "odir5k.csv"


@pytest.fixture(scope="module")
def prepared(odir, index, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    options = ("--kind", "multilabel", "--target", "disease", "--split-file", index, "--out", out)
    assert run("prepare", "odir5k", "--root", odir, *options, *FAST) == 0
    return out


def test_an_index_of_several_labels(index):
    rows = table(index)
    assert len(rows) == len({row["image"] for row in rows}) == 96  # each eye once
    assert all(row["label"] == expected(row["image"]) for row in rows)
    splits = {}
    for row in rows:
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(of_patient) == 1 for of_patient in splits.values())
    about = json.loads(index.with_suffix(".json").read_bytes())
    for part in ("train", "val", "test"):
        labels = [label for row in rows if row["split"] == part for label in row["label"].split("|")]
        assert about["counts"][part] == Counter(labels)
        assert set(labels) == set("NDGCAHMO")


def test_prepared_records_are_those_of_each_eye(prepared):
    for split in ("train", "val", "test"):
        for sample in samples(prepared / split):
            assert set(sample) == set(COLUMNS["multilabel"])
            assert sample["split"] == split
            assert sample["labels"] == expected(sample["source"]).split("|")


def test_evaluation_draws_what_the_index_says(prepared, index):
    train = load_labelled(str(prepared), kind="multilabel").train
    names = below_common_folder(train.photographs.names)
    for draw in (0, 1):
        held = {row["image"]: float(row[f"fraction_{draw}"]) for row in table(index) if row["split"] == "train"}
        assert set(held) == set(names)
        for fraction in (0.1, 0.5, 1.0):
            rows = train.draw(Amount(fraction=fraction), draw)
            assert {names[row] for row in rows} == {name for name, smallest in held.items() if smallest <= fraction}
            assert train.one_hot[rows].any(axis=0).all()


def test_prepare_draws_what_split_writes(odir, index, tmp_path):
    options = ("--root", odir, "--kind", "multilabel")
    assert run("prepare", "odir5k", *options, "--manifest", tmp_path / "a.csv") == 0
    assert run("prepare", "odir5k", *options, "--manifest", tmp_path / "b.csv", "--split-file", index) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_the_manifest_of_rows_makes_the_same_records(odir, index, prepared, tmp_path, capsys):
    options = ("--kind", "multilabel", "--split-file", index, "--manifest", tmp_path / "m.csv")
    assert run("prepare", "odir5k", "--root", odir, *options) == 0
    assert "--kind multilabel --separator '|'" in capsys.readouterr().out
    options = ("--csv", tmp_path / "m.csv", "--images", odir, "--kind", "multilabel", "--separator", "|")
    assert run("manifest", *options, "--out", tmp_path / "out", *FAST) == 0
    for split in ("train", "val", "test"):
        assert samples(tmp_path / "out" / split) == samples(prepared / split)


def test_an_index_with_another_label_is_refused(odir, index, tmp_path, capsys):
    changed = tmp_path / "odir5k.csv"
    changed.write_text(index.read_text().replace(",C|D,", ",C|G,", 1))
    options = ("--kind", "multilabel", "--split-file", changed, "--manifest", tmp_path / "m.csv")
    assert run("prepare", "odir5k", "--root", odir, *options) == 2
    assert "has label 'C|G', but disease of ODIR-5K is 'C|D'" in capsys.readouterr().err


def test_counts_of_every_label(prepared, capsys):
    assert run("check", prepared, "--decode") == 0
    assert "nothing wrong" in capsys.readouterr().out
    records = pyarrow.parquet.read_table(prepared / "manifest.parquet").to_pylist()
    assert {record["label"] for record in records} == set(CODES)
    joint = next(record for record in records if record["label"] == "C|D")
    assert joint["label_name"] == "cataract|diabetic retinopathy"
    report = json.loads((prepared / "report.json").read_bytes())
    assert report["kind"] == "multilabel"
    for split in ("train", "val", "test"):
        labels = [label for sample in samples(prepared / split) for label in sample["labels"]]
        assert report["splits"][split]["labels"] == Counter(labels)
    assert "D (diabetic retinopathy) " in (prepared / "DATA_CARD.md").read_text()


def test_a_table_of_several_labels_and_none(tmp_path):
    """Findings without a class for normal: who has none has no label."""
    names = save_retinas(tmp_path / "images", 3)
    rows = [{"image": name, "label": label} for name, label in zip(names, ("b|a", "", "b"), strict=True)]
    options = ("--images", tmp_path / "images", "--kind", "multilabel", "--separator", "|", "--out", tmp_path / "out")
    assert run("manifest", "--csv", write_csv(tmp_path / "t.csv", rows), *options, *FAST) == 0
    assert [sample["labels"] for sample in samples(tmp_path / "out")] == [["a", "b"], [], ["b"]]
    assert run("check", tmp_path / "out", "--decode") == 0


def test_build_makes_multilabel_sets_for_evaluation(odir, tmp_path):
    config = tmp_path / "build.yaml"
    config.write_text(f"downstream: {{odir5k: {{root: {odir}, target: disease}}}}\n")
    out = tmp_path / "out"
    assert run("build", config, f"roots={tmp_path}", f"out={out}", "size=64", "workers=1") == 0
    data = load_labelled(str(out / "downstream" / "odir5k"), kind="multilabel")
    assert data.classes == tuple("ACDGHMNO")
    assert sum(len(split) for split in (data.train, data.val, data.test)) == 96
