import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from data_prep.fingerprint import BYTES, NEAR, distances, perceptual_hash
from data_prep.phantom.case import photograph, sample_cases
from data_prep.phantom.diagnoses import NORMAL
from data_prep.quality import assess


def array(hashes):
    return np.stack([np.frombuffer(found, np.uint8) for found in hashes])


def between(one, other):
    return int(distances(array([perceptual_hash(one)]), array([perceptual_hash(other)])[0])[0])


@pytest.fixture(scope="module")
def pictures():
    """Retinas of six people."""
    cases = [sample_cases(np.random.SeedSequence(n), {"right": [NORMAL]})[0] for n in range(6)]
    return [Image.fromarray(photograph(case, 320)).crop((20, 20, 300, 300)) for case in cases]


hashes = st.binary(min_size=BYTES, max_size=BYTES)


@given(st.lists(hashes, min_size=1, max_size=20), hashes)
def test_distance_counts_different_bits(found, other):
    expected = [sum((a ^ b).bit_count() for a, b in zip(each, other, strict=True)) for each in found]
    assert distances(array(found), array([other])[0]).tolist() == expected


def encoded(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: encoded(image, 60),
        lambda image: image.resize((160, 160), Image.Resampling.LANCZOS),
        lambda image: ImageEnhance.Brightness(image).enhance(0.85),
        lambda image: ImageEnhance.Contrast(image).enhance(1.15),
    ],
)
def test_copies_are_near(pictures, copy):
    assert all(between(image, copy(image)) <= NEAR for image in pictures)


def test_other_retinas_are_far(pictures):
    found = [between(a, b) for n, a in enumerate(pictures) for b in pictures[n + 1 :]]
    assert min(found) > 2 * NEAR
    assert all(between(image, image) == 0 for image in pictures)


def test_quality_follows_what_was_done_to_the_picture(pictures):
    for image in pictures:
        plain = assess(image)
        blurred = [assess(image.filter(ImageFilter.GaussianBlur(radius))).sharpness for radius in (0, 1, 2, 4)]
        assert blurred == sorted(blurred, reverse=True)
        assert blurred[0] > 1.5 * blurred[-1]
        assert assess(ImageEnhance.Brightness(image).enhance(0.6)).brightness < plain.brightness
        assert assess(ImageEnhance.Brightness(image).enhance(4)).clipped > 0.2 > plain.clipped
        half = Image.new("RGB", image.size)
        half.paste(image.crop((0, 0, image.width, image.height // 2)))
        assert assess(half).field < 0.7 * plain.field
        assert 0.8 < plain.field <= 1


def test_quality_of_a_black_picture():
    found = assess(Image.new("RGB", (64, 48)))
    assert (found.sharpness, found.brightness, found.clipped, found.field) == (0, 0, 1, 0)
