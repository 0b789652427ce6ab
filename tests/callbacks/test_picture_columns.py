from pathlib import Path

import pytest
import torch
from PIL import Image

from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.callbacks.picture_columns import HIDDEN_GREY, Cell, Column, Step, columns, maps, phi_map
from maskedclip_composer.models.pretrain import MaskedCLIP
from tests import tiny
from tests.callbacks.tiny import make_trainer, run

PATCH, SIDE = tiny.PATCH_SIZE, tiny.IMAGE_SIZE // tiny.PATCH_SIZE
PAIRS, UNPAIRED = 4, 3
NO_IMAGES = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)


@pytest.fixture(scope="module")
def steps() -> dict[str, Step]:
    """Every recipe's step on the same batch, with all rows but the second chosen."""
    batch, rows = tiny.batch(PAIRS, UNPAIRED), torch.tensor([0, 2, 3, 4, 5, 6])
    images = torch.cat([part["image"] for part in batch.values()])[rows]
    return {name: Step(images, tiny.net(name)(batch), rows) for name in tiny.RECIPES}


def patches(view: torch.Tensor) -> torch.Tensor:
    """Cut [3, size, size] into [patches, 3, patch, patch]."""
    return view.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).permute(1, 2, 0, 3, 4).flatten(0, 1)


def cell_of(column: Column, place: int) -> Cell:
    cell = column.cells[place]
    assert cell is not None
    return cell


def heat_of(column: Column, place: int) -> torch.Tensor:
    heat = cell_of(column, place).heat
    assert heat is not None
    return heat


def test_each_recipe_has_its_columns(steps):
    cosine = "cosine to the teacher's features"
    masked = ["input", "masked, 75% removed", "reconstruction"]
    attended = ["score of the text's attention", "features hidden, 50%", "reconstruction with the text"]
    assert {name: [column.title for column in columns(step)] for name, step in steps.items()} == {
        "mae": masked,
        "clip": [],
        "mae+clip": masked,
        "+bridge": masked,
        "maskedclip": [*masked, cosine],
        "mmclip": ["input", *attended],
        "mlip": [*masked, "cosine to the nearest sentence"],
        "dinov2": [],
    }
    assert {name for name, step in steps.items() if maps(step)} == {"mlip"}


