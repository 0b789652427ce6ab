"""The photographs below FUNDUS_DATA: ODIR-5K and IDRiD as released, several cameras, original files."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.crop import find_retina
from data_prep.folders import walk_images
from data_prep.readers import idrid, odir5k
from tests.data_prep.drawing import run, samples

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def root():
    folder = os.environ.get("FUNDUS_DATA")
    if not folder:
        pytest.skip("FUNDUS_DATA does not name the folder of photographs")
    return Path(folder)


def test_odir_rows(root):
    reading = odir5k.read(root / "paired_odir")
    assert len(reading.rows) == 1282
    assert Counter(reason for _, reason in reading.left_out) == {"image is not on disk": 66}
    assert len({row["patient"] for row in reading.rows}) == 674
    keywords = {keyword for row in reading.rows for keyword in row["text"].split(odir5k.SEPARATOR)}
    assert not keywords & odir5k.UNUSABLE
    assert "hypertensive retinopathy" in keywords


def test_idrid_rows(root):
    reading = idrid.read(root / "downstream_idrid")
    assert Counter(row["split"] for row in reading.rows) == {"train": 330, "val": 82, "test": 103}
    assert [Path(image).name for image, _ in reading.left_out] == ["IDRiD_118.jpg"]
    assert len(reading.notes) == 6
    labels = Counter(row["label"] for row in reading.rows if row["split"] != "test")
    assert labels == {"0": 133, "1": 20, "2": 136, "3": 74, "4": 49}


def test_original_files(root, tmp_path):
    assert run("manifest", "--images", root / "prep_samples", "--out", tmp_path / "out", "--size", "128") == 0
    by_set: dict[str, set] = {}
    for sample in samples(tmp_path / "out"):
        by_set.setdefault(sample["dataset"], set()).add(sample["crop"]["status"])
        left, top, right, bottom = sample["crop"]["box"]
        # A retina is a disc, or one that is cut off above and below.
        assert 0.7 < (right - left) / (bottom - top) < 1.45
        assert b"Exif" not in sample["image"]
    assert by_set.pop("odir_512") == {"cropped", "full"}
    assert set(by_set) == {"idrid_original", "hrf_original", "chase_db1_original", "les_av_original"}
    assert all(statuses == {"cropped"} for statuses in by_set.values())
    assert json.loads((tmp_path / "out" / "report.json").read_bytes())["quarantined"] == 0


def test_both_eyes_of_a_camera_are_cropped_alike(root):
    """HRF's field is the same in all 45 photographs."""
    folder = root / "unpaired" / "hrf"
    boxes = np.array([find_retina(Image.open(folder / name).convert("RGB")).box for name in walk_images(folder)])
    assert len(boxes) == 45
    assert np.ptp(boxes, axis=0).max() <= 6
