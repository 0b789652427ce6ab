import pytest
import torch
from torch import nn
from transformers.models.vit_mae.modeling_vit_mae import get_2d_sincos_pos_embed

from maskedclip_composer.models.transformer import Transformer, sincos_positions


def test_without_blocks_it_is_the_identity_and_has_no_parameters():
    transformer = Transformer(32, 0, 2)
    tokens = torch.randn(2, 5, 32)
    assert transformer(tokens) is tokens
    assert not list(transformer.parameters())


def test_its_blocks_are_pre_norm_and_end_in_a_norm():
    """The same numbers from torch's own encoder layers."""
    ours = Transformer(32, 2, 4).double()
    theirs = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(
            32, 4, 128, dropout=0, activation="gelu", batch_first=True, norm_first=True, layer_norm_eps=1e-6
        ),
        2,
        norm=nn.LayerNorm(32, eps=1e-6),
        enable_nested_tensor=False,
    ).double()
    renamed = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attn.qkv.": "self_attn.in_proj_",
        "attn.proj": "self_attn.out_proj",
        "mlp.fc1": "linear1",
        "mlp.fc2": "linear2",
        "blocks": "layers",
    }
    state = {}
    for name, value in ours.state_dict().items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        state[name] = torch.randn_like(value) * 0.3
    theirs.load_state_dict(state, strict=True)
    for name, parameter in ours.state_dict().items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        parameter.copy_(state[name])
    tokens = torch.randn(2, 5, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(tokens), theirs(tokens))


def test_positions_are_maes_up_to_the_order_of_channels():
    ours = sincos_positions((4, 4), 32)[0].double()
    maes = torch.from_numpy(get_2d_sincos_pos_embed(32, 4, add_cls_token=True))
    assert ours[0].abs().sum() == 0

    distance = torch.cdist(ours.T, maes.T)
    assert distance.min(dim=0).values.max() < 1e-5
    assert distance.min(dim=1).values.max() < 1e-5


def test_positions_of_an_oblong_grid_tell_every_patch_apart():
    positions = sincos_positions((2, 5), 32)[0]
    assert positions.shape == (11, 32)
    assert (torch.cdist(positions, positions) + 9 * torch.eye(11)).min() > 0.1


def test_a_width_that_sine_and_cosine_cannot_share_is_refused():
    with pytest.raises(ValueError, match="divisible by 4, not 30"):
        sincos_positions((2, 2), 30)
