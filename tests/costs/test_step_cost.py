"""The step without values against the step with them, and against numbers that can be written down."""

from pathlib import Path

import pytest

from maskedclip_composer import distributed
from maskedclip_composer.costs.fake import Shapes
from maskedclip_composer.costs.passes import DECODER_BLOCKS, IMAGE_BLOCKS, Precision, count_step, measure_activations
from maskedclip_composer.models.pretrain import MaskedCLIP
from tests import tiny


def both(recipe: str) -> tuple[MaskedCLIP, MaskedCLIP, Shapes]:
    shapes = Shapes()
    return MaskedCLIP(tiny.net(recipe)).train(), shapes.build(lambda: MaskedCLIP(tiny.net(recipe))).train(), shapes


@pytest.mark.parametrize("recipe", tiny.RECIPES)
def test_operations_do_not_depend_on_values(recipe: str):
    real, without, shapes = both(recipe)
    batch = tiny.batch(4, 4)
    expected = count_step(real, batch)
    assert count_step(without, shapes.of(batch), shapes.active) == expected
    assert expected.backward > sum(expected.forward.values()) - expected.forward.get("teacher", 0)


@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
@pytest.mark.parametrize("recipe", tiny.RECIPES)
def test_memory_does_not_depend_on_values(recipe: str, precision: Precision):
    real, without, shapes = both(recipe)
    batch = tiny.batch(4, 4)
    expected = measure_activations(real, batch, precision)
    found = measure_activations(without, shapes.of(batch), precision, shapes.active)
    assert found.saved == pytest.approx(expected.saved, rel=0.01)  # which mask is drawn is not known without values
    assert found.peak == pytest.approx(expected.peak, rel=0.05)
    assert found.peak >= found.total_saved > 0


@pytest.mark.parametrize(
    ("recipe", "kept_in_blocks"),
    [
        ("mae", {IMAGE_BLOCKS, DECODER_BLOCKS}),
        ("maskedclip", {IMAGE_BLOCKS, DECODER_BLOCKS}),
        ("dinov2", {IMAGE_BLOCKS}),  # E_I of crops, asked for by the objective; it has heads and no decoder
        ("mmclip", {IMAGE_BLOCKS}),  # decoders with cross-attention, which nothing compiles
    ],
)
def test_what_compiled_blocks_keep_is_told_apart(recipe: str, kept_in_blocks: set[str]):
    _, model, shapes = both(recipe)
    found = measure_activations(model, shapes.of(tiny.batch(4, 4)), "fp32", shapes.active)
    assert {IMAGE_BLOCKS, DECODER_BLOCKS} & found.saved.keys() == kept_in_blocks
    assert found.saved[IMAGE_BLOCKS] > found.total_saved / 10
    assert not any("forward" in vars(module) for module in model.modules())  # the blocks are left as they were


def test_images_that_one_objective_asks_for_are_no_work_of_objectives():
    _, model, shapes = both("dinov2")
    forward = count_step(model, shapes.of(tiny.batch(4, 4)), shapes.active).forward
    assert forward["encoder"] > 0


def test_no_other_rank_is_asked_while_one_counts():
    """Rank 0 counts alone: whatever speaks to other ranks without asking `_is_alone` would wait for them for ever."""
    assert Path(distributed.__file__).read_text().count("is_initialized()") == 1
