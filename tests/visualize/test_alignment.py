"""A patch in row r and column c of the grid is drawn over the pixels from (r * p, c * p)."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from maskedclip_composer.callbacks.picture_columns import Cell, Column, Scale, to_pixels
from maskedclip_composer.callbacks.picture_drawing import draw
from maskedclip_composer.visualize.patches import component_colours
from maskedclip_composer.visualize.reconstruction import patch_errors
from maskedclip_composer.visualize.retina_patches import retina_patches
from tests import tiny

PATCH, SIDE = tiny.PATCH_SIZE, tiny.IMAGE_SIZE // tiny.PATCH_SIZE
PLACES = [(0, 1), (2, 0), (1, 3)]  # none on the diagonal, which a transposed grid would keep


def photograph(row: int, column: int) -> torch.Tensor:
    """Black but for one patch."""
    image = torch.zeros(1, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, dtype=torch.uint8)
    image[..., row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 200
    return image


def drawn_at(png: np.ndarray, patch: tuple[float, ...], others: tuple[float, ...]) -> tuple[int, int]:
    """Return row and column, in the picture of these two colours, of the patch with the first."""
    is_patch, is_other = (np.abs(png - np.array(colour)).max(axis=-1) < 6 for colour in (patch, others))
    picture, square = np.argwhere(is_patch | is_other), np.argwhere(is_patch)
    corner, side = picture.min(axis=0), (np.ptp(picture, axis=0) + 1) / SIDE
    np.testing.assert_allclose(np.ptp(square, axis=0) + 1, side, atol=2)  # as large as a patch
    row, column = (square.min(axis=0) - corner) / side
    assert (row, column) == pytest.approx((round(row), round(column)), abs=0.06)
    return round(row), round(column)


@pytest.mark.parametrize(("row", "column"), PLACES)
def test_heat_lies_over_the_pixels_of_its_patch(row, column):
    """The photograph's bright patch and the map's are at the same place, measured in the PNG."""
    heat = torch.zeros(SIDE**2)
    heat[row * SIDE + column] = 1
    view = photograph(row, column)[0].float() / 255 * torch.tensor([1.0, 0, 0])[:, None, None]
    view[2] = 100 / 255
    columns = [
        Column("photograph", [Cell(view)]),
        Column("map", [Cell(torch.ones_like(view), heat)], Scale("", 0, 1)),
    ]
    png = np.asarray(Image.open(io.BytesIO(draw(columns, rows=["a"], title=""))).convert("RGB")).astype(int)
    half = png.shape[1] * 47 // 100  # right of it the map, and then its bar, whose ends have the same colours
    assert drawn_at(png[:, :half], (200, 0, 100), (0, 0, 100)) == (row, column)
    viridis = [tuple(0.35 * 255 + 0.65 * value for value in colour) for colour in ((253, 231, 37), (68, 1, 84))]
    assert drawn_at(png[:, half : half + 312], *viridis) == (row, column)


@pytest.mark.parametrize(("row", "column"), PLACES)
def test_the_encoders_patches_are_those_of_the_grid(row, column):
    encoder, image = tiny.image_encoder(), photograph(row, column).float()
    with torch.no_grad():
        embedded = encoder.vit.patch_embed(image) - encoder.vit.patch_embed(torch.zeros_like(image))
    assert embedded.norm(dim=-1)[0].nonzero().tolist() == [[row * SIDE + column]]
    assert retina_patches(photograph(row, column), PATCH)[0].nonzero().tolist() == [[row * SIDE + column]]
    pixels = to_pixels(torch.arange(SIDE**2), tiny.IMAGE_SIZE)
    assert (pixels[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] == row * SIDE + column).all()


def test_colours_and_errors_keep_the_place_of_their_patch():
    tokens, retina = torch.randn(1, SIDE**2, 6), torch.ones(1, SIDE**2, dtype=torch.bool)
    retina[0, 3] = False
    tokens[0, 5] += 50
    colours, _ = component_colours(tokens, retina)
    assert colours[0, 3].tolist() == pytest.approx([0.85] * 3)
    others = [patch for patch in range(SIDE**2) if patch not in (3, 5)]
    assert (colours[0, 5, 0] - colours[0, others, 0]).abs().min() > 0.5
    prediction, target = torch.zeros(1, 4, 3), torch.tensor([[[0.0] * 3, [1.0] * 3, [2.0] * 3, [0.0] * 3]])
    errors, own, guess = patch_errors(prediction, target, torch.tensor([[0.0, 1, 1, 0]]))
    assert errors[0, 1:3].tolist() == [1, 4]
    assert errors[0, [0, 3]].isnan().all()
    assert own.tolist() == guess.tolist() == [2.5]  # the visible patches are 0, and so is the guess
