import copy
import inspect

import pytest
import torch
from torch import nn

from maskedclip_composer.compute import ComputeConfig
from maskedclip_composer.models.cross_decoder import CrossDecoder
from maskedclip_composer.models.decoder import Decoder
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.views import Views
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD, ImageEncoder
from tests import tiny


def gradients(net: PretrainNet, batch, loss: str) -> dict[str, bool]:
    """Tell for each parameter whether `loss` reaches it."""
    net.zero_grad(set_to_none=True)
    model = MaskedCLIP(net)
    model.loss(model(batch), batch)[loss].backward()
    return {name: p.grad is not None and bool(p.grad.abs().sum() > 0) for name, p in net.named_parameters()}


def modules_of_the_paper(name: str) -> str:
    prefixes = {
        "branch.image_encoder.": "E_I",
        "branch.bridge.": "B",
        "objectives.lg_clip.image_projection": "W_I",
        "text_encoder.": "E_T",
        "objectives.lg_clip.text_projection": "W_T",
        "objectives.lg_clip.log_logit_scale": "tau",
        "objectives.mim.pixel_decoder.": "D_I",
        "objectives.mfd.feature_decoder.": "D_F",
        "teacher.": "M",
    }
    (module,) = [module for prefix, module in prefixes.items() if name.startswith(prefix)]
    return module


@pytest.mark.parametrize(
    ("loss", "trained"),
    [
        ("mim", {"E_I", "D_I"}),
        ("lg_clip", {"E_I", "B", "W_I", "E_T", "W_T", "tau"}),
        ("mfd", {"E_I", "D_F"}),
        ("total", {"E_I", "B", "W_I", "E_T", "W_T", "tau", "D_I", "D_F"}),
    ],
)
def test_each_loss_trains_the_modules_of_the_routing_table_and_no_other(batch, loss, trained):
    reached = gradients(tiny.net("maskedclip"), batch, loss)
    assert {modules_of_the_paper(name) for name, yes in reached.items() if yes} == trained


@pytest.mark.parametrize("recipe", tiny.RECIPES)
def test_every_trainable_parameter_of_every_recipe_is_trained(recipe, batch):
    """DDP waits in every step for the gradient of every parameter."""
    net = tiny.net(recipe)
    reached = gradients(net, batch, "total")
    trainable = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    # The gradient of a word that the batch does not hold is zero, but there: the table is one parameter.
    assert {name for name, yes in reached.items() if yes} == trainable
    fixed = {name for name in reached if name not in trainable and "teacher" not in name}
    assert fixed == {"branch.image_encoder.vit.pos_embed"}


@pytest.mark.parametrize("recipe", tiny.RECIPES)
def test_an_objective_returns_exactly_the_arguments_of_its_loss(recipe, batch):
    net = tiny.net(recipe)
    outputs = net(batch)
    assert [name for name in outputs if name != "shown"] == list(net.objectives)
    for name, objective in net.objectives.items():
        assert set(outputs[name]) == set(inspect.signature(objective.loss).parameters)


def test_the_total_is_the_weighted_sum(batch):
    model = MaskedCLIP(tiny.net("maskedclip"))
    losses = model.loss(model(batch), batch)
    assert list(losses) == ["total", "mim", "lg_clip", "mfd"]
    expected = losses["mim"] + 0.01 * losses["lg_clip"] + 0.01 * losses["mfd"]
    torch.testing.assert_close(losses["total"], expected)


def test_losses_are_computed_in_float32_inside_autocast(batch):
    model = MaskedCLIP(tiny.net("maskedclip").eval())
    outputs = model(batch)
    expected = model.loss(outputs, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(outputs, batch)
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name])


def test_recipes_are_nested(batch):
    """Each recipe is the next one with something left out: the losses they share are the same numbers."""

    def losses(net: PretrainNet) -> dict[str, torch.Tensor]:
        model = MaskedCLIP(net.eval())
        return model.loss(model(batch), batch)

    full, bridge = losses(tiny.net("maskedclip")), losses(tiny.net("+bridge"))
    shared, mae, clip = losses(tiny.net("mae+clip")), losses(tiny.net("mae")), losses(tiny.net("clip"))
    assert torch.equal(full["mim"], bridge["mim"])
    assert torch.equal(full["lg_clip"], bridge["lg_clip"])
    without_bridge = tiny.net("maskedclip")
    without_bridge.branch.bridge = nn.Identity()
    removed = losses(without_bridge)
    assert torch.equal(removed["mim"], shared["mim"])
    assert torch.equal(removed["lg_clip"], shared["lg_clip"])
    assert not torch.equal(bridge["lg_clip"], shared["lg_clip"])
    assert torch.equal(mae["mim"], shared["mim"])
    assert torch.equal(mae["total"], mae["mim"])
    torch.testing.assert_close(clip["lg_clip"], shared["lg_clip"])


def test_only_the_modules_of_a_recipe_exist():
    assert tiny.net("mae").text_encoder is None
    for recipe in tiny.RECIPES:
        net = tiny.net(recipe)
        assert (net.teacher is not None) == (recipe in ("maskedclip", "dinov2"))
        assert (net.text_encoder is not None) == (recipe not in ("mae", "dinov2"))


