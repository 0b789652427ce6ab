import dataclasses
import inspect
import math

import pytest
import torch
import torch.nn.functional as F

from maskedclip_composer.algorithms.ema_teacher import update_teacher
from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.self_distillation import dinov2_loss, sinkhorn_knopp
from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.objectives.base import Parts
from maskedclip_composer.objectives.dinov2 import Dinov2, Dinov2Config
from maskedclip_composer.types import Batch
from tests import tiny

PROTOTYPES, LOCAL_COUNT = 24, 3


def network(*, bridge_depth: int = 0, **overrides) -> PretrainNet:
    """Build the network of the tiny dinov2 with other settings."""
    torch.manual_seed(0)
    encoder = tiny.image_encoder()
    branch = ImageBranch(encoder, BridgeConfig(depth=bridge_depth), "auto")
    objective = dataclasses.replace(tiny.OBJECTIVES["dinov2"], **overrides).build(Parts(image_encoder=encoder))
    return PretrainNet(branch, None, {"dinov2": objective}, mask_ratio=0.75, with_teacher=True)


def step(pairs: int, unpaired: int) -> Batch:
    """Make a batch in which the first image of each part has masks of 5 and 2 patches, and the others have none."""
    batch = tiny.batch(pairs, unpaired)
    for part in batch.values():
        part["block_mask"][:] = False
        part["block_mask"][0, 0, 3:8] = True
        part["block_mask"][0, 1, 9:11] = True
    return batch


def objective_of(net) -> Dinov2:
    objective = net.objectives["dinov2"]
    assert isinstance(objective, Dinov2)
    return objective


def test_outputs_are_the_arguments_of_the_loss():
    outputs = network()(step(2, 3))["dinov2"]
    assert set(outputs) == set(inspect.signature(dinov2_loss).parameters)
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == {
        "temperature": (),
        "weights": (3,),
        "student_views": (5, 5, 24),
        "teacher_views": (2, 5, 24),
        "student_patches": (14, 24),
        "teacher_patches": (14, 24),
        "patch_weight": (14,),
        "class_tokens": (2, 5, 64),
    }
    learning = {name for name, value in outputs.items() if value.requires_grad}
    assert learning == {"student_views", "student_patches", "class_tokens"}


