"""Decoders and heads of others' files against plain re-statements of what their authors describe."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.pretraining import dinov2_parts, mae_parts
from maskedclip_composer.models.decoder import Decoder
from maskedclip_composer.models.masking import random_masking
from maskedclip_composer.objectives.dinov2 import Dinov2, Dinov2Config

WIDTH, DIM, DEPTH, VALUES = 24, 64, 2, 12  # of encoder and decoder; DIM is two heads of 32


def sincos(rows: int, columns: int, dim: int) -> Tensor:
    """MAE's positions as its paper and Transformer's describe them: half for the column, half for the row."""

    def of(places: np.ndarray) -> np.ndarray:
        angles = places.reshape(-1, 1) / 10000 ** (np.arange(dim // 4) / (dim // 4))
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    row, column = np.divmod(np.arange(rows * columns), columns)
    return torch.tensor(np.concatenate([of(column), of(row)], axis=1), dtype=torch.float32)


class MaeDecoder(nn.Module):
    """Linear map, mask tokens in the gaps, positions, timm's blocks, norm, linear map; the class token is dropped."""

    def __init__(self, side: int):
        super().__init__()
        self.decoder_embed = nn.Linear(WIDTH, DIM)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, DIM))
        positions = torch.cat([torch.zeros(1, DIM), sincos(side, side, DIM)])[None]
        self.decoder_pos_embed = nn.Parameter(positions, requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(DIM, DIM // 32, qkv_bias=True, norm_layer=LayerNorm) for _ in range(DEPTH)
        )
        self.decoder_norm = LayerNorm(DIM)
        self.decoder_pred = nn.Linear(DIM, VALUES)
        for name, parameter in self.named_parameters():
            if name != "decoder_pos_embed":
                nn.init.normal_(parameter, std=0.2)

    def forward(self, tokens: Tensor, ids_restore: Tensor) -> Tensor:
        tokens = self.decoder_embed(tokens)
        rows = []
        for image, order in zip(tokens, ids_restore, strict=True):
            visible, gaps = image[1:], self.mask_token[0].expand(len(order) + 1 - len(image), -1)
            rows.append(torch.cat([image[:1], torch.cat([visible, gaps])[order]]))
        tokens = torch.stack(rows) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_pred(self.decoder_norm(tokens))[:, 1:]


def ours(side: int) -> Decoder:
    return Decoder(embed_dim=WIDTH, grid=(side, side), dim=DIM, depth=DEPTH, num_heads=DIM // 32, out_dim=VALUES)


def write(path: Path, weights: dict[str, Tensor]) -> str:
    torch.save({"model": weights, "args": argparse.Namespace(norm_pix_loss=True)}, path)
    return str(path)


def load_ours(decoder: Decoder, file: str) -> Decoder:
    weights = mae_parts(file)["mim"].weights
    decoder.load_state_dict({key.removeprefix("pixel_decoder."): value for key, value in weights.items()}, strict=True)
    return decoder


@pytest.mark.parametrize("masked_only", [False, True])
def test_maes_decoder_predicts_the_same_patches(tmp_path, masked_only):
    theirs = MaeDecoder(4)
    tokens, mask = torch.randn(3, 5, WIDTH), random_masking(torch.rand(3, 16), 0.75)
    expected = theirs(tokens, mask.ids_restore)
    assert expected.std() > 0.1
    decoder = load_ours(ours(4), write(tmp_path / "mae.pth", theirs.state_dict()))
    if masked_only:
        found = decoder.predict_removed(tokens, mask.ids_keep, mask.ids_removed)
        expected = torch.take_along_dim(expected, mask.ids_removed[:, :, None], dim=1)
    else:
        found = decoder(tokens, mask.ids_restore)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_without_the_new_order_of_channels_the_predictions_would_differ(tmp_path):
    theirs, decoder = MaeDecoder(4), ours(4)
    names = {"decoder_embed": "embed", "decoder_blocks": "transformer.blocks", "decoder_norm": "transformer.norm"}
    names |= {"decoder_pred": "predict", "mask_token": "mask_token"}
    plain = {}
    for key, value in theirs.state_dict().items():
        top, _, rest = key.partition(".")
        if top in names:
            plain[names[top] + ("." + rest if rest else "")] = value
    decoder.load_state_dict(plain, strict=True)
    tokens, mask = torch.randn(3, 5, WIDTH), random_masking(torch.rand(3, 16), 0.75)
    assert (decoder(tokens, mask.ids_restore) - theirs(tokens, mask.ids_restore)).abs().max() > 0.1


def test_another_image_size_has_maes_positions_of_that_size(tmp_path):
    theirs, larger = MaeDecoder(4), MaeDecoder(6)
    weights = theirs.state_dict()
    larger.load_state_dict(weights | {"decoder_pos_embed": larger.decoder_pos_embed})
    tokens, mask = torch.randn(2, 10, WIDTH), random_masking(torch.rand(2, 36), 0.75)
    decoder = load_ours(ours(6), write(tmp_path / "mae.pth", weights))
    torch.testing.assert_close(
        decoder(tokens, mask.ids_restore), larger(tokens, mask.ids_restore), atol=2e-5, rtol=1e-4
    )


def test_what_a_file_of_mae_says_of_its_decoder(tmp_path):
    weights = MaeDecoder(4).state_dict()
    assert mae_parts(write(tmp_path / "a.pth", weights))["mim"].settings == {"dim": 64, "depth": 2, "num_heads": 2}
    assert mae_parts(write(tmp_path / "b.pth", {"cls_token": torch.ones(1)})) == {}
    learnt = weights | {"decoder_pos_embed": weights["decoder_pos_embed"] + 0.01}
    with pytest.raises(UserError, match=r"not MAE's fixed sines and cosines.*\n.*mim out of from_weights"):
        mae_parts(write(tmp_path / "c.pth", learnt))
    for absent in ("decoder_pos_embed", "decoder_embed.weight"):
        with pytest.raises(UserError, match=f"is not whole.\nmissing: {absent}"):
            mae_parts(write(tmp_path / "d.pth", {key: value for key, value in weights.items() if key != absent}))


class DinoHead(nn.Module):
    """DINO's head: linear layers to a normalised feature, and a linear layer of rows with length and direction."""

    def __init__(self):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 20), nn.GELU(), nn.Linear(20, 20), nn.GELU(), nn.Linear(20, 8))
        self.last_layer = nn.utils.weight_norm(nn.Linear(8, 30, bias=False))
        self.last_layer.weight_g.data.fill_(1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(tokens), dim=-1))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_dinov2s_heads_give_the_same_scores(tmp_path):
    heads = {"dino": DinoHead(), "ibot": DinoHead()}
    weights = {f"{name}_head.{key}": value for name, head in heads.items() for key, value in head.state_dict().items()}
    weights |= {"backbone.mask_token": torch.randn(1, WIDTH), "backbone.cls_token": torch.zeros(1, 1, WIDTH)}
    torch.save({"teacher": weights}, tmp_path / "teacher_checkpoint.pth")
    part = dinov2_parts(str(tmp_path / "teacher_checkpoint.pth"))["dinov2"]
    objective = Dinov2(Dinov2Config(prototypes=30, hidden_dim=20, bottleneck_dim=8), WIDTH)
    objective.load_state_dict(part.weights, strict=True)
    tokens = torch.randn(5, WIDTH)
    for name, head in heads.items():
        torch.testing.assert_close(objective.heads[name](tokens), head(tokens))
        torch.testing.assert_close(objective.teacher_heads[name](tokens), head(tokens))
    assert torch.equal(objective.mask_token[0], weights["backbone.mask_token"])

    weights["ibot_head.last_layer.weight_g"] = torch.full((30, 1), 1.1)
    torch.save({"teacher": weights}, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"ibot_head in .* have lengths other than 1"):
        dinov2_parts(str(tmp_path / "b.pth"))
    torch.save({"cls_token": torch.zeros(1, 1, WIDTH), "mask_token": torch.zeros(1, WIDTH)}, tmp_path / "c.pth")
    assert dinov2_parts(str(tmp_path / "c.pth")) == {}  # as facebook publishes it