@pytest.mark.parametrize(
    ("recipe", "calls"),
    # The student's encoder: one masked pass over all images, one whole pass over the pairs. The teacher's: all images.
    [
        ("mae", [(8, 4)]),
        ("clip", [(4, 16)]),
        ("+bridge", [(8, 4), (4, 16)]),
        ("maskedclip", [(8, 4), (4, 16), (8, 16)]),
        ("mmclip", [(4, 16), (4, 16)]),
        ("mlip", [(8, 4)]),
        # Two global views and three local ones of 8 images; the teacher has the global ones.
        ("dinov2", [(16, 16), (24, 4), (16, 16)]),
    ],
)
def test_no_view_is_encoded_twice(recipe, calls, batch):
    net = tiny.net(recipe, compute=ComputeConfig(packed=False))
    seen, texts = [], []

    def record(module, arguments, output):
        seen.append((output.shape[0], output.shape[1] - 1))

    for module in net.modules():
        if isinstance(module, ImageEncoder):
            module.register_forward_hook(record)
    if net.text_encoder is not None:
        net.text_encoder.register_forward_hook(lambda module, arguments, output: texts.append(output.shape[0]))
    net(batch)
    assert sorted(seen) == sorted(calls)
    unique, pairs, prompts, hidden_words = len(batch["paired"]["text_ids"]), 4, 3, texts[-1] if texts else 0
    # MMCLIP encodes the texts, the disease prompts and the texts with hidden words, and compares those with the words.
    of_recipe = {"mae": [], "dinov2": [], "mmclip": [unique, prompts, pairs, hidden_words]}
    assert texts == of_recipe.get(recipe, [unique])


def test_views_are_computed_when_they_are_asked_for(batch):
    views = Views(tiny.net("maskedclip"), batch)
    assert views.masked is views.masked
    assert views.teacher is views.teacher
    assert {"image", "text"} & set(vars(views)) == set()


def test_the_teacher_starts_as_a_copy_and_stays_apart():
    net = tiny.net("maskedclip")
    student, teacher = dict(net.branch.named_parameters()), dict(net.teacher.named_parameters())
    assert student.keys() == teacher.keys()
    for name, parameter in teacher.items():
        assert torch.equal(parameter, student[name])
        assert parameter.data_ptr() != student[name].data_ptr()
        assert not parameter.requires_grad


def test_the_teacher_is_always_in_evaluation_mode():
    net = tiny.net("maskedclip")
    for model in (net, MaskedCLIP(net)):
        model.train()
        assert net.branch.training
        assert not any(module.training for module in net.teacher.modules())
        model.eval()
        assert not net.branch.training
        model.train()
        assert not any(module.training for module in net.teacher.modules())


def test_images_are_normalised_with_imagenets_statistics():
    net = tiny.net("mae")
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    expected = [(v / 255 - m) / s for v, m, s in zip((0, 128, 255), IMAGE_MEAN, IMAGE_STD, strict=True)]
    assert net.normalise(pixels)[0, :, 0, 0].tolist() == pytest.approx(expected)


def test_a_recipe_without_text_runs_on_either_part_alone(batch):
    net = tiny.net("mae").eval()
    both = net(batch)["mim"]["prediction"]
    paired = net({"paired": batch["paired"]})["mim"]["prediction"]
    unpaired = net({"unpaired": batch["unpaired"]})["mim"]["prediction"]
    torch.testing.assert_close(torch.cat([paired, unpaired]), both)


def test_the_state_dict_has_no_constants_and_loads_strictly():
    net = tiny.net("maskedclip")
    state = copy.deepcopy(net.state_dict())
    assert not [name for name in state if "image_mean" in name or name.endswith("positions")]
    other = tiny.net("maskedclip", seed=1)
    assert not torch.equal(other.branch.image_encoder.vit.cls_token, net.branch.image_encoder.vit.cls_token)
    other.load_state_dict(state, strict=True)
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


def test_configs_know_which_objectives_have_decoders():
    for recipe, (names, _) in tiny.RECIPES.items():
        objectives = tiny.net(recipe).objectives
        for name in names:
            found = any(isinstance(module, Decoder | CrossDecoder) for module in objectives[name].modules())
            assert found == tiny.OBJECTIVES[name].has_decoder, name


def test_only_one_child_and_every_parameter_inside_an_fsdp_unit():
    for recipe in tiny.RECIPES:
        model = MaskedCLIP(tiny.net(recipe))
        assert [name for name, _ in model.named_children()] == ["net"]
        units = [name for name, module in model.named_modules() if model.net.fsdp_wrap_fn(module)]
        for name, _ in model.named_parameters():
            assert any(name.startswith(f"{unit}.") for unit in units), name
        # every block of every stack is a unit of its own, so that one block at a time is gathered
        blocks = [n for n, m in model.named_modules() if type(m).__name__ in ("TokenBlock", "BertLayer")]
        assert blocks
        assert set(blocks) <= set(units)
