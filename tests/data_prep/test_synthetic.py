import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from data_prep import synthetic
from data_prep.histogram_probe import histogram_probe
from data_prep.phantom.diagnoses import DIAGNOSES
from data_prep.synthetic import DOWNSTREAM_CLASSES, SyntheticConfig, plan_patients, write_synthetic
from data_prep.text_tower import read_texts
from maskedclip_composer.errors import UserError
from tests.data_prep.drawing import run

CONFIG = SyntheticConfig(paired=40, unpaired=6, downstream=320, size=64, seed=3)
SMALL = SyntheticConfig(paired=5, unpaired=2, downstream=3, size=64, seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "set"
    assert write_synthetic(out, CONFIG, workers=2)
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "set"
    assert write_synthetic(out, SMALL, workers=1)
    return out


def test_every_row_has_its_photograph(written: Path):
    tables = {name: pd.read_csv(written / f"{name}.csv") for name in synthetic.SETS}
    listed = [image for table in tables.values() for image in table["image"]]
    assert sorted(listed) == sorted(f"images/{path.name}" for path in (written / "images").iterdir())
    assert {name: len(table) for name, table in tables.items()} == {"paired": 40, "unpaired": 6, "downstream": 320}
    assert {name: list(table.columns) for name, table in tables.items()} == synthetic.SETS
    assert {cv2.imread(str(written / image)).shape for image in listed[::20]} == {(64, 64, 3)}
    assert not written.with_name("set.partial").exists()


def test_same_seed_same_bytes_whatever_the_workers_and_the_length(written: Path, small: Path):
    photographs = sorted((small / "images").iterdir())
    assert len(photographs) == 10
    for path in photographs:
        assert path.read_bytes() == (written / "images" / path.name).read_bytes()
    for name in synthetic.SETS:
        lines = (small / f"{name}.csv").read_text().splitlines()
        assert lines == (written / f"{name}.csv").read_text().splitlines()[: len(lines)]


def test_other_seed_other_photographs(small: Path, tmp_path: Path):
    write_synthetic(tmp_path / "other", SyntheticConfig(paired=2, unpaired=0, downstream=0, size=64, seed=4))
    for path in (tmp_path / "other" / "images").iterdir():
        difference = cv2.imread(str(path)).astype(int) - cv2.imread(str(small / "images" / path.name))
        assert np.abs(difference).mean() > 3
    assert not (tmp_path / "other" / "unpaired.csv").exists()


def test_no_two_photographs_of_the_sets_are_alike(written: Path):
    contents = {path.read_bytes() for path in (written / "images").iterdir()}
    assert len(contents) == 366


def test_patients_lie_in_one_split_and_classes_in_all(written: Path):
    table = pd.read_csv(written / "downstream.csv")
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert (table.groupby("patient")["eye"].nunique() == table.groupby("patient").size()).all()
    counts = table.groupby(["split", "label"]).size().unstack()
    assert set(counts.index) == {"train", "val", "test"}
    assert set(counts.columns) == set(DOWNSTREAM_CLASSES)
    assert (counts > 0).all(axis=None)
    assert table["split"].value_counts(normalize=True)["train"] == pytest.approx(5 / 8, abs=0.1)


def test_patients_of_the_sets_are_different_people(written: Path):
    patients = [set(pd.read_csv(written / f"{name}.csv")["patient"]) for name in synthetic.SETS]
    assert len(set.union(*patients)) == sum(len(ids) for ids in patients)


def test_texts_have_one_label_or_one_each(written: Path):
    table = pd.read_csv(written / "paired.csv")
    for _, row in table.iterrows():
        texts, labels = row["text"].split(" | "), row["label"].split(" | ")
        assert len(texts) >= 2
        assert len(labels) in (1, len(texts))
        assert set(labels) <= set(DIAGNOSES)
        other = "right" if row["eye"] == "left" else "left"
        assert not any(f"{other} eye" in text for text in texts)
        for text, label in zip(texts, labels * (len(texts) // len(labels)), strict=True):
            assert label == "normal fundus" or "normal fundus" not in text


def test_reports_are_of_the_paired_photographs(written: Path):
    paired, reports = (pd.read_csv(written / f"{name}.csv") for name in ("paired", "reports"))
    assert list(reports.columns) == synthetic.REPORT_COLUMNS
    shared = ["image", "patient", "eye", "split"]
    assert reports[shared].equals(paired[shared])
    assert set(reports["text_kind"]) == {"sentence"}
    for text, labels in zip(reports["text"], paired["label"], strict=True):
        assert synthetic.SEPARATOR.strip() not in text
        assert all(label in text for label in labels.split(" | "))
    assert reports["text"].nunique() == len(reports)


def test_reports_are_prepared_and_the_trial_tower_knows_their_words(small: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    shards = tmp_path / "shards"
    arguments = ("--csv", small / "reports.csv", "--images", small, "--separator", "|", "--size", "64")
    assert run("manifest", *arguments, "--out", shards) == 0
    assert run("text-tower", "--shards", shards / "train", "--width", "16", "--out", tmp_path / "text") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "text")
    reports = pd.read_csv(small / "reports.csv")["text"].tolist()
    assert sorted(read_texts(shards / "train")) == sorted(reports)
    for report in reports:
        encoded = tokenizer(report)
        assert tokenizer.unk_token_id not in encoded["input_ids"]
        assert len(encoded["input_ids"]) < 1.5 * (max(word for word in encoded.word_ids() if word is not None) + 1)


def test_colour_alone_does_not_solve_the_downstream_task(written: Path):
    assert histogram_probe(written / "downstream.csv") < 0.7


def test_probe_sees_colour_where_it_gives_the_class_away(tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        label = number % 3
        image = rng.integers(60, 120, (32, 32, 3))
        image[..., label] += 40
        cv2.imwrite(str(tmp_path / f"{number}.png"), image.astype(np.uint8))
        rows.append(
            {"image": f"{number}.png", "label": f"class {label}", "split": ("train", "val", "test")[number // 20]}
        )
    pd.DataFrame(rows).to_csv(tmp_path / "set.csv", index=False)
    assert histogram_probe(tmp_path / "set.csv") > 0.99


def test_probe_names_the_class_a_split_lacks(small: Path):
    with pytest.raises(UserError, match=r"downstream\.csv: split val has no image of .*make the set larger"):
        histogram_probe(small / "downstream.csv")


def test_plan_gives_exactly_the_number_asked_for():
    for wanted in (1, 15, 16, 17):
        plan = list(plan_patients(SyntheticConfig(paired=wanted, unpaired=0, downstream=0)))
        assert sum(len(patient.eyes) for patient in plan) == wanted


def test_finished_set_is_left_alone_and_other_settings_are_refused(small: Path):
    before = (small / "paired.csv").stat().st_mtime_ns
    assert not write_synthetic(small, SMALL)
    assert (small / "paired.csv").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="seed 3 there, 5 wanted"):
        write_synthetic(small, SyntheticConfig(paired=5, unpaired=2, downstream=3, size=64, seed=5))


def test_foreign_files_are_neither_used_nor_removed(tmp_path: Path):
    config = SyntheticConfig(paired=1, unpaired=0, downstream=0, size=64)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds files that this command did not write"):
        write_synthetic(tmp_path / "mine", config)
    (tmp_path / "mine").rename(tmp_path / "out.partial")
    with pytest.raises(UserError, match="is in the way"):
        write_synthetic(tmp_path / "out", config)
    assert (tmp_path / "out.partial" / "thesis.txt").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_synthetic(tmp_path / "file", config)


def test_interrupted_run_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = SyntheticConfig(paired=3, unpaired=0, downstream=0, size=64)
    write, calls = synthetic._write_patient, []

    def interrupted(patient, **options):
        calls.append(patient)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(patient, **options)

    monkeypatch.setattr(synthetic, "_write_patient", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "out", config)
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "out.partial" / "images").iterdir())
    (tmp_path / "out.partial" / "images" / "left-over.jpg").write_text("")
    assert write_synthetic(tmp_path / "out", config)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 3
    assert not (tmp_path / "out.partial").exists()
    assert json.loads((tmp_path / "out" / "synthetic.json").read_text())["paired"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paired": -1}, r"--paired is -1: give 0 or more"),
        ({"paired": 0, "unpaired": 0, "downstream": 0}, "nothing to write"),
        ({"size": 16}, r"--size is 16: give 64 to 2048"),
        ({"seed": -2}, r"--seed is -2: give 0 or more"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, int], message: str):
    with pytest.raises(UserError, match=message):
        SyntheticConfig(**options)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    parser = argparse.ArgumentParser()
    synthetic.add_parser(parser.add_subparsers())
    command = ["synthetic", "--out", str(tmp_path / "set"), "--paired", "2", "--unpaired", "0", "--downstream", "0"]
    args = parser.parse_args([*command, "--size", "64", "--workers", "1"])
    assert args.run(args) == 0
    assert args.run(args) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"{tmp_path / 'set'}: written", f"{tmp_path / 'set'}: already there, same settings"]
    args = parser.parse_args([*command, "--baseline"])
    with pytest.raises(UserError, match="--baseline needs --downstream 80 or more"):
        args.run(args)
    args = parser.parse_args([*command, "--workers", "0"])
    with pytest.raises(UserError, match="--workers is 0"):
        args.run(args)