@pytest.mark.parametrize("recipe", ["maskedclip", "mmclip", "mlip"])
def test_every_column_has_a_cell_for_each_chosen_image(steps, recipe):
    step = steps[recipe]
    for column in columns(step):
        assert len(column.cells) == len(step.rows)
        heats = [cell.heat for cell in column.cells if cell is not None and cell.heat is not None]
        assert bool(heats) == (column.scale is not None)
        for cell in filter(None, column.cells):
            assert cell.view.shape == (3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
            assert 0 <= cell.view.min() <= cell.view.max() <= 1


def test_scores_and_hidden_patches_are_those_of_the_chosen_images(steps):
    step = steps["mmclip"]
    _, score, hidden, reconstruction = columns(step)
    for place, row in enumerate(step.rows):
        expected = step.outputs["shown"]["att_mim_score"][row]
        heat, mask = heat_of(score, place), step.outputs["att_mim"]["mask"][row] > 0
        assert heat.min() == 0
        assert heat.max() == 1
        assert torch.equal(heat.argsort(stable=True), expected.argsort(stable=True))
        assert cell_of(score, place).caption == f"{expected.min().item():.3g} to {expected.max().item():.3g}"
        original = patches(step.pixels[place])
        assert torch.equal((patches(cell_of(hidden, place).view) == HIDDEN_GREY).flatten(1).all(1), mask)
        for view in (hidden, reconstruction):
            torch.testing.assert_close(patches(cell_of(view, place).view)[~mask], original[~mask])
        assert not torch.allclose(patches(cell_of(reconstruction, place).view)[mask], original[mask], atol=0.1)


def test_equal_scores_are_all_the_lowest(steps):
    step = steps["mmclip"]
    scores = torch.full_like(step.outputs["shown"]["att_mim_score"], 0.25)
    outputs = step.outputs | {"shown": {"att_mim_score": scores}}
    column = columns(Step(step.images, outputs, step.rows))[1]
    assert torch.equal(heat_of(column, 0), torch.zeros(SIDE**2))
    assert cell_of(column, 0).caption == "0.25 to 0.25"


def test_sentences_heat_the_visible_patches_of_pairs_alone(steps):
    step = steps["mlip"]
    column = columns(step)[-1]
    heats, removed = step.outputs["shown"]["patch_sentence"], step.outputs["shown"]["mim_removed"]
    mask = torch.zeros(len(removed), tiny.NUM_PATCHES, dtype=torch.bool).scatter(1, removed, True)
    assert [cell is None for cell in column.cells] == [row >= PAIRS for row in step.rows]
    for place, row in enumerate(step.rows[:3]):
        cell, heat = cell_of(column, place), heat_of(column, place)
        assert torch.equal(heat.isnan(), mask[row])
        assert torch.equal(heat[~mask[row]], heats[row][~mask[row]])
        assert cell.caption == f"mean {heats[row][~mask[row]].mean().item():.3f}"
        assert (patches(cell.view)[mask[row]] == HIDDEN_GREY).all()
        lightness = step.pixels[place].mean(dim=0).expand(3, -1, -1)
        assert torch.equal(patches(cell.view)[~mask[row]], patches(lightness)[~mask[row]])


def test_without_a_chosen_pair_there_is_no_column_of_sentences(steps):
    step = steps["mlip"]
    titles = [column.title for column in columns(Step(step.images[-2:], step.outputs, step.rows[-2:]))]
    assert titles == ["input", "masked, 75% removed", "reconstruction"]


def test_phi_is_that_of_the_forward_pass_though_the_optimiser_writes_into_it():
    net = tiny.net("mlip")
    step = Step(NO_IMAGES, net(tiny.batch(2, 1)), torch.arange(0))
    phi = net.objectives["integrity_clip"].phi
    assert isinstance(phi, torch.Tensor)
    phi.data.fill_(1)
    (found,) = maps(step)
    assert torch.equal(found.values, torch.zeros(SIDE**2))


def phi_of(*values: float):
    phi = torch.tensor(values)
    found = phi_map(Step(NO_IMAGES, {"shown": {"integrity_phi": phi}}, torch.arange(0)))
    assert found is not None
    assert torch.equal(found.values, phi)
    return found


def test_phi_has_its_zero_in_the_middle_of_the_colours():
    found = phi_of(0.0, 1.0, -2.5, 0.5)
    assert (found.scale.low, found.scale.high) == (-2.5, 2.5)
    assert found.caption == "-2.5 to 1"


def test_phi_that_has_learnt_nothing_says_so():
    found = phi_of(0.0, 0.0, 0.0, 0.0)
    assert found.scale.low == -found.scale.high != 0
    assert found.caption.startswith("all zero")


@pytest.mark.parametrize(
    ("recipe", "files"),
    [
        ("mmclip", ["ba0000002.png", "ba0000003.png"]),
        ("mlip", ["ba0000002.png", "ba0000003.png", "phi-ba0000002.png", "phi-ba0000003.png"]),
        ("dinov2", []),
    ],
)
def test_runs_write_their_pictures(tmp_path: Path, recipe, files):
    config = TrackingConfig(mlflow=False, picture_interval="2ba", num_pictures=3)
    run(make_trainer(tmp_path, config, duration="1ep", model=MaskedCLIP(tiny.net(recipe)))[0])
    written = sorted((tmp_path / "tiny" / "pictures").glob("*"))
    assert [path.name for path in written] == files
    for path in written:
        width, height = Image.open(path).size
        expected = (5.2, 4.6) if path.name.startswith("phi") else (2.6 * 4 + 1.2, 2.6 * 3 + 0.7)
        assert (width, height) == pytest.approx((expected[0] * 110, expected[1] * 110), abs=1)
