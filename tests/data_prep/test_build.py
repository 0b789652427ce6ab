"""`build` on the fixtures of all sets, and training from what it makes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from data_prep import build
from data_prep.fixtures.command import write
from data_prep.fixtures.files import photograph
from data_prep.phantom.case import photograph as draw
from data_prep.phantom.case import sample_cases
from data_prep.phantom.diagnoses import NORMAL
from data_prep.readers.catalogue import DATASETS
from tests.data_prep.drawing import run, samples, tree
from train import main as train

PAPER = "yamls/data/maskedclip-paper.yaml"
FAST = ("size=64", "workers=1")


def names(file):
    loaded = yaml.safe_load(Path(file).read_text())
    return {group: list(loaded[group]) for group in ("paired", "unpaired", "downstream")}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Fixtures of every set of the paper's yaml. Read only."""
    folder = tmp_path_factory.mktemp("downloads")
    for group in names(PAPER).values():
        for name in group:
            write(name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(roots, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "out"
    assert run("build", PAPER, f"roots={roots}", f"out={out}", *FAST) == 0
    return out


def records(out):
    return pyarrow.parquet.read_table(out / "manifest.parquet").to_pylist()


def test_everything_is_there_once(built):
    found = records(built)
    stored = [record for record in found if record["status"] == "stored"]
    expected = {(group, name) for group, found_names in names(PAPER).items() for name in found_names}
    assert {(r["group"], r["set"]) for r in stored} == expected
    assert all(r["folder"].startswith(f"{r['group']}/{r['set']}") and r["dataset"] == r["set"] for r in stored)
    assert all((built / group / name / "contact_sheet.jpg").is_file() for group, name in expected)
    for record in stored:
        sample = samples(built / record["folder"])[record["position"]]
        assert (sample["sha256"], sample["source"]) == (record["sha256"], record["image"])
    for group in ("paired", "unpaired"):
        joined = samples(built / group)
        assert [s["sha256"] for s in joined] == [r["sha256"] for r in stored if r["folder"].startswith(f"{group}/")]
        assert list(dict.fromkeys(s["dataset"] for s in joined)) == names(PAPER)[group]
    for name in names(PAPER)["downstream"]:
        assert all("label" in sample for sample in samples(built / "downstream" / name / "train"))
    assert all((built / "downstream" / "idrid" / part / "index.json").is_file() for part in ("train", "val", "test"))


def test_it_stands_the_check(built, capsys):
    assert run("check", built) == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_card_and_report_count_the_whole(built):
    found = records(built)
    report = json.loads((built / "report.json").read_bytes())
    card = (built / "DATA_CARD.md").read_text()
    stored = sum(record["status"] == "stored" for record in found)
    assert report["stored"] == stored == sum(part["stored"] for part in report["sets"].values())
    assert f"## Sources: {stored:,} photographs of 23 data sets" in card
    for name in report["sets"]:
        dataset = DATASETS[name.split("/")[1]]
        assert f"| {dataset.name} |" in card
        assert dataset.citation in card
    # What one part asks holds for the whole, which is said before anything else.
    whole = card.partition("## Sources")[0]
    for demand in ("may not be used commercially", "may not be passed on", "must keep that licence", "credited"):
        assert demand in whole
    assert f"## Not stored: {len(found) - stored}" in card


def test_nothing_tells_where_it_was_made(built, roots):
    for name in ("report.json", "DATA_CARD.md", "contamination.csv"):
        text = (built / name).read_text()
        assert str(roots) not in text
        assert str(built) not in text


def overrides(out, text_tower, tmp_path):
    return [
        f"data.paired.remote={out}/paired",
        f"data.unpaired.remote={out}/unpaired",
        "data.paired.split=null",
        "data.unpaired.split=null",
        "data.max_tokens=32",
        f"text_encoder.name={text_tower}",
        f"output={tmp_path / 'runs'}",
        "trainer.progress_bar=false",
        "trainer.max_duration=2ba",
        "optimizer.warmup=1ba",
        "tracking.picture_interval=null",
    ]


def check_run(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss/train/total"] for line in lines if "loss/train/total" in line]
    assert len(losses) == 2
    assert all(0 < loss < 100 for loss in losses)
    assert (folder / "encoder.safetensors").is_file()
    assert (folder / "data" / "paired" / "DATA_CARD.md").is_file()


@pytest.mark.slow
def test_the_trainer_trains_from_it(built, text_tower, tmp_path):
    assert train(["yamls/debug.yaml", *overrides(built, text_tower, tmp_path)]) == 0
    check_run(tmp_path / "runs" / "debug")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_trains_from_an_object_store(built, roots, text_tower, tmp_path, bucket):
    options = (f"roots={roots}", "out=s3://shards/data", f"work={tmp_path / 'work'}", *FAST)
    assert run("build", PAPER, *options) == 0
    keys = [entry["Key"] for entry in bucket.list_objects_v2(Bucket="shards")["Contents"]]
    assert {key.removeprefix("data/") for key in keys} == set(tree(built))
    cache = [f"data.{name}.local={tmp_path / name}" for name in ("paired", "unpaired")]
    assert train(["yamls/debug.yaml", *overrides("s3://shards/data", text_tower, tmp_path), *cache]) == 0
    check_run(tmp_path / "runs" / "debug")


@pytest.fixture
def small(tmp_path):
    """IDRiD and HRF, one yaml that builds both."""
    for name in ("idrid", "hrf"):
        write(name, tmp_path / "downloads" / name)
    config = tmp_path / "small.yaml"
    config.write_text("out: none\nunpaired: {hrf: {}}\ndownstream: {idrid: {}}\n")
    return lambda *more: run("build", config, f"roots={tmp_path / 'downloads'}", *FAST, *more)


def contaminate(tmp_path):
    """Copy test photographs of IDRiD into HRF: one as it is, one encoded again at another size."""
    test = sorted((tmp_path / "downloads" / "idrid").rglob("b. Testing Set/*.jpg"))
    images = tmp_path / "downloads" / "hrf" / "images"
    photograph(images / "07_h.jpg", like=test[0])
    # The fixtures' blotches are not like a retina: the look of one changes more when it is encoded again.
    (case,) = sample_cases(np.random.SeedSequence(3), {"left": [NORMAL]})
    retina = Image.fromarray(draw(case, 240))
    retina.save(test[1], quality=95)
    retina.resize((180, 180), Image.Resampling.LANCZOS).save(images / "08_h.jpg", quality=80)
    return test


def test_test_photographs_stay_out_of_pre_training(small, tmp_path):
    test = contaminate(tmp_path)
    assert small(f"out={tmp_path / 'out'}") == 0
    sources = [Path(sample["source"]).name for sample in samples(tmp_path / "out" / "unpaired")]
    assert sources == ["01_dr.JPG", "01_g.jpg", "01_h.jpg", "02_h.jpg"]
    found = {Path(r["image"]).name: r["reason"] for r in records(tmp_path / "out") if r["status"] == "contaminated"}
    assert set(found) == {"07_h.jpg", "08_h.jpg"}
    assert found["07_h.jpg"].startswith("is the test photograph ")
    assert test[0].name in found["07_h.jpg"]
    assert found["08_h.jpg"].startswith("looks like the test photograph ")
    assert test[1].name in found["08_h.jpg"]
    check_listed(tmp_path / "out", test, "contaminated")
    card = (tmp_path / "out" / "DATA_CARD.md").read_text()
    assert "## Photographs of downstream test sets kept out: 2" in card
    assert "KEPT" not in card


def check_listed(out, test, status):
    with (out / "contamination.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["group"], line["set"], line["image"]) for line in lines] == [
        ("unpaired", "hrf", f"images/{name}_h.jpg") for name in ("07", "08")
    ]
    assert [(line["test_set"], Path(line["test_image"]).name) for line in lines] == [
        ("idrid", test[0].name),
        ("idrid", test[1].name),
    ]
    assert [line["status"] for line in lines] == [status] * 2
    assert int(lines[0]["distance"]) == 0 < int(lines[1]["distance"]) <= 32
    assert json.loads((out / "report.json").read_bytes())["contamination"] == 2


def test_unless_told_to_allow_them(small, tmp_path):
    test = contaminate(tmp_path)
    assert small(f"out={tmp_path / 'out'}", "contamination=allow") == 0
    sources = [Path(sample["source"]).name for sample in samples(tmp_path / "out" / "unpaired")]
    assert sources[-2:] == ["07_h.jpg", "08_h.jpg"]
    check_listed(tmp_path / "out", test, "stored")
    card = (tmp_path / "out" / "DATA_CARD.md").read_text()
    assert "## Photographs of downstream test sets KEPT for pre-training: 2" in card
    assert "| contamination | allow |" in card


def duplicate(tmp_path):
    """The same file twice in HRF, once more in FIVES, which comes after it, and in a downstream training set."""
    write("fives", tmp_path / "downloads" / "fives")
    hrf, idrid = tmp_path / "downloads" / "hrf" / "images", tmp_path / "downloads" / "idrid"
    photograph(hrf / "09_h.jpg", like=hrf / "01_h.jpg")
    fives = next(p for p in (tmp_path / "downloads" / "fives").rglob("*_A.png") if p.parent.name == "Original")
    fives.write_bytes((hrf / "01_h.jpg").read_bytes())
    next(idrid.rglob("a. Training Set/IDRiD_001.jpg")).write_bytes((hrf / "01_h.jpg").read_bytes())
    return fives


def test_only_the_first_of_identical_photographs_is_kept(small, tmp_path):
    fives = duplicate(tmp_path)
    out = tmp_path / "out"
    assert small(f"out={out}", "unpaired.fives={}") == 0
    found = {r["image"].rsplit("/", 1)[-1]: r["reason"] for r in records(out) if r["status"] == "duplicate"}
    reason = "is byte-identical to images/01_h.jpg of hrf"
    assert found == {"09_h.jpg": reason, fives.name: reason}
    hashes = [sample["sha256"] for sample in samples(out / "unpaired")]
    assert len(set(hashes)) == len(hashes) == 8
    assert json.loads((out / "report.json").read_bytes())["duplicate"] == 2
    assert "## Duplicates left out: 2" in (out / "DATA_CARD.md").read_text()
    assert reason in (out / "unpaired" / "hrf" / "left_out.csv").read_text()


def test_unless_told_to_keep_them(small, tmp_path):
    duplicate(tmp_path)
    assert small(f"out={tmp_path / 'out'}", "unpaired.fives={}", "duplicates=keep") == 0
    hashes = [sample["sha256"] for sample in samples(tmp_path / "out" / "unpaired")]
    assert (len(hashes), len(set(hashes))) == (10, 8)
    assert all(record["status"] != "duplicate" for record in records(tmp_path / "out"))


def test_a_set_of_duplicates_alone_is_refused(small, tmp_path, capsys):
    images = tmp_path / "downloads" / "hrf" / "images"
    again = tmp_path / "downloads" / "stare"
    write("stare", again)
    for file, original in zip(sorted(again.rglob("*.ppm")), sorted(images.iterdir()), strict=False):
        file.write_bytes(original.read_bytes())
    assert small(f"out={tmp_path / 'out'}", "unpaired.stare={}") == 2
    assert "unpaired/stare: every photograph repeats one" in capsys.readouterr().err


def test_template_words_the_classes(small, tmp_path):
    write("eyepacs", tmp_path / "downloads" / "eyepacs")
    out = tmp_path / "out"
    assert small(f"out={out}", "paired.eyepacs.template='Retina: {label}.'") == 0
    for sample in samples(out / "paired"):
        (text,), (category,) = sample["texts"], sample["labels"]
        assert text.startswith("Retina: ")
        assert category in text
    assert "eyepacs (template=Retina: {label}.)" in (out / "DATA_CARD.md").read_text()


def test_a_stopped_build_continues_to_the_same_bytes(small, tmp_path, monkeypatch, capsys):
    convert = build.convert

    def stop(conversion, *arguments, **options):
        if options["dataset"] == "hrf":
            raise KeyboardInterrupt
        return convert(conversion, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(build, "convert", stop)
        assert small(f"out={tmp_path / 'out'}") == 130
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(build, "convert", lambda *a, **o: (done.append(o["dataset"]), convert(*a, **o))[1])
    done: list[str] = []
    assert small(f"out={tmp_path / 'out'}") == 0
    assert done == ["hrf"]
    assert small(f"out={tmp_path / 'straight'}") == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")
    assert not (tmp_path / "out.partial").exists()


def test_a_killed_build_continues_to_the_same_bytes(small, tmp_path):
    out = tmp_path / "out"
    arguments = [str(tmp_path / "small.yaml"), f"roots={tmp_path / 'downloads'}", f"out={out}", *FAST]
    command = [sys.executable, "-m", "data_prep", "build", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = tmp_path / "out.partial" / "sets" / "downstream" / "idrid" / "report.json"
    deadline = time.monotonic() + 60
    while not first.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    before = first.stat().st_ino
    assert small(f"out={tmp_path / 'straight'}") == 0
    assert small(f"out={out}") == 0
    assert (out / "downstream" / "idrid" / "report.json").stat().st_ino == before  # linked, not made again
    assert tree(out) == tree(tmp_path / "straight")


def stop_at_the_end(small, out, monkeypatch, *options):
    """Prepare all sets and stop before they are joined."""
    with monkeypatch.context() as patch:
        patch.setattr(build, "_join", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        assert small(f"out={out}", *options) == 130


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["contamination=allow"], []),
        (["size=48"], []),
        (["duplicates=keep"], []),
        (["downstream={}"], ["downstream.idrid={}"]),
        (["downstream.idrid.target=dme"], []),
    ],
    ids=lambda options: "".join(options) or "default",
)
def test_what_was_prepared_otherwise_is_prepared_again(tmp_path, monkeypatch, before, after):
    for name in ("idrid", "hrf"):
        write(name, tmp_path / "downloads" / name)
    contaminate(tmp_path)
    images = tmp_path / "downloads" / "hrf" / "images"
    photograph(images / "09_h.jpg", like=images / "01_h.jpg")
    config = tmp_path / "small.yaml"
    config.write_text("out: none\nsize: 64\nworkers: 1\nunpaired: {hrf: {}}\n")

    def small(*more):
        return run("build", config, f"roots={tmp_path / 'downloads'}", *more)

    downstream = [] if any(option.startswith("downstream") for option in before) else ["downstream.idrid={}"]
    stop_at_the_end(small, tmp_path / "out", monkeypatch, *downstream, *before)
    assert small(f"out={tmp_path / 'out'}", *(after or ["downstream.idrid={}"])) == 0
    assert small(f"out={tmp_path / 'straight'}", "downstream.idrid={}") == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


def test_a_set_that_was_taken_out_judges_nothing(small, tmp_path, monkeypatch):
    """Its prepared shards still lie in the work folder."""
    contaminate(tmp_path)
    stop_at_the_end(small, tmp_path / "out", monkeypatch)
    config = tmp_path / "hrf.yaml"
    config.write_text("out: none\nunpaired: {hrf: {}}\n")
    assert run("build", config, f"roots={tmp_path / 'downloads'}", f"out={tmp_path / 'out'}", *FAST) == 0
    assert len(samples(tmp_path / "out" / "unpaired")) == 6
    assert not (tmp_path / "out" / "downstream").exists()


def test_all_that_is_missing_is_said_at_once(small, tmp_path, capsys):
    shutil.rmtree(tmp_path / "downloads" / "hrf")
    next((tmp_path / "downloads" / "idrid").rglob("b. IDRiD*.csv")).unlink()
    assert small(f"out={tmp_path / 'out'}") == 2
    message = capsys.readouterr().err
    assert "unpaired.hrf: no folder" in message
    assert DATASETS["hrf"].source in message
    assert "downstream.idrid: " in message
    assert "b. IDRiD_Disease Grading_Testing Labels.csv" in message
    assert os.listdir(tmp_path) == ["downloads", "small.yaml"] or set(os.listdir(tmp_path)) == {
        "downloads",
        "small.yaml",
    }


def test_missing_sets_may_be_skipped(small, tmp_path, capsys):
    shutil.rmtree(tmp_path / "downloads" / "hrf")
    assert small(f"out={tmp_path / 'out'}", "skip_missing=true") == 0
    assert "skipped: unpaired.hrf" in capsys.readouterr().err
    assert not (tmp_path / "out" / "unpaired").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("contaminaton=allow", "Did you mean contamination?"),
        ("contamination=maybe", "contamination"),
        ("unpaired.hrv={}", "do you mean hrf?"),
        ("duplicates=last", "duplicates"),
        ("size=3", "--size 3"),
        ("unpaired.hrf.template=a {label}", "unpaired.hrf.template"),
        ("paired.eyepacs.template=a photograph", "has no {label}"),
        ("unpaired.hrf.rot=x", "unknown key unpaired.hrf.rot"),
    ],
)
def test_wrong_keys(small, tmp_path, capsys, override, message):
    assert small(f"out={tmp_path / 'out'}", override) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_many_broken_photographs_stop_the_build(small, tmp_path, capsys):
    broken = tmp_path / "downloads" / "hrf" / "images" / "01_h.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    assert small(f"out={tmp_path / 'out'}") == 1
    assert "unpaired/hrf: stopped" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert small(f"out={tmp_path / 'out'}", "max_bad=0.5") == 0


@pytest.mark.parametrize("file", sorted(Path("yamls/data").glob("*.yaml")), ids=str)
def test_shipped_yamls_name_known_sets(file):
    for group, found in names(file).items():
        assert set(found) <= set(DATASETS), group
    first, second, *_ = file.read_text().splitlines()
    assert first.startswith("# ")
    assert str(file) in second
