import math

import pytest
import torch
import torch.nn.functional as F

from maskedclip_composer.errors import UserError
from maskedclip_composer.objectives.lg_clip import LabelGuidedClip, LgClipConfig
from tests import tiny


def test_features_are_normalised_means_of_the_bridges_patches(batch):
    net = tiny.net("+bridge").eval()
    outputs = net(batch)["lg_clip"]
    tokens = net.branch(net.normalise(batch["paired"]["image"]))
    weight = net.objectives["lg_clip"].image_projection.weight
    expected = F.normalize(tokens[:, 1:].mean(dim=1) @ weight.T, dim=-1)
    torch.testing.assert_close(outputs["image_features"], expected)
    ones = torch.ones(4)
    torch.testing.assert_close(outputs["image_features"].norm(dim=-1), ones)
    torch.testing.assert_close(outputs["text_features"].norm(dim=-1), ones)
    assert outputs["text_features"].shape == (4, 16)
    assert torch.equal(outputs["labels"], batch["paired"]["label"])


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
            assert value.dtype == (torch.int64 if key in ("labels", "mim_removed") else torch.float32), f"{name}.{key}"
    assert (net(batch)["lg_clip"]["image_features"] - outputs["lg_clip"]["image_features"]).abs().max() < 0.1


@pytest.mark.parametrize("temperature", [0.005, 2.0])
def test_a_temperature_outside_the_limits_is_refused(temperature):
    with pytest.raises(UserError, match=f"objectives.lg_clip.temperature={temperature} is outside"):
        LgClipConfig(temperature=temperature)
