import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.mim import MaskedImageModelling, MimConfig, patchify
from tests import tiny


def to_transformers(net: PretrainNet, *, norm_pix_loss: bool) -> ViTMAEForPreTraining:
    """Build transformers' MAE with the weights of `net`."""
    config = ViTMAEConfig(
        image_size=tiny.IMAGE_SIZE,
        patch_size=tiny.PATCH_SIZE,
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=192,
        layer_norm_eps=1e-6,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=128,
        norm_pix_loss=norm_pix_loss,
    )
    mae = ViTMAEForPreTraining(config)
    vit = net.branch.image_encoder.vit.state_dict()
    decoder = net.objectives["mim"].pixel_decoder.state_dict()
    weights = {
        "vit.embeddings.cls_token": vit["cls_token"],
        "vit.embeddings.position_embeddings": vit["pos_embed"],
        "vit.embeddings.patch_embeddings.projection.weight": vit["patch_embed.proj.weight"],
        "vit.embeddings.patch_embeddings.projection.bias": vit["patch_embed.proj.bias"],
        "decoder.mask_token": decoder["mask_token"],
        "decoder.decoder_pos_embed": net.objectives["mim"].pixel_decoder.positions,
    }
    pairs = [("vit.layernorm", vit, "norm"), ("decoder.decoder_embed", decoder, "embed")]
    pairs += [("decoder.decoder_norm", decoder, "transformer.norm"), ("decoder.decoder_pred", decoder, "predict")]
    stacks = [(6, "vit.encoder.layer", vit, "blocks"), (2, "decoder.decoder_layers", decoder, "transformer.blocks")]
    for depth, theirs, state, ours in stacks:
        for i in range(depth):
            pairs += [
                (f"{theirs}.{i}.layernorm_before", state, f"{ours}.{i}.norm1"),
                (f"{theirs}.{i}.layernorm_after", state, f"{ours}.{i}.norm2"),
                (f"{theirs}.{i}.attention.output.dense", state, f"{ours}.{i}.attn.proj"),
                (f"{theirs}.{i}.intermediate.dense", state, f"{ours}.{i}.mlp.fc1"),
                (f"{theirs}.{i}.output.dense", state, f"{ours}.{i}.mlp.fc2"),
            ]
            for kind in ("weight", "bias"):
                split = state[f"{ours}.{i}.attn.qkv.{kind}"].chunk(3)
                for name, value in zip(("query", "key", "value"), split, strict=True):
                    weights[f"{theirs}.{i}.attention.attention.{name}.{kind}"] = value
    weights |= {f"{t}.{kind}": state[f"{o}.{kind}"] for t, state, o in pairs for kind in ("weight", "bias")}
    mae.load_state_dict(weights, strict=True)
    return mae


@pytest.mark.parametrize("masked_only", [True, False])
@pytest.mark.parametrize("target_norm", ["none", "patch"])
def test_it_is_transformers_masked_autoencoder(batch, target_norm, masked_only):
    encoder = tiny.image_encoder()
    for parameter in encoder.parameters():  # biases and norms at their first values would hide a swap
        torch.nn.init.normal_(parameter, std=0.15)
    mim = MaskedImageModelling(
        MimConfig(dim=32, depth=2, num_heads=2, target_norm=target_norm), encoder, masked_only=masked_only
    )
    net = PretrainNet(
        ImageBranch(encoder, BridgeConfig(depth=0), "auto"), None, {"mim": mim}, mask_ratio=0.75, with_teacher=False
    )
    mae = to_transformers(net, norm_pix_loss=target_norm == "patch")
    outputs = net(batch)
    loss = MaskedCLIP(net).loss(outputs, batch)["mim"]

    images = net.normalise(torch.cat([batch["paired"]["image"], batch["unpaired"]["image"]]))
    noise = torch.cat([batch["paired"]["noise"], batch["unpaired"]["noise"]])
    expected = mae(images, noise=noise)
    logits = expected.logits
    if masked_only:
        removed = outputs["shown"]["mim_removed"]
        assert torch.equal(torch.zeros_like(expected.mask).scatter(1, removed, 1.0), expected.mask)
        logits = logits.take_along_dim(removed[:, :, None], 1)
    else:
        assert torch.equal(outputs["mim"]["mask"], expected.mask)
    torch.testing.assert_close(outputs["mim"]["prediction"], logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss, expected.loss, atol=1e-6, rtol=1e-5)

    loss.backward()
    expected.loss.backward()
    ours, theirs = mim.pixel_decoder.mask_token.grad, mae.decoder.mask_token.grad
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-3)
    ours = encoder.vit.patch_embed.proj.weight.grad
    theirs = mae.vit.embeddings.patch_embeddings.projection.weight.grad
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-3)


def test_patchify_orders_values_by_row_column_channel():
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    for n in range(2):
        for index, patch in enumerate(patches[n]):
            top, left = index // 3 * 2, index % 3 * 2
            cut = images[n, :, top : top + 2, left : left + 2]
            assert patch.tolist() == [int(cut[c, r, k]) for r in range(2) for k in range(2) for c in range(3)]


def test_a_flat_patch_has_a_finite_normalised_target(batch):
    net = tiny.net("mae")
    net.objectives["mim"].target_norm = "patch"
    views = Views(net, batch)
    views.images = torch.full_like(views.images, 0.7)
    assert net.objectives["mim"](views)["target"].abs().max() < 1e-3


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match=r"objectives.mim.dim=40 must be divisible by num_heads=6"):
        MimConfig(dim=40)
    with pytest.raises(UserError, match=r"objectives.mim.dim=6 must be divisible .* and by 4"):
        MimConfig(dim=6, num_heads=3)
    with pytest.raises(UserError, match=r"objectives.mim.weight=0 is not positive.*\n.*Remove objectives.mim"):
        MimConfig(weight=0)