def test_the_student_sees_mask_tokens_and_the_teacher_whole_views():
    net, batch = network().eval(), step(2, 0)
    with torch.no_grad():
        objective_of(net).mask_token.normal_()
    outputs, part = net(batch)["dinov2"], batch["paired"]
    encoder, objective = net.branch.image_encoder, objective_of(net)

    def scores(head, tokens: torch.Tensor) -> torch.Tensor:
        return F.normalize(head.mlp(tokens), dim=-1) @ F.normalize(head.prototypes, dim=-1).T

    views = [net.normalise(part["image"]), net.normalise(part["global_crops"][:, 0])]
    for number, view in enumerate(views):
        hidden = part["block_mask"][:, number]
        seen = encoder(view, block_mask=hidden, mask_token=objective.mask_token)
        expected = scores(objective.heads["dino"], seen[:, 0])
        torch.testing.assert_close(outputs["student_views"][number], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(outputs["class_tokens"][number], seen[:, 0], atol=1e-5, rtol=1e-5)
    first = encoder(views[0], block_mask=part["block_mask"][:, 0], mask_token=objective.mask_token)
    expected = scores(objective.heads["ibot"], first[0, 4:9])  # patches 3 to 7 of the first image
    torch.testing.assert_close(outputs["student_patches"][:5], expected, atol=1e-5, rtol=1e-5)
    for number in range(LOCAL_COUNT):
        local = encoder(net.normalise(part["local_crops"][:, number]))
        expected = scores(objective.heads["dino"], local[:, 0])
        torch.testing.assert_close(outputs["student_views"][2 + number], expected, atol=1e-5, rtol=1e-5)

    whole = net.teacher(torch.cat(views))
    assigned = sinkhorn_knopp(scores(objective.teacher_heads["dino"], whole[:, 0]), 0.04)
    torch.testing.assert_close(outputs["teacher_views"].flatten(0, 1), assigned, atol=1e-4, rtol=1e-3)
    taught = torch.cat([whole[0, 4:9], whole[2, 10:12]])
    assigned = sinkhorn_knopp(scores(objective.teacher_heads["ibot"], taught), 0.04)
    torch.testing.assert_close(outputs["teacher_patches"], assigned, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(outputs["patch_weight"], torch.tensor([1 / 5 / 4] * 5 + [1 / 2 / 4] * 2))


def gradients_of(net, batch) -> dict[str, torch.Tensor | None]:
    MaskedCLIP(net).loss(net(batch), batch)["total"].backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def is_trained(name: str) -> bool:
    return not name.startswith(("teacher.", "objectives.dinov2.teacher_heads.")) and not name.endswith("vit.pos_embed")


def test_all_parameters_but_the_teachers_learn():
    net = network()
    gradients = gradients_of(net, step(2, 2))
    assert {name for name, gradient in gradients.items() if gradient is not None} == set(filter(is_trained, gradients))
    assert [name for name, gradient in gradients.items() if gradient is not None and not gradient.any()] == []
    assert len({id(parameter) for parameter in net.parameters()}) == len(gradients)


def test_the_bridge_takes_part_in_student_and_teacher():
    net, batch = network(bridge_depth=1), step(2, 2)
    gradients = gradients_of(net, batch)
    assert all(gradients[name] is not None for name in gradients if name.startswith("branch.bridge."))
    tokens = net.branch(net.normalise(batch["paired"]["image"][1:]))  # nothing of it is hidden
    torch.testing.assert_close(net(batch)["dinov2"]["class_tokens"][0, 1:2], tokens[:, 0], atol=1e-5, rtol=1e-5)


def test_where_nothing_is_hidden_every_parameter_has_a_gradient_still():
    net, batch = network(), step(2, 2)
    for part in batch.values():
        part["block_mask"][:] = False
    gradients = gradients_of(net, batch)
    assert {name for name, gradient in gradients.items() if gradient is not None} == set(filter(is_trained, gradients))
    for name, gradient in gradients.items():
        if gradient is not None:
            assert torch.isfinite(gradient).all()
            assert gradient.any() == (".ibot." not in name and not name.endswith("mask_token")), name


@pytest.mark.parametrize(
    ("off", "heads", "absent"),
    [
        ("dino_weight", ["ibot"], {"student_views", "teacher_views"}),
        ("ibot_weight", ["dino"], {"student_patches", "teacher_patches", "patch_weight"}),
        ("koleo_weight", ["dino", "ibot"], {"class_tokens"}),
    ],
)
def test_a_weight_of_zero_switches_its_part_off(off, heads, absent):
    net, whole = network(**{off: 0.0}), network()
    objective, batch = objective_of(net), step(2, 2)
    assert list(objective.heads) == list(objective.teacher_heads) == heads
    assert (objective.mask_token is None) == (off == "ibot_weight")
    outputs = net(batch)
    assert set(outputs["dinov2"]) == set(whole(batch)["dinov2"]) - absent
    parts = objective.diagnose(**outputs["dinov2"])
    assert off.removesuffix("_weight") not in parts
    gradients = gradients_of(net, batch)
    assert {name for name, gradient in gradients.items() if gradient is not None} == set(filter(is_trained, gradients))


def test_without_ibot_the_student_sees_whole_views():
    net, batch = network(ibot_weight=0.0), step(2, 0)
    before = net(batch)["dinov2"]["student_views"]
    batch["paired"]["block_mask"][:] = True
    assert torch.equal(net(batch)["dinov2"]["student_views"], before)


def test_schedules_follow_the_share_of_training_alone():
    objective = objective_of(network(freeze_prototypes=0.01))
    assert objective.frozen
    for done, temperature, frozen in [(0.5, 0.07, False), (0.15, 0.055, False), (0.0, 0.04, True), (1.0, 0.07, False)]:
        objective.on_progress(done)
        assert objective.teacher_temperature == pytest.approx(temperature)
        assert objective.frozen == frozen
    without = objective_of(network(teacher_warmup=0.0))
    assert without.teacher_temperature == 0.07
    assert not without.frozen


def test_frozen_prototypes_have_a_gradient_of_zero_and_the_same_scores():
    free, frozen = network(), network(freeze_prototypes=1.0)
    batch = step(2, 2)
    torch.testing.assert_close(frozen(batch)["dinov2"]["student_views"], free(batch)["dinov2"]["student_views"])
    expected = gradients_of(free, batch)
    for name, gradient in gradients_of(frozen, batch).items():
        if name.endswith("prototypes") and is_trained(name):
            assert gradient is not None
            assert not gradient.any()
            assert expected[name].any()  # pyright: ignore[reportOptionalMemberAccess]
        elif gradient is not None:
            torch.testing.assert_close(gradient, expected[name])


def test_the_teachers_heads_are_copies_that_follow_by_momentum():
    net = network()
    objective = objective_of(net)
    pairs = list(net.momentum_pairs())
    assert pairs[1:] == [(objective.teacher_heads, objective.heads)]
    for teacher, student in zip(objective.teacher_heads.parameters(), objective.heads.parameters(), strict=True):
        assert torch.equal(teacher, student)
        assert teacher is not student
        assert not teacher.requires_grad
    with torch.no_grad():
        objective.heads["dino"].prototypes.add_(1)
    before = objective.teacher_heads["dino"].prototypes.clone()
    update_teacher(objective.teacher_heads, objective.heads, 0.9)
    torch.testing.assert_close(objective.teacher_heads["dino"].prototypes, before + 0.1)
    net.train()
    assert not objective.teacher_heads.training
    assert objective.heads.training


def test_diagnostics_are_the_parts_of_the_loss():
    net, batch = network(koleo_weight=0.3), step(2, 2)
    outputs = net(batch)["dinov2"]
    numbers = objective_of(net).diagnose(**outputs)
    total = numbers["dino"] + numbers["ibot"] + 0.3 * 2 * numbers["koleo"]
    torch.testing.assert_close(total, dinov2_loss(**outputs))
    assert numbers["teacher_temperature"].item() == pytest.approx(0.04)


def test_the_teachers_entropy_tells_a_collapse():
    net, batch = network(), step(4, 0)
    with torch.no_grad():  # the images of different noise are alike to an untrained network: pull them apart
        objective_of(net).teacher_heads["dino"].mlp[0].weight.mul_(50)
        objective_of(net).teacher_heads["dino"].mlp[2].weight.mul_(50)
    apart = objective_of(net).diagnose(**net(batch)["dinov2"])["teacher_entropy"]
    for key in ("image", "global_crops"):
        batch["paired"][key][:] = 100
    alike = objective_of(net).diagnose(**net(batch)["dinov2"])["teacher_entropy"]
    assert alike.item() == pytest.approx(math.log(PROTOTYPES), abs=1e-4)
    assert apart < alike - 0.1


def test_under_autocast_scores_are_handed_on_in_float32_and_the_loss_is_nearly_the_same():
    net, batch = network(), step(2, 2)
    expected = dinov2_loss(**net(batch)["dinov2"])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(batch)["dinov2"]
    assert {value.dtype for value in outputs.values()} == {torch.float32}
    torch.testing.assert_close(dinov2_loss(**outputs), expected, atol=0.0, rtol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "objectives.dinov2.weight=0.0 is not positive"),
        ({"dino_weight": -1.0}, "dino_weight=-1.0 is negative"),
        ({"ibot_weight": math.nan}, "ibot_weight=nan is negative"),
        ({"koleo_weight": -0.1}, "koleo_weight=-0.1 is negative"),
        ({"dino_weight": 0.0, "ibot_weight": 0.0}, "both 0: nothing would be learnt"),
        ({"prototypes": 1}, "prototypes=1 is below 2"),
        ({"hidden_dim": 0}, "hidden_dim=0 is not positive"),
        ({"bottleneck_dim": 0}, "bottleneck_dim=0 is not positive"),
        ({"student_temperature": 0.0}, "student_temperature=0.0 must be 0.025 to 1"),
        ({"teacher_temperature": 0.01}, "teacher_temperature=0.01 must be 0.025 to 1"),
        ({"final_teacher_temperature": 2.0}, "final_teacher_temperature=2.0 must be 0.025 to 1"),
        ({"teacher_warmup": 1.5}, "teacher_warmup=1.5 is no share of the training"),
        ({"freeze_prototypes": -0.1}, "freeze_prototypes=-0.1 is no share of the training"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Dinov2Config(**options)
