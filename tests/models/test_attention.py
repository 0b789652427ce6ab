import pytest
import timm
import torch

from maskedclip_composer.errors import UserError
from maskedclip_composer.models import attention
from maskedclip_composer.models.attention import SelfAttention, use_backend


def pair(**options) -> tuple[SelfAttention, timm.layers.Attention]:
    ours, theirs = SelfAttention(24, num_heads=3, **options), timm.layers.Attention(24, num_heads=3, **options)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("backend", ["auto", "sdpa", "explicit"])
@pytest.mark.parametrize(
    "options",
    [{}, {"qkv_bias": True}, {"qk_norm": True, "norm_layer": torch.nn.LayerNorm}],
    ids=["plain", "bias", "qk_norm"],
)
def test_every_backend_gives_timms_numbers_and_gradients(backend, options):
    ours, theirs = pair(**options)
    use_backend(ours, backend)
    tokens = torch.randn(2, 7, 24, requires_grad=True)
    twin = tokens.detach().clone().requires_grad_()
    out, expected = ours(tokens), theirs(twin)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(tokens.grad, twin.grad, atol=2e-6, rtol=1e-5)


def test_the_backend_is_set_for_every_attention_below(image_encoder):
    use_backend(image_encoder, "explicit")
    assert {m.backend for m in image_encoder.modules() if isinstance(m, SelfAttention)} == {"explicit"}


def test_a_mask_is_refused_rather_than_ignored():
    with pytest.raises(TypeError, match="attn_mask"):
        SelfAttention(24, num_heads=3)(torch.randn(1, 2, 24), attn_mask=torch.ones(2, 2))


def test_xformers_that_is_not_installed_is_refused(monkeypatch, image_encoder):
    monkeypatch.setattr(attention, "_xformers_installed", False)
    with pytest.raises(UserError, match=r"image_encoder.attention=xformers"):
        use_backend(image_encoder, "xformers")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 2e-2)])
def test_xformers_agrees_with_sdpa_on_a_gpu(dtype, tolerance):
    module = SelfAttention(128, num_heads=2, qkv_bias=True).to("cuda", dtype)
    tokens = torch.randn(2, 50, 128, device="cuda", dtype=dtype)
    use_backend(module, "sdpa")
    expected = module(tokens)
    use_backend(module, "xformers")
    torch.testing.assert_close(module(tokens), expected, atol=tolerance, rtol=tolerance)
