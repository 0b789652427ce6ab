import inspect
import math

import pytest
import torch
import torch.nn.functional as F

from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.contrastive import integrity_clip_loss, label_guided_clip_loss
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.integrity_clip import IntegrityClip, IntegrityClipConfig
from maskedclip_composer.objectives.two_tower import TwoTower
from tests import tiny
from tests.objectives import mlip

MODES = ["none", "scale", "weight", "both"]
OWN = "objectives.integrity_clip."


def built(mode: str = "both", **kwargs):
    net = mlip.net(IntegrityClipConfig(mode=mode, embed_dim=16), **kwargs).eval()
    objective = net.objectives["integrity_clip"]
    assert isinstance(objective, IntegrityClip)
    return net, objective


@pytest.mark.parametrize("mode", MODES)
def test_it_returns_exactly_the_arguments_of_its_loss(mode):
    outputs = built(mode)[0](mlip.batch(unpaired=2))["integrity_clip"]
    assert set(outputs) == set(inspect.signature(integrity_clip_loss).parameters)
    assert not outputs["row_weight"].requires_grad
    assert {key: value.dtype for key, value in outputs.items() if value.dtype != torch.float32} == {
        "labels": torch.int64
    }


def test_features_are_of_the_visible_patches_and_of_the_class_token_of_the_text():
    net, objective = built(bridge_depth=1)
    batch = mlip.batch(unpaired=2)
    outputs = net(batch)["integrity_clip"]
    views = Views(net, batch)
    tokens = net.branch.bridge(net.branch.image_encoder(views.images[:4], views.mask.ids_keep[:4]))
    assert tokens.shape[1] == 1 + tiny.NUM_PATCHES // 2
    expected = F.normalize(tokens[:, 1:].mean(dim=1) @ objective.image_projection.weight.T, dim=-1)
    torch.testing.assert_close(outputs["image_features"], expected)
    torch.testing.assert_close(outputs["image_features"], objective.embed_images(tokens))
    first = net.text_encoder(batch["paired"]["text_ids"], batch["paired"]["text_mask"])[:, 0]
    expected = F.normalize(first @ objective.text_projection.weight.T, dim=-1)[batch["paired"]["text_index"]]
    torch.testing.assert_close(outputs["text_features"], expected)
    torch.testing.assert_close(outputs["text_features"], objective.embed_texts(views.text_tokens, views.text_mask))


def test_without_importances_every_mask_has_ln_2():
    for seed in range(3):
        outputs = built()[0](mlip.batch(seed=seed))["integrity_clip"]
        torch.testing.assert_close(outputs["row_scale"], torch.full((4,), math.log(2)))
        torch.testing.assert_close(outputs["row_weight"], torch.full((4,), math.log(2)))


@pytest.mark.parametrize("mode", ["none", "weight"])
def test_at_the_start_weights_leave_plain_contrast(mode):
    """Acceptance test 3.8-1."""
    net, _ = built(mode)
    batch = mlip.batch()
    outputs = net(batch)
    loss = MaskedCLIP(net).loss(outputs, batch)["integrity_clip"]
    one = outputs["integrity_clip"]
    plain = label_guided_clip_loss(one["image_features"], one["text_features"], one["labels"], one["logit_scale"])
    torch.testing.assert_close(loss, plain)


def test_the_integrity_grows_with_the_importance_of_what_is_visible():
    net, objective = built()
    batch = mlip.batch()
    mask = Views(net, batch).mask.mask
    importance = torch.randn(tiny.NUM_PATCHES)
    with torch.no_grad():
        objective.phi.copy_(importance)
        objective.bias.fill_(0.3)
    by_hand = []
    for row in mask.tolist():
        total = 0.3 + sum(value for value, removed in zip(importance.tolist(), row, strict=True) if not removed)
        by_hand.append(math.log(1 + math.exp(total)))
    integrity = net(batch)["integrity_clip"]["row_scale"]
    assert integrity.tolist() == pytest.approx(by_hand, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(batch)["integrity_clip"]["row_scale"], integrity)
    # A removed patch of positive importance, in place of a visible one of none, makes it grow.
    shown, hidden = int(mask[0].argmin()), int(mask[0].argmax())
    with torch.no_grad():
        objective.phi[shown], objective.phi[hidden] = 0.0, 2.0
    before = net(batch)["integrity_clip"]["row_scale"]
    noise = batch["paired"]["noise"]
    noise[0, shown], noise[0, hidden] = noise[0, hidden].item(), noise[0, shown].item()
    after = net(batch)["integrity_clip"]["row_scale"]
    assert after[0] > before[0] + 0.1
    torch.testing.assert_close(after[1:], before[1:])


