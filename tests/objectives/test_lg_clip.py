import math

import pytest
import torch
import torch.nn.functional as F

from maskedclip_composer.callbacks.diagnostics import diagnose
from maskedclip_composer.compute import ComputeConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.contrastive import label_guided_clip_loss
from maskedclip_composer.losses.distinct_texts import distinct_text_clip_loss
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.base import Parts
from maskedclip_composer.objectives.lg_clip import LabelGuidedClip, LgClipConfig
from tests import tiny


def test_features_are_normalised_means_of_the_bridges_patches(batch):
    net = tiny.net("+bridge").eval()
    outputs = net(batch)["lg_clip"]
    tokens = net.branch(net.normalise(batch["paired"]["image"]))
    weight = net.objectives["lg_clip"].image_projection.weight
    expected = F.normalize(tokens[:, 1:].mean(dim=1) @ weight.T, dim=-1)
    torch.testing.assert_close(outputs["image_features"], expected)
    torch.testing.assert_close(outputs["image_features"].norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(outputs["text_features"].norm(dim=-1), torch.ones(3))
    assert outputs["text_features"].shape == (3, 16)
    assert torch.equal(outputs["text_index"], batch["paired"]["text_index"])
    assert torch.equal(outputs["labels"], batch["paired"]["label"])
    for name in ("image_features", "text_features", "text_index", "labels"):  # of one rank's pairs, which are all
        torch.testing.assert_close(outputs[f"all_{name}"], outputs[name])


@pytest.mark.parametrize("recipe", ["clip", "maskedclip", "mmclip"])
@pytest.mark.parametrize("label", ["category", "unique"])
def test_both_forms_have_the_same_losses_gradients_and_diagnostics(recipe, label):
    batch = tiny.batch(9, 4)
    assert batch["paired"]["text_index"].unique().numel() == 6
    labels = {"category": batch["paired"]["text_index"] // 2, "unique": -1 - batch["paired"]["sample_id"]}
    batch["paired"]["label"] = labels[label]
    found = []
    for distinct in (False, True):
        net = tiny.net(recipe, compute=ComputeConfig(distinct_logits=distinct)).double()
        outputs = net(batch)
        losses = MaskedCLIP(net).loss(outputs, batch)
        losses["total"].backward()
        found.append((losses, net, diagnose(net, outputs)))
        assert ("all_labels" in outputs["lg_clip"]) == distinct
    (plain, plain_net, plain_numbers), (distinct, distinct_net, distinct_numbers) = found
    for name, loss in plain.items():
        torch.testing.assert_close(distinct[name], loss, atol=1e-12, rtol=1e-12)
    for (name, one), other in zip(plain_net.named_parameters(), distinct_net.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, atol=1e-10, rtol=1e-10, msg=name)
    assert distinct_numbers == pytest.approx(plain_numbers, abs=1e-5)


def test_compute_chooses_the_form():
    for distinct, loss in ((False, label_guided_clip_loss), (True, distinct_text_clip_loss)):
        compute = ComputeConfig(distinct_logits=distinct)
        text_encoder = TextEncoder(tiny.bert(), [-1])
        parts = Parts(image_encoder=tiny.image_encoder(), text_encoder=text_encoder, compute=compute)
        assert LgClipConfig().build(parts).loss is loss


def test_flip_sees_the_visible_patches_in_both_forms(batch):
    for distinct in (False, True):
        net = tiny.net("clip")
        flip = LgClipConfig(embed_dim=16, patches="visible")
        net.objectives["lg_clip"] = LabelGuidedClip(flip, 64, tiny.TEXT_DIM, distinct_logits=distinct)
        del batch["unpaired"]
        outputs = net(batch)
        visible = net.branch.bridge(Views(net, batch).masked)
        expected = net.objectives["lg_clip"].embed_images(visible)
        torch.testing.assert_close(outputs["lg_clip"]["image_features"], expected)
        assert MaskedCLIP(net).loss(outputs, batch)["total"].isfinite()
        batch = tiny.batch(4, 4)


def test_unpaired_images_have_no_part_in_it(batch):
    net = tiny.net("maskedclip").eval()
    with_unpaired = net(batch)["lg_clip"]
    del batch["unpaired"]
    alone = net(batch)["lg_clip"]
    for name in alone:
        torch.testing.assert_close(alone[name], with_unpaired[name])


def test_the_logit_scale_is_the_exponential_of_its_parameter():
    objective = LabelGuidedClip(LgClipConfig(temperature=0.05), 64, 32)
    assert objective.log_logit_scale.exp().item() == pytest.approx(20)
    assert objective.max_log_logit_scale == pytest.approx(math.log(100))


def test_everything_is_handed_on_in_float32_under_bfloat16_autocast(batch):
    net = tiny.net("maskedclip").eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = net(batch)
    for name, arguments in outputs.items():
        for key, value in arguments.items():
            integer = key.endswith(("labels", "text_index")) or key == "mim_removed"
            assert value.dtype == (torch.int64 if integer else torch.float32), f"{name}.{key}"
    assert (net(batch)["lg_clip"]["image_features"] - outputs["lg_clip"]["image_features"]).abs().max() < 0.1


@pytest.mark.parametrize("temperature", [0.005, 2.0])
def test_a_temperature_outside_the_limits_is_refused(temperature):
    with pytest.raises(UserError, match=f"objectives.lg_clip.temperature={temperature} is outside"):
        LgClipConfig(temperature=temperature)
