import contextlib
import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from streaming import StreamingDataset
from streaming.base.util import clean_stale_shared_memory

from data_prep import writer
from data_prep.ledger import Ledger
from data_prep.parts import SHARD_BYTES
from maskedclip_composer.data.schema import COLUMNS
from tests.data_prep.drawing import retina, run, samples, save_retinas, tree, write_csv


@pytest.fixture
def images(tmp_path):
    save_retinas(tmp_path / "images", 12)
    return tmp_path / "images"


def table(tmp_path, rows):
    return write_csv(tmp_path / "t.csv", rows)


def quarantined(out):
    with (out / "quarantine.csv").open(newline="") as file:
        return [(int(row["row"]), row["image"], row["reason"]) for row in csv.DictReader(file)]


def test_paired_rows_come_back_through_streaming(tmp_path, images, capsys):
    names = [f"{n}.jpg" for n in (3, 1, 2, 0)]
    rows = [{"image": n, "text": "a | b", "label": "1 | 2", "patient": "p", "eye": "OS"} for n in names]
    csv_file, out = table(tmp_path, rows), tmp_path / "out"
    arguments = ("--csv", csv_file, "--images", images, "--out", out, "--separator", "|", "--size", "48")
    assert run("manifest", *arguments, "--dataset", "TOY", "--licence", "CC0") == 0
    assert "4 of 4 paired rows" in capsys.readouterr().out

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(out), batch_size=1, shuffle=False)
    found = [dataset[index] for index in range(len(dataset))]
    assert [sample["source"] for sample in found] == names
    for sample in found:
        assert set(sample) == set(COLUMNS["paired"])
        assert (sample["texts"], sample["labels"]) == (["a", "b"], ["1", "2"])
        assert (sample["eye"], sample["patient"], sample["dataset"], sample["split"]) == ("left", "p", "TOY", "")
        stored = Image.open(io.BytesIO(sample["image"]))
        assert stored.size == (sample["width"], sample["height"])
        assert min(stored.size) == 48
        number = int(sample["source"].removesuffix(".jpg"))
        radius = 30 + number
        expected = (60 + number - radius, 60 - radius, 61 + number + radius, 61 + radius)
        assert sample["crop"]["status"] == "cropped"
        np.testing.assert_allclose(sample["crop"]["box"], expected, atol=3)
    index = json.loads((out / "index.json").read_bytes())
    assert all("xxh64" in shard["raw_data"]["hashes"] for shard in index["shards"])
    report = json.loads((out / "report.json").read_bytes())
    assert (report["licence"], report["texts"], report["distinct_texts"]) == ("CC0", 8, 2)
    assert report["splits"][""]["labels"] == {"1": 4, "2": 4}
    assert quarantined(out) == []
    assert not (tmp_path / "out.partial").exists()


def test_parquet_lists_and_labels_per_split(tmp_path, images):
    columns = {"image": ["0.jpg", "1.jpg", "2.jpg"], "label": [4, 0, 2], "split": ["train", "test", "train"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), images / "t.parquet")
    assert run("manifest", "--csv", images / "t.parquet", "--out", tmp_path / "out") == 0
    found = {
        split: [(s["source"], s["label"]) for s in samples(tmp_path / "out" / split)] for split in ("train", "test")
    }
    assert found == {"train": [("0.jpg", "4"), ("2.jpg", "2")], "test": [("1.jpg", "0")]}
    assert not (tmp_path / "out" / "index.json").exists()


def test_bare_folder_without_crop(tmp_path, images):
    assert run("manifest", "--images", images, "--out", tmp_path / "out", "--no-crop", "--size", "0") == 0
    found = samples(tmp_path / "out")
    assert [s["source"] for s in found] == sorted(f"{n}.jpg" for n in range(12))
    assert all(s["image"] == (images / s["source"]).read_bytes() for s in found)
    assert all(s["crop"] == {"status": "off", "box": None} for s in found)


