"""The contact sheet shows photographs of the whole set, and those without a retina framed in red."""

import numpy as np
import pytest
from PIL import Image

from data_prep.contact_sheet import NAME, write_contact_sheet
from tests.data_prep.drawing import run, save_retinas

CELL, LINE = 160, 16  # pixels


@pytest.fixture
def prepared(tmp_path):
    """Twelve retinas and two dark frames without one, at 48 pixels."""
    images = tmp_path / "images"
    save_retinas(images, 12)
    for number in range(2):
        Image.new("RGB", (90, 70), (number, 0, 0)).save(images / f"dark{number}.png")
    assert run("manifest", "--images", images, "--out", tmp_path / "out", "--size", "48", "--workers", "1") == 0
    return tmp_path / "out"


def cells(folder):
    sheet = np.asarray(Image.open(folder / NAME).convert("RGB")).astype(int)
    height, width, _ = sheet.shape
    assert (height % (CELL + LINE), width % CELL) == (0, 0)
    return [
        sheet[top : top + CELL, left : left + CELL]
        for top in range(0, height, CELL + LINE)
        for left in range(0, width, CELL)
    ]


def is_framed(cell):
    red, green, blue = cell[1, 1]
    return red > 180 and green < 90 and blue < 90


def is_empty(cell):
    return cell[8:-8, 8:-8].min() > 250  # JPEG spreads a neighbour's frame


def test_every_photograph_of_a_small_set(prepared):
    found = cells(prepared)
    assert len(found) == 16
    assert [is_framed(cell) for cell in found] == [False] * 12 + [True] * 2 + [False] * 2
    assert [is_empty(cell) for cell in found] == [False] * 14 + [True] * 2
    # Photographs of 48 pixels fill their cells.
    assert all(cell[CELL // 2, 10].max() < 250 for cell in found[:12])


def test_a_choice_spread_over_the_set(prepared):
    whole = cells(prepared)
    write_contact_sheet(prepared, prepared / "manifest.parquet", regular=3, failed=1)
    first, middle, last, failed = cells(prepared)
    for cell, expected in ((first, whole[0]), (middle, whole[5]), (last, whole[11])):
        assert np.abs(cell - expected).mean() < 1
    assert is_framed(failed)


def test_shards_below_folders(tmp_path):
    images = tmp_path / "images"
    names = save_retinas(images, 4)
    rows = "image,label,split\n" + "".join(f"{name},1,{part}\n" for name, part in zip(names, "abab", strict=True))
    (images / "t.csv").write_text(rows)
    assert run("manifest", "--csv", images / "t.csv", "--out", tmp_path / "out", "--workers", "1") == 0
    assert len(cells(tmp_path / "out")) == 4
