"""`build` on the fixtures of all sets, and training from what it makes."""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from data_prep import build
from data_prep.fixtures.command import write
from data_prep.fixtures.files import photograph
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
    assert {r["folder"].split("/")[1] for r in stored} == {name for group in names(PAPER).values() for name in group}
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
    # What one part asks holds for the whole.
    for term in ("| share alike |", "| non-commercial |", "| no derivatives |", "| unstated |"):
        assert term in card
    assert f"## Not stored: {len(found) - stored}" in card


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
    Image.open(test[1]).resize((88, 88), Image.Resampling.LANCZOS).save(images / "08_h.jpg", quality=80)
    return test


def test_test_photographs_stay_out_of_pre_training(small, tmp_path):
    test = contaminate(tmp_path)
    assert small(f"out={tmp_path / 'out'}") == 0
    sources = [Path(sample["source"]).name for sample in samples(tmp_path / "out" / "unpaired")]
    assert sources == ["01_dr.JPG", "01_g.jpg", "01_h.jpg", "02_h.jpg"]
    left_out = {Path(r["image"]).name: r["reason"] for r in records(tmp_path / "out") if r["status"] == "left_out"}
    assert left_out["07_h.jpg"].startswith("is the test photograph ")
    assert test[0].name in left_out["07_h.jpg"]
    assert left_out["08_h.jpg"].startswith("looks like the test photograph ")
    assert test[1].name in left_out["08_h.jpg"]
    assert "looks like the test photograph" in (tmp_path / "out" / "DATA_CARD.md").read_text()


def test_unless_told_to_allow_them(small, tmp_path):
    contaminate(tmp_path)
    assert small(f"out={tmp_path / 'out'}", "contamination=allow") == 0
    sources = [Path(sample["source"]).name for sample in samples(tmp_path / "out" / "unpaired")]
    assert sources[-2:] == ["07_h.jpg", "08_h.jpg"]
    assert "| contamination | allow |" in (tmp_path / "out" / "DATA_CARD.md").read_text()


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
    ours, straight = tree(tmp_path / "out"), tree(tmp_path / "straight")
    assert set(ours) == set(straight)
    assert [name for name in ours if ours[name] != straight[name] and name not in ("report.json", "DATA_CARD.md")] == []
    assert not (tmp_path / "out.partial").exists()


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
        ("size=3", "--size 3"),
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
