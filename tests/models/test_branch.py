import pytest
import torch

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.attention import SelfAttention
from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from tests import tiny


def test_the_bridge_follows_the_encoder(image_encoder):
    branch = ImageBranch(image_encoder, BridgeConfig(depth=2), "auto")
    images = torch.randn(2, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    out = branch(images)
    assert out.shape == (2, 1 + tiny.NUM_PATCHES, 64)
    torch.testing.assert_close(out, branch.bridge(image_encoder(images)))
    assert not torch.allclose(out, image_encoder(images), atol=1e-2)


def test_depth_zero_leaves_the_encoder_alone(image_encoder):
    images = torch.randn(2, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    branch = ImageBranch(image_encoder, BridgeConfig(depth=0), "auto")
    assert torch.equal(branch(images), image_encoder(images))
    assert len(list(branch.parameters())) == len(list(image_encoder.parameters()))


def test_the_bridge_uses_the_configs_kernel(image_encoder):
    branch = ImageBranch(image_encoder, BridgeConfig(depth=1), "explicit")
    assert {m.backend for m in branch.bridge.modules() if isinstance(m, SelfAttention)} == {"explicit"}


def test_bad_settings_are_refused(image_encoder):
    with pytest.raises(UserError, match=r"bridge.depth=-1"):
        BridgeConfig(depth=-1)
    with pytest.raises(UserError, match=r"bridge.num_heads=3 does not divide the encoder's width 64"):
        ImageBranch(image_encoder, BridgeConfig(num_heads=3), "auto")
