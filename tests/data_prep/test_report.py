"""`manifest.parquet` and `report.json` of a conversion, against what was put in."""

import hashlib
import io
import json

import pyarrow.parquet
import pytest
from PIL import Image

from maskedclip_composer.data.records import SCHEMA
from tests.data_prep.drawing import run, samples, save_retinas, write_csv


@pytest.fixture
def converted(tmp_path):
    """Eight photographs in two splits; number 5 is broken, number 0 is named twice."""
    images = tmp_path / "images"
    save_retinas(images, 8)
    (images / "5.jpg").write_bytes(b"\xff\xd8\xff broken")
    rows = [
        {
            "image": f"{n}.jpg",
            "text": f"text {n}",
            "label": f"class {n % 2}",
            "patient": f"p{n // 2}",
            "eye": "left",
            "visit": "2",
            "split": "train" if n % 3 else "test",
            "licence": "CC0" if n else "",
        }
        for n in (*range(8), 0)
    ]
    options = ("--images", images, "--licence", "CC BY 4.0", "--size", "48", "--max-bad", "1", "--part", "3")
    out = tmp_path / "out"
    assert run("manifest", "--csv", write_csv(tmp_path / "t.csv", rows), *options, "--out", out) == 0
    return images, out


def test_manifest_says_what_became_of_every_row(converted):
    images, out = converted
    table = pyarrow.parquet.read_table(out / "manifest.parquet")
    assert table.schema.equals(SCHEMA)
    records = table.to_pylist()
    assert sorted((r["row"], r["status"]) for r in records) == [
        (2, "stored"), (3, "stored"), (4, "stored"), (5, "stored"), (6, "stored"), (7, "quarantined"),
        (8, "stored"), (9, "stored"), (10, "quarantined"),
    ]  # fmt: skip
    reasons = {r["row"]: r["reason"] for r in records if r["reason"]}
    assert reasons[10].startswith("repeats the image of row 2")
    assert "cannot be" in reasons[7] or "not an image" in reasons[7]
    for record in records:
        if record["status"] != "stored":
            assert record["position"] == -1
            continue
        sample = samples(out / record["folder"])[record["position"]]
        assert sample["source"] == record["image"]
        assert (
            sample["sha256"] == record["sha256"] == hashlib.sha256((images / record["image"]).read_bytes()).hexdigest()
        )
        assert (sample["texts"], sample["labels"]) == (record["texts"], record["text_categories"])
        assert sample["text_kinds"] == record["text_kinds"] == ["sentence"]
        assert Image.open(io.BytesIO(sample["image"])).size == (record["width"], record["height"])
        assert Image.open(images / record["image"]).size == (record["original_width"], record["original_height"])
        assert sample["crop"] == {"status": record["crop_status"], "box": record["crop_box"]}
        assert (record["bytes"], record["visit"], record["eye"]) == (len(sample["image"]), "2", "left")
        assert record["licence"] == ("CC0" if record["image"] != "0.jpg" else "CC BY 4.0")
        assert len(record["phash"]) == 32
        assert 0 < record["brightness"] < 1
        assert record["folder"] == record["split"]


def test_report_counts_the_manifest(converted):
    _, out = converted
    report = json.loads((out / "report.json").read_bytes())
    records = pyarrow.parquet.read_table(out / "manifest.parquet").to_pylist()
    stored = [r for r in records if r["status"] == "stored"]
    assert (report["rows"], report["stored"], report["quarantined"]) == (9, len(stored), 2)
    assert report["bytes"] == sum(r["bytes"] for r in stored)
    assert report["licences"] == {"CC0": 6, "CC BY 4.0": 1}
    assert report["patients"] == len({r["patient"] for r in stored})
    assert report["splits"]["test"] == {"stored": 3, "labels": {"class 0": 2, "class 1": 1}}
    assert sum(report["reasons"].values()) == 2
    assert report["texts"] == report["distinct_texts"] == 7
