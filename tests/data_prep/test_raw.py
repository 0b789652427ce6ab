"""Photographs that are stored as plain pixels: from a manifest to a batch, and every command that opens them."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from streaming import MDSWriter
from streaming.base.util import clean_stale_shared_memory

from data_prep.build_config import BuildConfig, SetConfig
from data_prep.photograph import prepare
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.loader import build_loader
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.data.pixels import is_pixels
from maskedclip_composer.data.schema import COLUMNS
from maskedclip_composer.data.transforms import decode
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.data import load_labelled
from maskedclip_composer.evaluation.decoded import decode_all
from tests.data_prep.drawing import retina, run, samples, save_retinas, tree, write_csv


@pytest.fixture
def images(tmp_path):
    save_retinas(tmp_path / "images", 8)
    return tmp_path / "images"


def convert(images, out, *options):
    assert run("manifest", "--images", images, "--out", out, "--workers", "1", *options) == 0
    return out


def test_the_pixels_are_those_of_the_jpeg_that_is_kept_otherwise(images, tmp_path):
    keep = ("--size", "0", "--no-crop")
    raw = samples(convert(images, tmp_path / "raw", *keep, "--encoding", "raw"))
    coded = samples(convert(images, tmp_path / "jpeg", *keep))
    assert len(raw) == len(coded) == 8
    for mine, theirs in zip(raw, coded, strict=True):
        assert is_pixels(mine["image"])
        np.testing.assert_array_equal(decode(mine["image"]), decode(theirs["image"]))
        assert {**mine, "image": b""} == {**theirs, "image": b""}


def test_what_is_resized_is_not_compressed_afterwards(tmp_path):
    retina(400, 400, radius=150).save(tmp_path / "a.png")
    result = prepare(str(tmp_path / "a.png"), Recipe(size=128, crop=False, encoding="raw"))
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.resize((128, 128), Image.Resampling.LANCZOS, reducing_gap=2.0))
    np.testing.assert_array_equal(decode(result.data), expected)
    assert (result.width, result.height, result.verbatim) == (128, 128, False)


def test_a_manifest_becomes_batches_of_the_same_pixels(images, tmp_path):
    batches = []
    for encoding in ("raw", "jpeg"):
        out = convert(images, tmp_path / encoding, "--size", "0", "--no-crop", "--encoding", encoding)
        clean_stale_shared_memory()
        stream = StreamConfig(remote=str(out), batch_size=4)
        config = DataConfig(unpaired=stream, image_size=32, num_workers=0)
        loader = build_loader(config, tokenizer=None, grid=(2, 2), seed=0).dataloader
        batches.append([batch["unpaired"]["image"] for batch in loader])
    assert len(batches[0]) == 2
    assert all(torch.equal(raw, coded) for raw, coded in zip(*batches, strict=True))


def test_evaluation_and_the_commands_read_them(images, tmp_path, capsys):
    rows = [
        {"image": f"{n}.jpg", "label": str(n % 2), "split": ("train", "val", "test")[n % 3], "patient": f"p{n}"}
        for n in range(8)
    ]
    table = write_csv(tmp_path / "t.csv", rows)
    out = convert(images, tmp_path / "out", "--csv", table, "--size", "64", "--encoding", "raw")
    decoded = decode_all(load_labelled(str(out)), memory=1.0, workers=1)
    assert sum(len(split.kept) for split in decoded.values()) == 8
    assert run("check", out, "--decode") == 0
    with Image.open(out / "contact_sheet.jpg") as sheet:
        # The middle of each of eight photographs is a retina, red.
        middles = np.asarray(sheet.convert("RGB")).astype(int)[80, 80::160]
    assert (middles[:, 0] > middles[:, 2] + 40).sum() == 8
    assert json.loads((out / "report.json").read_bytes())["options"] == {"size": 64, "crop": True, "encoding": "raw"}
    assert "| encoding | raw |" in (out / "DATA_CARD.md").read_text()
    coded = convert(images, tmp_path / "coded", "--csv", table, "--size", "64")
    capsys.readouterr()
    assert run("overlap", out, coded, "--out", tmp_path / "overlap") == 1
    page = (tmp_path / "overlap" / "overlap.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "shards damaged" not in page


def test_check_names_a_record_whose_pixels_are_not_all_there(images, tmp_path, capsys):
    out = convert(images, tmp_path / "out", "--encoding", "raw", "--no-crop")
    records = samples(out)
    records[3]["image"] = records[3]["image"][:-7]
    with MDSWriter(out=str(tmp_path / "new"), columns=COLUMNS["unpaired"], hashes=["xxh64"]) as writer:
        for record in records:
            writer.write(record)
    shutil.copytree(tmp_path / "new", out, dirs_exist_ok=True)
    assert run("check", out, "--decode") == 1
    assert "record 3: cannot be decoded: holds 57593 bytes of pixels, its header says 57600" in capsys.readouterr().err


def test_a_quality_with_pixels_is_refused_and_a_build_takes_the_option(tmp_path):
    with pytest.raises(UserError, match="--quality 80: --encoding raw"):
        Recipe(quality=80, encoding="raw")
    with pytest.raises(UserError, match="--encoding npy: give jpeg or raw"):
        Recipe(encoding="npy")  # pyright: ignore[reportArgumentType]
    config = BuildConfig(out=str(tmp_path), unpaired={"hrf": SetConfig()}, encoding="raw")
    assert config.recipe(crop=False) == Recipe(crop=False, encoding="raw")
    assert config.settings()["encoding"] == "raw"
    assert "quality" not in config.settings()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="pyspark (pip install .[spark]) or Java is not installed",
)
def test_spark_stores_the_same_pixels(images, tmp_path):
    options = ("--size", "48", "--encoding", "raw")
    local = convert(images, tmp_path / "local", *options)
    assert run("manifest", "--images", images, "--out", tmp_path / "spark", "--spark", "local[1]", *options) == 0
    assert samples(tmp_path / "spark") == samples(local)
    assert all(is_pixels(sample["image"]) for sample in samples(local))
    assert tree(tmp_path / "spark")["report.json"] == tree(local)["report.json"]
