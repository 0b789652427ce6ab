"""`manifest --divide` and `--except`: a table without splits is divided, patients whole and always alike."""

import json
from collections import Counter, defaultdict

import pytest

from tests.data_prep.drawing import run, samples, save_retinas, write_csv

PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """Sixteen patients with both eyes each, one grade a patient; the table names all but two photographs."""
    root = tmp_path_factory.mktemp("clinic")
    names = save_retinas(root / "photos", 34)
    grades = ("no retinopathy", "moderate NPDR")
    rows = [{"image": name, "label": grades[index // 2 % 2], "patient": f"p{index // 2}"} for index, name in
            enumerate(names[:32])]  # fmt: skip
    write_csv(root / "photos.csv", rows)
    return root


def manifest(clinic, out, *options):
    table = ("--csv", clinic / "photos.csv", "--images", clinic / "photos")
    return run("manifest", *table, "--size", "32", "--workers", "1", "--out", out, *options)


def parts_of(folder):
    return {sample["source"]: part for part in PARTS for sample in samples(folder / part)}


@pytest.fixture(scope="module")
def labelled(clinic, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "graded"
    assert manifest(clinic, out, "--divide") == 0
    return out


def test_patients_are_whole_and_grades_are_in_every_part(labelled):
    parts, grades = defaultdict(set), defaultdict(Counter)
    for part in PARTS:
        for sample in samples(labelled / part):
            parts[sample["patient"]].add(part)
            grades[part][sample["label"]] += 1
    assert len(parts) == 16
    assert all(len(found) == 1 for found in parts.values())
    assert all(len(set(grades[part].values())) == 1 and len(grades[part]) == 2 for part in PARTS)
    assert grades["train"].total() > grades["test"].total() > 0
    assert "division: test 30% of the photographs, val 20%" in (labelled / "DATA_CARD.md").read_text()


def test_the_same_rows_as_texts_are_divided_alike(clinic, labelled, tmp_path):
    """Training on the texts of the part `train` then sees no photograph that is tested on."""
    assert manifest(clinic, tmp_path / "paired", "--divide", "--text-from-label") == 0
    assert json.loads((tmp_path / "paired" / "report.json").read_text())["kind"] == "paired"
    assert parts_of(tmp_path / "paired") == parts_of(labelled)


def test_shares_can_be_given_and_pseudonyms_stay_whole(clinic, tmp_path, capsys):
    (tmp_path / "key").write_text("correct horse battery staple, 32+\n")
    assert manifest(clinic, tmp_path / "out", "--divide", "0.5", "0", "--hash-patients", tmp_path / "key") == 0
    assert "parts: train 16, test 16" in capsys.readouterr().out
    assert not (tmp_path / "out" / "val").exists()
    assert "0.jpg" not in (tmp_path / "out" / "DATA_CARD.md").read_text()


def test_a_photograph_that_is_not_there_is_quarantined(clinic, tmp_path):
    rows = [{"image": name, "label": "a"} for name in ("0.jpg", "1.jpg", "2.jpg", "gone.jpg")]
    table = write_csv(tmp_path / "t.csv", rows)
    options = ("--divide", "--max-bad", "1", "--workers", "1", "--size", "32", "--out", tmp_path / "out")
    assert run("manifest", "--csv", table, "--images", clinic / "photos", *options) == 0
    assert "gone.jpg" in (tmp_path / "out" / "quarantine.csv").read_text()


def test_except_takes_what_the_table_does_not_name(clinic, tmp_path):
    options = ("--images", clinic / "photos", "--size", "32", "--workers", "1", "--out", tmp_path / "rest")
    assert run("manifest", *options, "--except", clinic / "photos.csv") == 0
    assert sorted(sample["source"] for sample in samples(tmp_path / "rest")) == ["32.jpg", "33.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--csv", "t.csv", "--divide", "0.3"), "give two shares"),
        (("--csv", "t.csv", "--divide", "1.5", "0"), "--divide 1.5 0: give two shares"),
        (("--csv", "split.csv", "--divide"), "has splits of its own"),
        (("--divide",), "divides the rows of a table"),
        (("--csv", "t.csv", "--except", "t.csv"), "take the rows out"),
        (("--except", "gone.csv"), "--except gone.csv: no such file"),
    ],
)
def test_what_makes_no_sense_is_refused(clinic, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "t.csv", [{"image": "0.jpg", "label": "a"}])
    write_csv(tmp_path / "split.csv", [{"image": "0.jpg", "label": "a", "split": "test"}])
    assert run("manifest", *options, "--images", clinic / "photos", "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
