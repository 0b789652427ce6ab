import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop, v2

from maskedclip_composer.data.transforms import crop_box, decode, eval_transform, random_view, resize
from maskedclip_composer.errors import UserError
from tests.data.conftest import jpeg


def assert_same_to_rounding(found: torch.Tensor, expected: Image.Image | torch.Tensor) -> None:
    """At most one grey level apart, two in fewer than one pixel of 10,000."""
    reference = (
        expected if isinstance(expected, torch.Tensor) else torch.from_numpy(np.array(expected)).permute(2, 0, 1)
    )
    assert found.shape == reference.shape
    difference = (found.int() - reference.int()).abs()
    assert difference.max() <= 2
    assert (difference > 1).float().mean() < 1e-4
    assert difference.float().mean() < 0.01


def encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


PHOTO = Image.open(io.BytesIO(jpeg(0, 301, 263)))


@pytest.mark.parametrize(
    "data",
    [
        encode(PHOTO, "JPEG", quality=90),
        encode(PHOTO, "JPEG", quality=95, subsampling=0, progressive=True),
        encode(PHOTO.convert("L"), "JPEG"),
        encode(PHOTO, "PNG"),
        encode(PHOTO.convert("RGBA"), "PNG"),
        encode(PHOTO.convert("P"), "PNG"),
    ],
    ids=["jpeg", "progressive", "grey", "png", "rgba", "palette"],
)
def test_decodes_every_form_exactly_as_pil_does(data):
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        jpeg(0)[:200],
        jpeg(0)[:-100],
        encode(PHOTO, "PNG")[:-2000],
        encode(Image.fromarray(np.full((8, 8), 40_000, np.uint16)), "PNG"),
    ],
    ids=["empty", "words", "jpeg header", "jpeg cut", "png cut", "16 bit"],
)
def test_an_unreadable_image_is_an_error_that_names_it(data):
    with pytest.raises(UserError, match=r"MESSIDOR: 7\.png.*cannot be decoded"):
        decode(data, name="MESSIDOR: 7.png")


@pytest.mark.parametrize("size", [(224, 224), (97, 160), (400, 300)], ids=["down", "odd", "up"])
def test_resize_is_pils_to_rounding(size):
    expected = PHOTO.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    assert_same_to_rounding(resize(np.asarray(PHOTO), *size), expected)


def test_random_view_is_pils_crop_resize_and_flip_of_the_drawn_box():
    pixels = np.asarray(PHOTO)
    top, left, height, width = crop_box(*pixels.shape[:2], 0.2, np.random.default_rng(5))
    crop = PHOTO.crop((left, top, left + width, top + height)).resize((64, 64), Image.Resampling.BICUBIC)
    for flip, expected in ((0.0, crop), (1.0, crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
        view = random_view(pixels, 64, min_crop=0.2, flip=flip, rng=np.random.default_rng(5))
        assert view.dtype == torch.uint8
        assert view.is_contiguous()
        assert_same_to_rounding(view, expected)


def test_flip_is_drawn_with_its_probability():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 255  # bright on the right
    rng = np.random.default_rng(0)
    flipped = sum(int(random_view(pixels, 8, min_crop=1.0, flip=0.25, rng=rng)[0, 4, 0] > 127) for _ in range(1000))
    # min_crop 1 leaves only the whole image or, by the ratio, its fall-back; both keep the right half bright.
    assert 200 < flipped < 300  # 250 +- 3.6 standard deviations


@pytest.mark.parametrize("shape", [(263, 301), (512, 512)])
def test_boxes_follow_the_distribution_of_torchvision(shape):
    rng = np.random.default_rng(1)
    ours = np.array([crop_box(*shape, 0.2, rng) for _ in range(4000)])
    torch.manual_seed(1)
    image = torch.empty(3, *shape)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    for column in range(4):
        quantiles = np.linspace(0.05, 0.95, 19)
        difference = np.quantile(ours[:, column], quantiles) - np.quantile(theirs[:, column], quantiles)
        assert np.abs(difference).max() < 0.05 * max(shape)


@pytest.mark.parametrize("shape", [(10, 400), (400, 10)])
def test_an_elongated_image_falls_back_to_the_largest_centre_crop(shape):
    top, left, height, width = crop_box(*shape, 1.0, np.random.default_rng(0))
    assert min(height, width) == 10
    assert math.isclose(max(height, width) / 10, 4 / 3, abs_tol=0.05)
    assert abs(2 * top + height - shape[0]) <= 1
    assert abs(2 * left + width - shape[1]) <= 1


@pytest.mark.parametrize("shape", [(263, 301), (301, 263), (224, 224)])
def test_eval_transform_is_torchvisions_resize_and_centre_crop_to_rounding(shape):
    photo = PHOTO.resize((shape[1], shape[0]))
    data = encode(photo, "PNG")
    reference = v2.Compose([v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor()])(photo)
    found = eval_transform(data, 224)
    assert found.dtype == torch.uint8
    assert_same_to_rounding(found, reference)
    assert torch.equal(found, eval_transform(np.asarray(photo), 224))


def test_eval_transform_names_an_unreadable_image():
    with pytest.raises(UserError, match=r"APTOS: 1\.png"):
        eval_transform(b"nothing", 224, name="APTOS: 1.png")


def test_a_full_machine_is_no_bad_photograph(monkeypatch):
    def fill(*_, **__):
        raise MemoryError

    monkeypatch.setattr("maskedclip_composer.data.transforms.simplejpeg.decode_jpeg", fill)
    with pytest.raises(MemoryError):
        decode(jpeg(0, 30, 30))
