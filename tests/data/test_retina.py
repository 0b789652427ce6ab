import numpy as np
import pytest
from PIL import Image, ImageDraw

from maskedclip_composer.data.retina import find_retina
from tests.data_prep.drawing import retina


@pytest.mark.parametrize(
    ("width", "height", "centre", "radius", "surround"),
    [
        (900, 600, (420, 310), 250, 0),
        (900, 600, (420, 310), 250, 12),  # a camera's black is not quite black
        (600, 900, (300, 430), 260, 0),
        (800, 700, (400, 350), 300, 255),
        (160, 120, (70, 60), 45, 0),
        (60, 50, (28, 25), 20, 0),
    ],
)
def test_box_is_the_disc(width, height, centre, radius, surround):
    crop = find_retina(retina(width, height, centre, radius, surround))
    assert crop.status == "cropped"
    expected = (centre[0] - radius, centre[1] - radius, centre[0] + radius + 1, centre[1] + radius + 1)
    tolerance = 1 + 2 * max(width, height) / 512
    np.testing.assert_allclose(crop.box, expected, atol=tolerance)


def test_box_of_a_disc_cut_off_above_and_below():
    crop = find_retina(retina(900, 500, (450, 250), 300))
    assert crop.status == "cropped"
    np.testing.assert_allclose(crop.box, (150, 0, 751, 500), atol=5)


def test_black_bordered_photograph_on_a_white_page():
    page = Image.new("RGB", (800, 800), (255, 255, 255))
    page.paste(retina(600, 500, (300, 250), 200), (100, 150))
    np.testing.assert_allclose(find_retina(page).box, (200, 200, 601, 601), atol=5)


def test_burnt_in_text_and_marks_are_cut_away():
    image = retina(900, 600, (450, 300), 250)
    draw = ImageDraw.Draw(image)
    draw.text((10, 10), "Patient 0001  2019-01-01", fill=(255, 255, 255), font_size=24)
    draw.line((700, 300, 899, 300), fill=(255, 255, 255), width=2)
    np.testing.assert_allclose(find_retina(image).box, (200, 50, 701, 551), atol=8)


@pytest.mark.parametrize("size", [(40, 30), (400, 300)])
def test_already_cropped_photographs_are_left_alone(size):
    inside = retina(1000, 1000, radius=490).crop((300, 300, 700, 700)).resize(size)
    crop = find_retina(inside)
    assert (crop.status, crop.box) == ("full", (0, 0, *size))


def test_tight_disc_is_left_alone():
    assert find_retina(retina(512, 512, radius=255)).status == "full"


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_frames_fail(level):
    assert find_retina(Image.new("RGB", (300, 200), (level,) * 3)).status == "failed"


def test_scattered_reflections_fail():
    image = Image.new("RGB", (600, 400))
    for x in range(50, 600, 110):
        ImageDraw.Draw(image).ellipse((x, 190, x + 30, 220), fill=(250, 250, 250))
    crop = find_retina(image)
    assert (crop.status, crop.box) == ("failed", None)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 400)])
def test_a_few_pixels_are_no_retina(size):
    assert find_retina(Image.new("RGB", size, (0, 0, 0))).status == "failed"
