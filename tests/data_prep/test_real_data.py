"""The photographs below FUNDUS_DATA: ODIR-5K and IDRiD as released, several cameras, original files."""

import csv
import json
import os
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import data_prep
from data_prep.fingerprint import NEAR, distances
from data_prep.photograph import Photograph, prepare
from data_prep.quality import assess
from data_prep.readers.catalogue import DATASETS
from data_prep.readers.dataset import Division
from data_prep.readers.division import divide
from data_prep.readers.odir_labels import ODIR_LABELS, odir_labels
from data_prep.readers.pretraining_paired import UNUSABLE, split_keywords
from data_prep.readers.read import read
from maskedclip_composer.data.folders import walk_images
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.retina import find_retina
from maskedclip_composer.data.tables import read_table
from tests.data_prep.drawing import run, samples

SPLITS = Path(data_prep.__file__).parent / "splits"

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def root():
    folder = os.environ.get("FUNDUS_DATA")
    if not folder:
        pytest.skip("FUNDUS_DATA does not name the folder of photographs")
    return Path(folder).resolve()


def test_odir_rows(root):
    reading = read(DATASETS["odir5k"], root / "paired_odir")
    assert len(reading.rows) == 1282
    assert Counter(reason for _, reason in reading.left_out) == {"is not on disk": 66}
    assert any("missing: 66 photographs" in note and "odir2019" in note for note in reading.notes)
    assert len({row.patient for row in reading.rows}) == 674
    keywords = {keyword for row in reading.rows for keyword in row.texts}
    assert not keywords & UNUSABLE
    assert "hypertensive retinopathy" in keywords
    labels = Counter(label for row in reading.rows for label in row.labels)
    assert set(labels) <= set(read_pack("retina-en").categories)
    assert labels["epiretinal membrane"] > 50 < labels["mild non-proliferative diabetic retinopathy"]


def test_labels_of_both_eyes_are_those_of_the_patient_in_the_sheet(root):
    """The sheet's N to O are of the patient: what is made of each eye's keywords must add up to them."""
    (sheet,) = (root / "paired_odir").glob("*.xlsx")
    unlike = {}
    for cells in read_table(sheet).rows:
        eyes = [odir_labels(_about_retina(cells[f"{eye}-Diagnostic Keywords"])) for eye in ("Left", "Right")]
        of_both = {label for labels in eyes for label in labels}
        expected = {label for label in ODIR_LABELS if int(cells[label])}
        # Normal is who has no disease in either eye.
        if (of_both if of_both == {"N"} else of_both - {"N"}) != expected:
            unlike[cells["ID"]] = (eyes, expected)
    assert unlike == {}


def _about_retina(cell):
    return [keyword for keyword in split_keywords(cell) if keyword not in UNUSABLE]


def test_odir_labels_of_eyes(root):
    reading = read(DATASETS["odir5k"], root / "paired_odir", kind="multilabel")
    assert len(reading.rows) == len({row.image for row in reading.rows}) == 1282
    counts = Counter(label for labels in reading.labels for label in labels)
    assert set(counts) == set(ODIR_LABELS)
    assert all(labels == ("N",) or (labels and "N" not in labels) for labels in reading.labels)
    divided = divide(reading, root / "paired_odir", Division(), 17)
    parts = defaultdict(set)
    for row in divided.rows:
        parts[row.patient].add(row.split)
    assert all(len(splits) == 1 for splits in parts.values())
    for label, number in counts.items():
        test = sum(
            label in labels for row, labels in zip(divided.rows, divided.labels, strict=True) if row.split == "test"
        )
        assert abs(test - 0.3 * number) <= max(6, 0.04 * number)


def test_idrid_rows(root, tmp_path, capsys):
    arguments = ("--root", root / "downstream_idrid", "--manifest", tmp_path / "m.csv")
    assert run("prepare", "idrid", *arguments) == 0
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["split"] for row in rows) == {"train": 330, "val": 82, "test": 103}
    labels = Counter(row["label"] for row in rows if row["split"] != "test")
    assert labels == {"0": 133, "1": 20, "2": 136, "3": 74, "4": 49}
    out = capsys.readouterr().out
    assert out.count("byte-identical:") == 6
    assert out.count(", different ") == 4
    assert "a. Training Set/IDRiD_118.jpg (0) = b. Testing Set/IDRiD_064.jpg (3), different labels" in out
    assert "IDRiD_118.jpg" in (tmp_path / "m.left_out.csv").read_text()


def test_idrid_becomes_shards(root, tmp_path):
    arguments = ("--root", root / "downstream_idrid", "--target", "dme", "--out", tmp_path / "out", "--size", "64")
    assert run("prepare", "idrid", *arguments) == 0
    assert [len(samples(tmp_path / "out" / split)) for split in ("train", "val", "test")] == [330, 82, 103]


@pytest.mark.parametrize("target", ["grade", "dme"])
def test_the_index_of_idrid_is_drawn_again(root, tmp_path, target):
    options = ("--root", root / "downstream_idrid", "--target", target)
    assert run("split", "idrid", *options, "--out", tmp_path) == 0
    for suffix in ("csv", "json"):
        name = f"idrid-{target}.{suffix}"
        assert (tmp_path / name).read_bytes() == (SPLITS / name).read_bytes()
    assert run("prepare", "idrid", *options, "--manifest", tmp_path / "drawn.csv") == 0
    index = ("--split-file", SPLITS / f"idrid-{target}.csv")
    assert run("prepare", "idrid", *options, *index, "--manifest", tmp_path / "index.csv") == 0
    assert (tmp_path / "drawn.csv").read_bytes() == (tmp_path / "index.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "folder", "count", "labels"),
    [
        ("hrf", "hrf", 45, {"dr": 15, "g": 15, "h": 15}),
        ("chase-db1", "chase_db1", 28, {"": 28}),
        ("les-av", "les_av", 22, {"": 22}),
    ],
)
def test_rows_of_three_cameras(root, name, folder, count, labels):
    reading = read(DATASETS[name], root / "unpaired" / folder)
    assert len(reading.rows) == count
    assert Counter(reading.codes) == labels
    assert reading.left_out == reading.notes == []
    if name == "chase-db1":
        assert Counter(row.eye for row in reading.rows) == {"left": 14, "right": 14}
        assert len({row.patient for row in reading.rows}) == 14


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


def hashed(path):
    found = prepare(str(path), Recipe(size=256))
    assert isinstance(found, Photograph)
    return np.frombuffer(found.phash, np.uint8)


def test_copies_at_256_pixels_are_near_their_originals_and_no_other(root):
    """The small folders hold other people's copies of the originals: resized, encoded again, some without border."""
    originals = sorted((root / "prep_samples").rglob("*.[jp][pn]g"))
    others = [root / name for name in walk_images(root) if not name.startswith("prep_samples/")]
    copies = [next(path for path in others if path.stem == original.stem) for original in originals]
    assert len(originals) == 22
    table = np.stack([hashed(path) for path in copies])
    for place, original in enumerate(originals):
        found = distances(table, hashed(original))
        assert found[place] <= NEAR < np.delete(found, place).min()


def test_a_real_photograph_loses_sharpness_when_it_is_blurred(root):
    folder = root / "unpaired" / "hrf"
    for name in list(walk_images(folder))[::6]:
        image = Image.open(folder / name).convert("RGB")
        scores = [assess(image.filter(ImageFilter.GaussianBlur(radius))).sharpness for radius in (0, 1, 2, 4)]
        assert all(after < before for before, after in pairwise(scores))
        assert scores[1] < 0.7 * scores[0]