@pytest.mark.parametrize("mode", MODES)
def test_it_trains_the_encoders_and_its_own_heads(mode):
    net, _ = built(mode, bridge_depth=1)
    names = mlip.reached(net, mlip.batch(unpaired=2))
    assert names == {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    own = {name.removeprefix(OWN) for name in names if name.startswith(OWN)}
    learnt = {"phi", "bias"} if mode in ("scale", "both") else set()
    assert own == {"image_projection.weight", "text_projection.weight", "log_logit_scale"} | learnt


def test_only_the_scaled_losses_teach_the_importances():
    net, objective = built("both")
    batch = mlip.batch()
    MaskedCLIP(net).loss(net(batch), batch)["total"].backward()
    both = objective.phi.grad.clone()
    alone, other = built("scale")
    MaskedCLIP(alone).loss(alone(batch), batch)["total"].backward()
    torch.testing.assert_close(both, other.phi.grad / 2)
    assert (both != 0).any()


def test_removed_patches_and_unpaired_images_have_no_influence():
    net, _ = built()
    batch, other = mlip.batch(unpaired=2), mlip.batch(unpaired=2)
    removed = Views(net, batch).mask.mask[:4]
    cells = removed.view(4, 1, 4, 4).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).bool()
    other["paired"]["image"] = torch.where(cells, 255 - batch["paired"]["image"], batch["paired"]["image"])
    other["unpaired"]["image"] = 255 - batch["unpaired"]["image"]
    for one, two in zip(net(batch)["integrity_clip"].values(), net(other)["integrity_clip"].values(), strict=True):
        torch.testing.assert_close(one, two)


def test_it_serves_zero_shot_and_the_clamp():
    _, objective = built()
    assert isinstance(objective, TwoTower)
    assert objective.log_logit_scale.exp().item() == pytest.approx(1 / 0.03)
    assert objective.max_log_logit_scale == pytest.approx(math.log(100))
    assert objective.embed_images(torch.randn(3, 1 + tiny.NUM_PATCHES, 64)).shape == (3, 16)
    assert all(parameter.dim() > 0 for parameter in objective.parameters())  # FSDP2 cannot shard a scalar


def test_the_importances_are_shown_as_they_were():
    net, objective = built()
    shown = net(mlip.batch())["shown"]["integrity_phi"]
    assert shown.shape == (tiny.NUM_PATCHES,)
    assert not shown.requires_grad
    with torch.no_grad():
        objective.phi.add_(1)
    assert (shown == 0).all()


def test_diagnoses():
    net, objective = built()
    outputs = {key: value.detach() for key, value in net(mlip.batch())["integrity_clip"].items()}
    numbers = objective.diagnose(**outputs)
    found = {name: numbers[name].item() for name in ("logit_scale", "integrity", "integrity_spread")}
    assert found == pytest.approx({"logit_scale": 1 / 0.03, "integrity": math.log(2), "integrity_spread": 0.0})
    perfect = objective.diagnose(**outputs | {"image_features": outputs["text_features"]})
    assert perfect["retrieval_at_1"] == perfect["text_retrieval_at_1"] == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"weight": 0.0}, "objectives.integrity_clip.weight=0.0 is not positive"),
        ({"embed_dim": 0}, "objectives.integrity_clip.embed_dim=0 is not positive"),
        ({"temperature": 2.0}, "objectives.integrity_clip.temperature=2.0 is outside"),
        ({"max_logit_scale": 1.0}, "objectives.integrity_clip.max_logit_scale=1.0 is not above 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        IntegrityClipConfig(**setting)
