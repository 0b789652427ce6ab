import io

import numpy as np
import pytest
import torch

from maskedclip_composer.data.pixels import encode_pixels, is_pixels, read_pixels
from maskedclip_composer.data.transforms import decode, eval_transform, random_view
from maskedclip_composer.errors import UserError
from tests.data.conftest import jpeg

IMAGE = decode(jpeg(0, 31, 23))


def saved(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_pixels_come_back_without_a_copy_and_numpy_reads_them_too():
    data = encode_pixels(IMAGE)
    assert is_pixels(data)
    assert not is_pixels(jpeg(0))
    found = read_pixels(data)
    np.testing.assert_array_equal(found, IMAGE)
    np.testing.assert_array_equal(np.load(io.BytesIO(data), allow_pickle=False), IMAGE)
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))
    assert not found.flags.writeable


def test_a_view_of_an_array_is_stored_in_its_own_order():
    np.testing.assert_array_equal(read_pixels(encode_pixels(IMAGE[::-1, 3:])), IMAGE[::-1, 3:])


def test_every_view_is_the_one_of_the_jpeg():
    data = encode_pixels(IMAGE)
    np.testing.assert_array_equal(decode(data), IMAGE)
    assert torch.equal(eval_transform(data, 16), eval_transform(IMAGE, 16))
    views = [random_view(i, 8, min_crop=0.2, flip=0.5, rng=np.random.default_rng(3)) for i in (decode(data), IMAGE)]
    assert torch.equal(*views)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encode_pixels(IMAGE)[:-1], r"holds 2138 bytes of pixels, its header says 2139"),
        (encode_pixels(IMAGE) + b"x", r"holds 2140 bytes"),
        (encode_pixels(IMAGE)[:40], "cannot be decoded"),
        (encode_pixels(IMAGE)[:6], r"version 1\.0"),
        (b"\x93NUMPY\x02" + encode_pixels(IMAGE)[7:], r"version 1\.0"),
        (encode_pixels(IMAGE).replace(b"'shape'", b"'shaqe'"), "cannot be decoded"),
        (saved(np.array([{"a": 1}], dtype=object), allow_pickle=True), "holds object of shape"),
        (saved(IMAGE.astype(np.float32)), r"holds float32 of shape \(23, 31, 3\)"),
        (saved(IMAGE.astype(np.int8)), "holds int8"),
        (saved(IMAGE[..., 0]), r"of shape \(23, 31\)"),
        (saved(IMAGE[..., :2]), r"of shape \(23, 31, 2\)"),
        (saved(IMAGE[:0]), r"of shape \(0, 31, 3\)"),
        (saved(np.asfortranarray(IMAGE)), "cannot be decoded"),
    ],
    ids=[
        "cut",
        "longer",
        "header",
        "start",
        "version",
        "key",
        "pickle",
        "float",
        "signed",
        "grey",
        "two",
        "none",
        "order",
    ],
)
def test_anything_else_is_an_error_that_names_the_photograph(data, said):
    with pytest.raises(UserError, match=rf"ODIR: 7\.jpg: cannot be decoded.*{said}|ODIR: 7\.jpg: {said}"):
        decode(data, name="ODIR: 7.jpg")
