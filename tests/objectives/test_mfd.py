import pytest
import torch

from maskedclip_composer.compute import ComputeConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.objectives.mfd import MfdConfig
from tests import tiny


def test_the_target_is_the_teachers_view_of_the_whole_images(batch):
    net = tiny.net("maskedclip")
    outputs = net(batch)["mfd"]
    images = net.normalise(torch.cat([batch["paired"]["image"], batch["unpaired"]["image"]]))
    torch.testing.assert_close(outputs["target"], net.teacher(images)[:, 1:])
    assert not outputs["target"].requires_grad
    assert outputs["prediction"].shape == (8, tiny.NUM_PATCHES, 64)


def test_visible_and_removed_targets_both_matter(batch):
    net = tiny.net("maskedclip", compute=ComputeConfig(masked_only=False))
    outputs = net(batch)
    mask, model = outputs["mim"]["mask"], MaskedCLIP(net)
    losses = model.loss(outputs, batch)
    for chosen in (mask == 0, mask == 1):
        changed = outputs["mfd"] | {"target": outputs["mfd"]["target"] + chosen[:, :, None] * torch.randn(64)}
        assert (model.loss(outputs | {"mfd": changed}, batch)["mfd"] - losses["mfd"]).abs() > 1e-4
    # ... while visible pixels are no target of mim
    pixels = outputs["mim"] | {"target": outputs["mim"]["target"] + (mask == 0)[:, :, None] * 5}
    assert torch.equal(model.loss(outputs | {"mim": pixels}, batch)["mim"], losses["mim"])


def test_the_prediction_sees_visible_patches_alone(batch):
    net = tiny.net("maskedclip", compute=ComputeConfig(masked_only=False)).eval()
    before = net(batch)
    for part in ("paired", "unpaired"):
        mask = before["mim"]["mask"][:4] if part == "paired" else before["mim"]["mask"][4:]
        removed = mask.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3).bool()
        batch[part]["image"][removed.expand(-1, 3, -1, -1)] = 0
    after = net(batch)
    for name in ("mim", "mfd"):
        torch.testing.assert_close(after[name]["prediction"], before[name]["prediction"])
        assert not torch.allclose(after[name]["target"], before[name]["target"], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, r"objectives.mfd.weight=-1.0 is not positive"),
        ({"dim": 30, "num_heads": 4}, r"objectives.mfd.dim=30 must be divisible by num_heads=4"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        MfdConfig(**options)


def test_a_width_that_does_not_fit_the_encoders_heads_is_refused(image_encoder):
    from maskedclip_composer.objectives.mfd import MaskedFeatureDistillation

    with pytest.raises(UserError, match=r"objectives.mfd.dim=33 must be divisible by num_heads=2"):
        MaskedFeatureDistillation(MfdConfig(dim=33), image_encoder)
