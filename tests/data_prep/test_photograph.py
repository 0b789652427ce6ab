import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from data_prep.photograph import Photograph, prepare
from maskedclip_composer.data.metadata import strip_metadata
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError
from tests.data_prep.drawing import retina

KEEP = Recipe(size=0, crop=False)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def saved(tmp_path, image, name="a.jpg", **options):
    path = tmp_path / name
    image.save(path, **options)
    return str(path)


def exif(tags=()):
    data = Image.Exif()
    data[0x010E] = "Jane Doe"  # ImageDescription
    data.update(tags)
    return data


def test_untouched_jpeg_is_stored_byte_for_byte(tmp_path):
    path = saved(tmp_path, retina(), quality=88)
    with open(path, "rb") as file:
        original = file.read()
    result = prepare(path, KEEP)
    assert result.data == original
    assert result.verbatim
    assert result.sha256 == hashlib.sha256(original).hexdigest()
    assert (result.width, result.height) == (160, 120)


def test_metadata_goes_and_pixels_stay(tmp_path):
    image = retina()
    path = saved(tmp_path, image, quality=88, exif=exif(), comment=b"Jane Doe", icc_profile=b"Jane Doe" * 20)
    with open(path, "ab") as file:
        file.write(b"appended: Jane Doe")
    with open(path, "rb") as file:
        original = file.read()
    result = prepare(path, KEEP)
    assert result.verbatim
    assert b"Jane Doe" in original
    assert b"Jane Doe" not in result.data
    np.testing.assert_array_equal(pixels(result.data), pixels(original))
    image.save(tmp_path / "plain.jpg", quality=88)
    assert result.data == (tmp_path / "plain.jpg").read_bytes()


@pytest.mark.parametrize("options", [{"restart_marker_rows": 1}, {"subsampling": "4:4:4"}, {"optimize": True}])
def test_stripping_understands_other_encoders(options):
    buffer = io.BytesIO()
    retina().save(buffer, "JPEG", **options)
    assert strip_metadata(buffer.getvalue()) == buffer.getvalue()


def test_stripping_gives_up_on_what_it_cannot_parse():
    buffer = io.BytesIO()
    retina().save(buffer, "JPEG")
    assert strip_metadata(buffer.getvalue()[:-2]) is None
    assert strip_metadata(b"\x89PNG\r\n") is None
    assert strip_metadata(b"\xff\xd8" + b"\x00" * 20) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_then_removed(tmp_path, orientation):
    image = Image.new("RGB", (64, 48))
    image.paste((250, 0, 0), (0, 0, 32, 24))
    image.paste((0, 250, 0), (32, 0, 64, 24))
    # How a viewer shows each orientation (EXIF 2.3, table 4.6.4): the transposition that makes the file upright.
    upright = {
        1: image,
        2: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: image.rotate(180),
        4: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: image.transpose(Image.Transpose.TRANSPOSE),
        6: image.rotate(-90, expand=True),
        7: image.transpose(Image.Transpose.TRANSVERSE),
        8: image.rotate(90, expand=True),
    }[orientation]
    path = saved(tmp_path, image, quality=95, exif=exif(tags={0x0112: orientation}))
    result = prepare(path, KEEP)
    assert not Image.open(io.BytesIO(result.data)).getexif()
    # Two rounds of JPEG blur the hard edges by 3 levels; any other orientation is 83 or more away.
    assert np.abs(pixels(result.data) - np.asarray(upright).astype(int)).mean() < 10
    assert (result.width, result.height) == upright.size
    assert result.verbatim == (orientation == 1)


def test_crop_then_short_side(tmp_path):
    path = saved(tmp_path, retina(900, 600, (420, 310), 200), quality=95, exif=exif(), comment=b"Jane Doe")
    result = prepare(path, Recipe(size=128))
    assert result.crop.status == "cropped"
    np.testing.assert_allclose(result.crop.box, (220, 110, 621, 511), atol=5)
    assert min(result.width, result.height) == 128
    stored = Image.open(io.BytesIO(result.data))
    assert stored.size == (result.width, result.height)
    assert "progressive" not in stored.info
    assert stored.layer[0][1:3] == (2, 2)  # 4:2:0
    assert b"Jane Doe" not in result.data


def test_small_photographs_are_never_enlarged(tmp_path):
    path = saved(tmp_path, retina(160, 120, radius=59))
    result = prepare(path, Recipe(size=512, crop=False))
    assert (result.width, result.height, result.verbatim) == (160, 120, True)


def test_reduction_is_antialiased(tmp_path):
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 200
    result = prepare(saved(tmp_path, Image.fromarray(stripes), "a.png"), Recipe(size=64, crop=False))
    assert np.abs(pixels(result.data)[4:-4, 4:-4] - 100).max() < 12


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_other_pixel_modes_become_rgb(tmp_path, mode):
    name = "a.tif" if mode == "CMYK" else "a.png"
    result = prepare(saved(tmp_path, retina().convert(mode), name), KEEP)
    assert isinstance(result, Photograph)
    stored = Image.open(io.BytesIO(result.data))
    assert (stored.format, stored.mode) == ("JPEG", "RGB")


def test_progressive_files_are_encoded_again(tmp_path):
    result = prepare(saved(tmp_path, retina(), progressive=True, quality=95), KEEP)
    assert not result.verbatim
    assert "progressive" not in Image.open(io.BytesIO(result.data)).info


def test_unusable_files_are_given_a_reason(tmp_path, monkeypatch):
    whole = saved(tmp_path, retina(), "whole.jpg")
    with open(whole, "rb") as file:
        data = file.read()
    files = {"cut.jpg": data[: len(data) // 2], "empty.jpg": b"", "text.jpg": b"not an image at all"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    deep = Image.fromarray(np.full((40, 40), 30_000, np.uint16))
    deep.save(tmp_path / "deep.png")
    png = io.BytesIO()
    retina().save(png, "PNG")
    (tmp_path / "cut.png").write_bytes(png.getvalue()[:200])
    reasons = {
        "cut.jpg": "truncated",
        "cut.png": "cannot be decoded",
        "empty.jpg": "empty file",
        "text.jpg": "not an image",
        "none.jpg": "no such file",
        "deep.png": "pixel mode I;16",
    }
    for name, reason in reasons.items():
        assert reason in prepare(str(tmp_path / name), KEEP), name
    assert "cannot be read" in prepare(str(tmp_path), KEEP)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 160 * 120 - 1)  # PIL itself would only warn here
    assert prepare(whole, KEEP) == f"more than {160 * 120 - 1} pixels"


@pytest.mark.parametrize("options", [{"size": 5}, {"size": -1}, {"quality": 20}, {"quality": 101}])
def test_recipe_refuses_senseless_values(options):
    with pytest.raises(UserError, match="--" + next(iter(options))):
        Recipe(**options)
