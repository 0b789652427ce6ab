import io

import pytest
import torch
from PIL import Image

from data_prep.photograph import prepare
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.data.transforms import eval_transform
from maskedclip_composer.errors import UserError
from maskedclip_composer.use.transform import PhotographTransform
from tests.data_prep.drawing import retina

RECIPE = Recipe(size=64)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_a_file_becomes_what_its_record_becomes(tmp_path, suffix):
    """The crop, the size and the JPEG of the shards, and the view of evaluation: bit by bit."""
    path = tmp_path / f"eye.{suffix}"
    retina(200, 160).save(path)
    transform = PhotographTransform(RECIPE, 32)
    record = prepare(str(path), RECIPE)
    assert not isinstance(record, str)
    assert record.crop.status == "cropped"
    expected = eval_transform(record.data, 32)
    assert torch.equal(transform(path), expected)
    assert torch.equal(transform(path.read_bytes()), expected)
    assert torch.equal(transform.of_record(record.data), expected)


def test_an_opened_image_is_taken_too(tmp_path):
    path = tmp_path / "eye.png"
    retina(200, 160).save(path)
    transform = PhotographTransform(RECIPE, 32)
    with Image.open(path) as image:
        assert torch.equal(transform(image), transform(path))


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_an_opened_photograph_that_lies_on_its_side_is_the_file(tmp_path, mode):
    path = tmp_path / "eye.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6
    retina(200, 160).convert(mode).save(path, exif=turned)
    transform = PhotographTransform(RECIPE, 32)
    with Image.open(path) as image:
        assert torch.equal(transform(image), transform(path))


def test_an_opened_image_of_more_bits_is_refused(tmp_path):
    with pytest.raises(UserError, match="pixel mode F"):
        PhotographTransform(RECIPE, 32)(retina(200, 160).convert("F"))


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "broken.jpg"
    buffer = io.BytesIO()
    retina(200, 160).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:400])
    transform = PhotographTransform(RECIPE, 32)
    with pytest.raises(UserError, match=r"broken\.jpg: cannot be decoded"):
        transform(path)
    with pytest.raises(UserError, match="no such file"):
        transform(tmp_path / "absent.jpg")
    with pytest.raises(UserError, match="the photograph: "):
        transform(b"no image")