@pytest.fixture
def broken(tmp_path, images):
    """Twelve photographs, of which 1 is cut off; 3 is missing and 0 is named twice."""
    data = (images / "1.jpg").read_bytes()
    (images / "1.jpg").write_bytes(data[: len(data) // 2])
    (images / "3.jpg").unlink()
    return table(tmp_path, [{"image": f"{n}.jpg"} for n in (*range(12), 0)])


@pytest.mark.parametrize(("allowed", "status"), [("0.5", 0), ("0.1", 1)])
def test_unusable_rows_are_quarantined(tmp_path, images, broken, allowed, status, capsys):
    out = tmp_path / "out"
    assert run("manifest", "--csv", broken, "--images", images, "--out", out, "--max-bad", allowed) == status
    assert [(row, image) for row, image, _ in quarantined(out)] == [(3, "1.jpg"), (5, "3.jpg"), (14, "0.jpg")]
    for (_, _, reason), words in zip(quarantined(out), ("truncated", "no such file", "repeats"), strict=True):
        assert words in reason
    assert [s["source"] for s in samples(out)] == [f"{n}.jpg" for n in range(12) if n not in (1, 3)]
    report = json.loads((out / "report.json").read_bytes())
    assert (report["rows"], report["stored"], report["quarantined"]) == (13, 10, 3)
    captured = capsys.readouterr()
    assert "row 5: 3.jpg: no such file" in captured.out
    assert ("23.1% of the rows are quarantined" in captured.err) == (status == 1)


def test_nothing_is_written_when_nothing_is_usable(tmp_path, images, capsys):
    csv_file = table(tmp_path, [{"image": "x.jpg"}, {"image": "y.jpg"}])
    assert run("manifest", "--csv", csv_file, "--images", images, "--out", tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()
    assert "x.jpg: no such file" in capsys.readouterr().err


def test_byte_identical_images_are_listed(tmp_path, images, capsys):
    (images / "1.jpg").write_bytes((images / "0.jpg").read_bytes())
    rows = [{"image": "0.jpg", "label": "3", "split": "train"}, {"image": "1.jpg", "label": "0", "split": "test"}]
    assert run("manifest", "--csv", table(tmp_path, rows), "--images", images, "--out", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["identical"] == [
        {"images": ["0.jpg", "1.jpg"], "splits": ["test", "train"], "labels": ["0", "3"], "texts": [""]}
    ]
    assert "1 groups of byte-identical images, 1 with different labels" in capsys.readouterr().out


def test_result_does_not_depend_on_workers(tmp_path, images, broken):
    arguments = ("--csv", broken, "--images", images, "--size", "48", "--max-bad", "1")
    assert run("manifest", *arguments, "--out", tmp_path / "one", "--workers", "1", "--part", "5") == 0
    assert run("manifest", *arguments, "--out", tmp_path / "two", "--workers", "2", "--part", "5") == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("shard.*.mds"))) == 3


def test_shards_are_those_of_a_single_writer(tmp_path, images):
    """The parts are joined to the tree that one MDSWriter writes."""
    assert run("manifest", "--images", images, "--out", tmp_path / "out", "--workers", "1") == 0
    with writer_of(tmp_path / "plain") as plain:
        for sample in samples(tmp_path / "out"):
            plain.write(sample)
    ours, theirs = tree(tmp_path / "out"), tree(tmp_path / "plain")
    assert {name: ours[name] for name in theirs} == theirs


def writer_of(folder):
    from streaming import MDSWriter

    return MDSWriter(columns=COLUMNS["unpaired"], out=str(folder), hashes=["xxh64"], size_limit=SHARD_BYTES)


def test_killed_run_continues_to_the_same_bytes(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(40):
        retina(900, 700, (400 + number, 350), 250).save(images / f"{number:02}.png", compress_level=0)
    arguments = ["manifest", "--images", str(images), "--size", "64", "--part", "4", "--workers", "2"]
    out, later = tmp_path / "out", tmp_path / "out.partial" / "parts" / "00003"
    command = [sys.executable, "-m", "data_prep", *arguments, "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not later.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not out.exists()
    assert 3 <= len(list(later.parent.glob("*/index.json"))) < 10
    # The workers notice the death of their parent.
    while running := _processes_of_group(process.pid):
        assert time.monotonic() < deadline, running
        time.sleep(0.05)

    assert run(*arguments, "--out", out) == 0
    assert "continuing the unfinished run" in capsys.readouterr().err
    assert run(*arguments, "--out", tmp_path / "straight", "--workers", "1") == 0
    assert tree(out) == tree(tmp_path / "straight")


def _processes_of_group(group: int) -> list[str]:
    """Processes that still run, zombies apart (a container may have nobody to reap them)."""
    running = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = file.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state != "Z":
                running.append(file.parent.name)
    return running


@pytest.fixture
def interrupted(tmp_path, images, monkeypatch):
    """A run that stops after its second part of three rows; returns its arguments."""
    finish = Ledger.finish

    def stop(self, part, outcomes):
        if part.name == "00002":
            raise KeyboardInterrupt
        finish(self, part, outcomes)

    (images / "1.jpg").rename(images / "hidden")
    csv_file = table(tmp_path, [{"image": f"{n}.jpg"} for n in range(12)])
    arguments = ("manifest", "--csv", csv_file, "--images", images, "--out", tmp_path / "out", "--part", "3")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", stop)
        assert run(*arguments) == 130
    return arguments


def test_resuming_does_only_what_is_missing(tmp_path, images, interrupted, monkeypatch):
    done = []
    finish = Ledger.finish
    monkeypatch.setattr(Ledger, "finish", lambda self, part, found: (done.append(part.name), finish(self, part, found)))
    (images / "hidden").rename(images / "1.jpg")  # the missing file has turned up
    assert run(*interrupted) == 0
    assert done == ["00000", "00002", "00003"]
    assert len(samples(tmp_path / "out")) == 12


def test_parts_of_another_plan_are_not_taken_over(tmp_path, images, interrupted, monkeypatch):
    assert run(*interrupted, "--size", "40", "--max-bad", "1") == 0
    assert {min(s["width"], s["height"]) for s in samples(tmp_path / "out")} == {40}


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no second file system")
def test_work_on_another_file_system(tmp_path, images):
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        options = ("--images", images, "--out", tmp_path / "out", "--work", Path(folder) / "work")
        assert run("manifest", *options) == 0
        assert run("manifest", *options, "--overwrite", "--size", "40") == 0
    assert run("manifest", "--images", images, "--out", tmp_path / "plain", "--size", "40") == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out", "plain"]


def test_two_runs_do_not_share_a_work_folder(tmp_path, images, capsys):
    place = writer.Workplace(str(tmp_path / "out"), None)
    place.open()
    assert run("manifest", "--images", images, "--out", tmp_path / "out") == 2
    assert "another run is working there" in capsys.readouterr().err
    place.close()
    assert run("manifest", "--images", images, "--out", tmp_path / "out") == 0


def test_full_folders_are_protected(tmp_path, images, capsys):
    out = tmp_path / "out"
    out.mkdir()
    assert run("manifest", "--images", images, "--out", out) == 0
    before = tree(out)
    assert run("manifest", "--images", images, "--out", out, "--size", "40") == 2
    assert "is not empty" in capsys.readouterr().err
    assert tree(out) == before
    assert run("manifest", "--images", images, "--out", out, "--size", "40", "--overwrite") == 0
    assert {min(s["width"], s["height"]) for s in samples(out)} == {40}
    # A folder that this program did not write is not replaced even then.
    assert run("manifest", "--images", images, "--out", images, "--overwrite") == 2
    assert "no earlier result" in capsys.readouterr().err
    assert len(tree(images)) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "o"], "give --csv FILE, --images ROOT"),
        (["--out", "o", "--images", "nowhere"], r"image root (--images) nowhere: no such folder"),
        (["--out", "o", "--csv", "nowhere.csv"], "--csv nowhere.csv: no such file"),
        (["--out", "o", "--images", "images", "--max-bad", "2"], "--max-bad 2.0"),
        (["--out", "o", "--images", "images", "--workers", "0"], "--workers 0"),
        (["--out", "o", "--images", "images", "--part", "0"], "--part 0"),
        (["--out", "o", "--images", "images", "--size", "3"], "--size 3"),
    ],
)
def test_wrong_options_end_with_status_2(tmp_path, images, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run("manifest", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_help_names_every_option_and_stays_light():
    code = "import sys; sys.argv = ['x', 'manifest', '--help']\n"
    code += "import runpy, contextlib\n"
    code += "with contextlib.suppress(SystemExit): runpy.run_module('data_prep', run_name='__main__')\n"
    code += "print('heavy:', sorted({'torch', 'streaming', 'composer', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout
    for option in ("--csv", "--label-from-text", "--max-bad", "--overwrite", "--no-crop", "Exit status"):
        assert option in done.stdout


@pytest.mark.filterwarnings("ignore")
def test_upload_to_s3_and_back(tmp_path, images, bucket, capsys):
    arguments = ("manifest", "--images", images, "--part", "5", "--work", tmp_path / "work")
    assert run(*arguments, "--out", "s3://shards/a/b") == 0
    assert run(*arguments, "--out", tmp_path / "local") == 0
    keys = [entry["Key"] for entry in bucket.list_objects_v2(Bucket="shards")["Contents"]]
    read = {key.removeprefix("a/b/"): bucket.get_object(Bucket="shards", Key=key)["Body"].read() for key in keys}
    assert read == tree(tmp_path / "local")
    assert not (tmp_path / "work").exists()
    clean_stale_shared_memory()
    dataset = StreamingDataset(remote="s3://shards/a/b", local=str(tmp_path / "cache"), batch_size=1, shuffle=False)
    assert [dataset[n]["sha256"] for n in range(12)] == [s["sha256"] for s in samples(tmp_path / "local")]

    assert run(*arguments, "--out", "s3://shards/a/b") == 2
    assert "holds objects already" in capsys.readouterr().err
    assert run(*arguments, "--out", "s3://none/a") == 2
    assert "cannot be reached" in capsys.readouterr().err
    # A prefix that only begins alike is another one.
    assert run(*arguments, "--out", "s3://shards/a/b2") == 0
