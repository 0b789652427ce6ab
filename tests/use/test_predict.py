"""Prediction: the suite's own probabilities, a row for every photograph, and a message for what does not fit."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from maskedclip_composer.__main__ import main
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.classifier_file import CLASSIFIER_FILE, load_classifier
from maskedclip_composer.use.one_photograph import Photograph
from maskedclip_composer.use.photographs import open_photographs
from maskedclip_composer.use.predict import predict, transform_of
from maskedclip_composer.use.prediction_table import Prediction, of_patients
from tests.use.conftest import GOOD

BATCH = ["--batch-size", "16", "--workers", "0", "--device", "cpu"]  # the suite's


def run(photos: Path, model: Path, out: Path, *more: str) -> int:
    return main(["predict", str(photos), "--model", str(model), "--out", str(out), *BATCH, *map(str, more)])


@pytest.mark.parametrize(("task", "protocol"), [("grades", "fast"), ("grades", "linear_probe"), ("several", "fast")])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_test_photographs_get_the_probabilities_of_the_suite(saved_suite, tmp_path, task, protocol, suffix):
    out = tmp_path / f"a.{suffix}"
    assert run(saved_suite.data[task] / "test", saved_suite.model(task, protocol), out) == 0
    table = (
        pd.read_csv(out, dtype={"prediction": str}, keep_default_na=False) if suffix == "csv" else pd.read_parquet(out)
    )
    expected = saved_suite.cells[task, protocol][1].probabilities
    classes = ["D", "G", "N"] if task == "several" else ["1", "2", "10"]
    found = table[[f"probability_{code}" for code in classes]].to_numpy(np.float32)
    np.testing.assert_array_equal(found, expected)
    if task == "several":
        wanted = ["|".join(code for code, p in zip(classes, row, strict=True) if p > 0.5) for row in expected]
    else:
        wanted = [classes[place] for place in expected.argmax(axis=1)]
    assert table["prediction"].tolist() == wanted
    assert set(table["status"]) == {"ok"}
    if suffix == "parquet":
        facts = json.loads(pyarrow.parquet.read_schema(out).metadata[b"maskedclip"])
        assert facts["classes"] == classes
        assert len(facts["encoder"]["sha256"]) == 64


def test_a_file_and_its_record_are_one_photograph(saved_suite, photographs, prepared, tmp_path, capsys):
    model = saved_suite.model("grades", "linear_probe")
    tables = {}
    for name, photos in (("files", photographs), ("records", prepared)):
        assert run(photos, model, tmp_path / f"{name}.csv") == 0
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            tables[name] = {row["image"]: row for row in csv.DictReader(file)}
    assert capsys.readouterr().err.count("Warning: the preparation is assumed") == 2
    assert set(tables["records"]) == set(GOOD) < set(tables["files"])
    for name in GOOD:
        for code in ("1", "2", "10"):
            of_file, of_record = (float(tables[kind][name][f"probability_{code}"]) for kind in tables)
            assert of_file == pytest.approx(of_record, abs=1e-6)
        assert tables["files"][name]["crop"] == tables["records"][name]["crop"] == "cropped"


def test_shards_of_another_preparation_are_told(saved_suite, prepared, tmp_path, capsys):
    model, out = saved_suite.model("grades", "linear_probe"), tmp_path / "a.csv"
    assert run(prepared, model, out) == 0
    assert "was prepared with" not in capsys.readouterr().err
    other = tmp_path / "set" / "test"
    shutil.copytree(prepared, other)
    report = json.loads((other / "report.json").read_text())
    (other / "report.json").unlink()
    for place in (other, other.parent):  # of one split, and of a set
        (place / "report.json").write_text(json.dumps(report | {"options": report["options"] | {"size": 64}}))
        assert run(other, model, out) == 0
        assert re.search("was prepared with .*'size': 64.*trained on with .*'size': 512", capsys.readouterr().err)
        (place / "report.json").unlink()


def test_what_cannot_be_read_is_listed_and_stops_only_the_strict(saved_suite, photographs, tmp_path, capsys):
    model, out = saved_suite.model("grades", "linear_probe") / CLASSIFIER_FILE, tmp_path / "a.csv"
    assert run(photographs, model, out) == 0
    captured = capsys.readouterr()
    assert "4 of 5 photographs classified" in captured.out
    assert "Warning: 1 cannot be read:\n  broken.jpg: " in captured.err
    table = pd.read_csv(out, keep_default_na=False)
    (broken,) = table[table["status"] == "unreadable"].to_dict("records")
    assert (broken["image"], broken["prediction"], broken["probability_1"]) == ("broken.jpg", "", "")
    assert "cannot be decoded" in broken["reason"]
    assert run(photographs, model, out, "--strict") == 1
    assert len(pd.read_csv(out)) == 5  # written all the same
    assert run(photographs / "broken.jpg", model, out) == 1


def test_columns_are_carried_along_and_formulas_are_inert(saved_suite, table, photographs, tmp_path):
    out = tmp_path / "a.csv"
    assert run(table, saved_suite.model("grades", "linear_probe"), out, "--images", photographs) == 0
    found = pd.read_csv(out)
    assert found["image"].tolist() == GOOD[::-1]
    assert found["label"].tolist() == [f"class {number}" for number in range(4)]
    assert found["text"].str.startswith("'=").all()


def test_patients_have_the_mean_of_their_photographs(saved_suite, tmp_path):
    model, out, patients = saved_suite.model("several", "linear_probe"), tmp_path / "a.parquet", tmp_path / "p.csv"
    assert run(saved_suite.data["several"] / "train", model, out, "--patients", patients) == 0
    columns = [f"probability_{code}" for code in "DGN"]
    by_patient = pd.read_parquet(out).groupby("patient")[columns].mean()
    found = pd.read_csv(patients, dtype={"patient": str}).set_index("patient")
    assert set(found["photographs"]) == {2}
    assert list(found)[:3] == ["dataset", "photographs", "prediction"]
    assert not {"image", "crop"} & set(found)
    assert len(found) == 18
    np.testing.assert_allclose(found.loc[by_patient.index, columns], by_patient, atol=1e-6)


def test_patients_of_two_sets_are_two_and_one_without_a_photograph_has_a_reason():
    def one(dataset: str, patient: str, value: float | None) -> Prediction:
        columns = {"dataset": dataset, "patient": patient}
        reason = "" if value is not None else "broken"
        photograph = Photograph(name="a.jpg", columns=columns, reason=reason)
        return Prediction(photograph, None if value is None else np.array([value, 1 - value], dtype=np.float32))

    found = of_patients(
        [one("a", "1", 0.2), one("b", "1", 0.5), one("a", "1", 0.6), one("a", "1", None), one("a", "2", None)]
    )
    assert [patient.photograph.name for patient in found] == ["a/1", "b/1", "a/2"]
    assert found[0].probabilities == pytest.approx([0.4, 0.6])
    assert found[0].photograph.columns == {"dataset": "a", "patient": "1", "photographs": "2"}
    assert found[2].probabilities is None
    assert found[2].photograph.reason == "none of the photographs can be read"
    with pytest.raises(UserError, match=r"a\.jpg has no patient"):
        of_patients([one("a", "", 0.5)])


def test_without_a_preparation_the_pixels_of_a_file_are_taken_as_they_are(saved_suite, photographs):
    from dataclasses import replace

    from maskedclip_composer.data.transforms import decode, eval_transform

    facts = load_classifier(saved_suite.model("grades", "fast")).facts
    assert transform_of(facts).recipe == Recipe()
    transform = transform_of(replace(facts, recipe=None))
    for name in GOOD[:3]:
        path = photographs / name
        assert (transform(path) == eval_transform(decode(path.read_bytes()), 32)).all()


def test_a_batch_without_a_readable_photograph(saved_suite, photographs):
    classifier = load_classifier(saved_suite.model("several", "fast"))
    found = predict(open_photographs(photographs), classifier, batch_size=1)
    assert [one.probabilities is None for one in found] == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "a.txt"], "suffix .txt is not known"),
        (["--patients", "a.xlsx"], "suffix .xlsx is not known"),
        (["--out", "/proc/a.csv"], "--out /proc/a.csv cannot be written"),
        (["--patients", "/proc/a.csv"], "--patients /proc/a.csv cannot be written"),
        (["--model", "ENCODER"], "is an encoder, not a classifier"),
        (["--patients", "p.csv"], "have no column patient; they have no columns"),
        (["--images", "x"], "is no table"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    saved_suite, photographs, tmp_path, capsys, monkeypatch, more, message
):
    monkeypatch.chdir(tmp_path)
    more = [str(saved_suite.encoder) if text == "ENCODER" else text for text in more]
    assert run(photographs, saved_suite.model("grades", "fast"), Path("a.csv"), *more) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_column_of_the_same_name_is_refused(saved_suite, photographs, tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text(f"image,probability_10\n{GOOD[2]},0.5\n")
    status = run(table, saved_suite.model("grades", "fast"), tmp_path / "a.csv", "--images", photographs)
    assert (status, "probability_10" in capsys.readouterr().err) == (2, True)
