"""`--hash-patients`: who a photograph is of stands in nothing that is written, and what belongs together still does."""

import csv
import errno
import json
import os
from pathlib import Path

import pyarrow.parquet
import pytest

from data_prep import parts
from tests.data_prep.drawing import run, samples, save_retinas, tree, write_csv

PEOPLE = ["Mueller-Anna-1957", "Okafor-Chidi-1963"]
EYES = ["left", "right"]
KEY = "correct horse battery staple, 32+"


@pytest.fixture
def clinic(tmp_path):
    """Photographs in a folder a patient, one unusable, and a table that names one of them twice."""
    root = tmp_path / "clinic"
    rows = []
    for person, number in zip(PEOPLE, ("MRN-100017", "MRN-100018"), strict=True):
        save_retinas(root / person, 2)
        for name, eye in zip(("0.jpg", "1.jpg"), EYES, strict=True):
            (root / person / name).rename(root / person / f"{person}-{eye}.jpg")
            image = f"{person}/{person}-{eye}.jpg"
            rows.append({"image": image, "patient": number, "visit": "visit-2019-03-12", "eye": eye, "label": "normal"})
    (root / PEOPLE[0] / "Mueller-Anna-broken.jpg").write_bytes(b"no photograph")
    bad = {"image": f"{PEOPLE[0]}/Mueller-Anna-broken.jpg", "patient": "MRN-100017", "label": "normal"}
    write_csv(tmp_path / "t.csv", [*rows, rows[0], {"visit": "", "eye": ""} | bad])
    (tmp_path / "key").write_text(KEY + "\n")
    return tmp_path


SECRETS = [*PEOPLE, "Mueller", "Okafor", "MRN-1000", "visit-2019", KEY]


def assert_nobody_is_named(files: dict[str, bytes], *texts: str) -> None:
    for name, data in files.items():
        for secret in SECRETS:
            assert secret.encode() not in data, f"{name} holds {secret}"
            assert secret not in name
    for secret in SECRETS:
        assert not any(secret in text for text in texts)


def prepare(clinic: Path, out: str, *options: object) -> int:
    arguments = ("--csv", clinic / "t.csv", "--images", clinic / "clinic", "--out", clinic / out, "--max-bad", "1")
    return run("manifest", *arguments, "--workers", "1", *options)


def test_nobody_is_named_in_anything_that_is_written(clinic, capsys):
    assert prepare(clinic, "out", "--hash-patients", clinic / "key") == 0
    printed = capsys.readouterr()
    files = tree(clinic / "out")
    manifest = pyarrow.parquet.read_table(clinic / "out" / "manifest.parquet").to_pylist()  # compressed
    assert_nobody_is_named(files, printed.out, printed.err, json.dumps(manifest, default=repr))
    assert len(manifest) == 6
    assert files["quarantine.csv"].count(b"\n") == 3
    assert b"hash_patients" in files["report.json"]
    found = samples(clinic / "out")
    assert [sample["eye"] for sample in found] == [*EYES, *EYES]
    patients = [sample["patient"] for sample in found]
    assert patients[0] == patients[1] != patients[2] == patients[3]
    assert len({sample["source"] for sample in found}) == 4
    assert all(len(sample["source"]) == 36 and sample["source"].endswith(".jpg") for sample in found)
    assert len({record["visit"] for record in manifest if record["visit"]}) == 2  # of a patient, not of a day


def test_without_the_option_names_stay(clinic):
    assert prepare(clinic, "out") == 0
    with pytest.raises(AssertionError, match="holds Mueller"):
        assert_nobody_is_named(tree(clinic / "out"))


def test_an_unfinished_run_names_nobody_and_continues_to_the_same_bytes(clinic, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(parts, "_sample", full)
        assert prepare(clinic, "out", "--hash-patients", clinic / "key") == 2
    left = tree(clinic / "out.partial")
    assert "ledger.sqlite" in left
    assert_nobody_is_named(left)
    assert prepare(clinic, "out", "--hash-patients", clinic / "key") == 0
    assert prepare(clinic, "again", "--hash-patients", clinic / "key") == 0
    assert tree(clinic / "out") == tree(clinic / "again")


def test_one_key_makes_one_patient_of_several_sets_and_another_key_others(clinic, monkeypatch, capsys):
    monkeypatch.setenv("THE_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", KEY[::-1])
    single = [{"image": f"{PEOPLE[0]}/{PEOPLE[0]}-left.jpg", "patient": "MRN-100017"}]
    write_csv(clinic / "one.csv", single)
    for out, key in (("file", clinic / "key"), ("env", "env:THE_KEY"), ("other", "env:OTHER_KEY")):
        arguments = ("--csv", clinic / "one.csv", "--images", clinic / "clinic", "--hash-patients", key)
        assert run("manifest", *arguments, "--out", clinic / out, "--workers", "1") == 0
    records = {out: samples(clinic / out)[0] for out in ("file", "env", "other")}
    for column in ("patient", "source"):
        assert records["file"][column] == records["env"][column] != records["other"][column]
    assert prepare(clinic, "all", "--hash-patients", clinic / "key") == 0
    assert samples(clinic / "all")[0]["patient"] == records["file"]["patient"]
    assert run("overlap", clinic / "all", clinic / "env", "--out", clinic / "overlap") == 0
    with (clinic / "overlap" / "overlap.csv").open(newline="") as file:
        kinds = {row["kind"] for row in csv.DictReader(file)}
    assert {"exact", "same patient"} <= kinds
    assert_nobody_is_named(tree(clinic / "overlap"))
    capsys.readouterr()


def test_a_bare_folder_does_not_name_its_data_sets_after_patients(clinic):
    arguments = ("--images", clinic / "clinic", "--out", clinic / "out", "--max-bad", "1", "--workers", "1")
    assert run("manifest", *arguments, "--hash-patients", clinic / "key") == 0
    assert_nobody_is_named(tree(clinic / "out"))
    assert {sample["dataset"] for sample in samples(clinic / "out")} == {"clinic"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--hash-patients", "none"], "cannot be read"),
        (["--hash-patients", "env:NOT_SET"], "has 0 characters of at least 32; make one with `openssl"),
        (["--hash-patients", "env:SHORT"], "has 6 characters"),
        (["--hash-patients", "env:LONG", "--spark", "local[2]"], "leave --spark out"),
    ],
)
def test_a_key_that_protects_nobody_is_refused(clinic, monkeypatch, capsys, given, message):
    monkeypatch.setenv("SHORT", "abcdef")
    monkeypatch.setenv("LONG", KEY)
    workers = () if "--spark" in given else ("--workers", "1")
    arguments = ("--csv", clinic / "t.csv", "--images", clinic / "clinic", "--out", clinic / "out", *workers)
    assert run("manifest", *arguments, *given) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "abcdef" not in printed
    assert not (clinic / "out").exists()
