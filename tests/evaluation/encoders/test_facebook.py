import argparse
import pathlib

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.layers.mlp import SwiGLUPacked
from timm.models import VisionTransformer
from torch import nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders import facebook
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.evaluation.encoders.vit import ViTEncoder
from maskedclip_composer.models.vit import IMAGE_MEAN
from tests.evaluation.encoders.layers import check_layers
from tests.evaluation.encoders.payload import Payload


def build(**arguments) -> VisionTransformer:
    vit = VisionTransformer(
        **(
            {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 3, "num_heads": 2, "num_classes": 0}
            | arguments
        )
    )
    for parameter in vit.parameters():  # also what starts at zero, such as biases and tokens
        nn.init.normal_(parameter, std=0.1)
    return vit.eval()


def mean_patch(vit: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """Block by block, without timm's pooling."""
    with torch.no_grad():
        tokens = vit.patch_embed(images)
        positions = vit.pos_embed if not vit.no_embed_class else torch.cat([vit.pos_embed[:, :0], vit.pos_embed], 1)
        if vit.no_embed_class:
            tokens = tokens + positions
            before = [vit.cls_token, vit.reg_token]
        else:
            tokens = tokens + positions[:, 1:]
            before = [vit.cls_token + positions[:, :1]]
        tokens = torch.cat([token.expand(len(images), -1, -1) for token in before] + [tokens], dim=1)
        for block in vit.blocks:
            tokens = block(tokens)
        return vit.norm(tokens)[:, -vit.patch_embed.num_patches :].mean(dim=1)


@pytest.fixture(scope="module")
def vit():
    return build()


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32)


def decoder() -> dict[str, torch.Tensor]:
    names = ("mask_token", "decoder_embed.weight", "decoder_pos_embed", "decoder_blocks.0.norm1.bias")
    return {name: torch.ones(1, 1, 64) for name in (*names, "decoder_norm.weight", "decoder_pred.bias")}


def write(path: pathlib.Path, weights, **beside) -> pathlib.Path:
    """As facebook's training script does it, options included."""
    options = argparse.Namespace(lr=1e-3, model="mae_vit_large_patch16")
    torch.save({"model": weights, "args": options, "epoch": 799} | beside, path)
    return path


@pytest.mark.parametrize("kind", ["mae", "retfound"])
@pytest.mark.parametrize(
    "beside", [{}, decoder(), {"head.weight": torch.ones(5, 128), "fc_norm.bias": torch.ones(128)}]
)
def test_mae_files_give_the_encoder_and_nothing_else(tmp_path, vit, images, kind, beside):
    encoder = load(f"{kind}:{write(tmp_path / 'a.pth', vit.state_dict() | beside)}")
    assert (encoder.image_size, encoder.dim, encoder.mean) == (32, 128, IMAGE_MEAN)
    torch.testing.assert_close(encoder.features(images), mean_patch(vit, images), atol=1e-5, rtol=1e-5)
    assert set(encoder.module.state_dict()) == set(vit.state_dict())


def test_bare_weights_safetensors_and_files_of_old_torch(tmp_path, vit, images):
    expected = mean_patch(vit, images)
    torch.save(vit.state_dict(), tmp_path / "bare.pth")
    torch.save({"model": vit.state_dict()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(vit.state_dict(), tmp_path / "bare.safetensors")
    for name in ("bare.pth", "old.pth", "bare.safetensors"):
        torch.testing.assert_close(load(f"mae:{tmp_path / name}").features(images), expected, atol=1e-5, rtol=1e-5)


def test_a_file_fine_tuned_on_the_mean_has_its_norm_after_it(tmp_path, images):
    tuned = build(num_classes=5, global_pool="avg")
    assert "norm.weight" not in tuned.state_dict()
    encoder = load(f"retfound:{write(tmp_path / 'tuned.pth', tuned.state_dict())}")
    with torch.no_grad():
        expected = tuned.forward_head(tuned.forward_features(images), pre_logits=True)
    torch.testing.assert_close(encoder.features(images), expected, atol=1e-5, rtol=1e-5)
    assert encoder.features(images).std() > 0.01
    classifier = encoder.classifier(3, 0.0)
    assert torch.equal(classifier.fc_norm.weight, torch.ones(128))  # the old task's norm is not carried over


def test_another_image_size_resamples_the_positions_and_says_so(tmp_path, vit):
    encoder = load(f"retfound:{write(tmp_path / 'a.pth', vit.state_dict())}", image_size=64)
    torch.testing.assert_close(encoder.module.pos_embed, resample_abs_pos_embed(vit.pos_embed, [8, 8], [4, 4]))
    assert "resampled from 32 to 64" in encoder.description
    assert encoder.features(torch.zeros(1, 3, 64, 64)).shape == (1, 128)
    with pytest.raises(UserError, match="image_size=60 is not divisible by the patch size 8"):
        load(f"retfound:{tmp_path / 'a.pth'}", image_size=60)


def changed(vit, **changes):
    return {key: value for key, value in (vit.state_dict() | changes).items() if value is not None}


@pytest.mark.parametrize("kind", ["mae", "dinov2"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.1.attn.qkv.bias": None}, r"missing: blocks\.1\.attn\.qkv\.bias"),
        ({"blocks.7.norm1.bias": torch.zeros(128)}, r"missing: blocks\.3\.attn"),  # eight blocks, four of them absent
        ({"extra.weight": torch.zeros(1)}, r"unexpected: extra\.weight"),
        ({"norm.weight": torch.zeros(3)}, r"norm\.weight: \[3\] in the file, \[128\] in the ViT"),
        ({"blocks.2.mlp.fc1.weight": torch.zeros(9, 128)}, r"\[9, 128\] in the file, \[512, 128\]"),
        ({"pos_embed": torch.zeros(1, 16, 128)}, "16 positions"),
        ({"pos_embed": torch.zeros(16, 128)}, "three dimensions"),
        ({"cls_token": None}, "holds no ViT:\nmissing: cls_token"),
        ({"note": "a word"}, "does not hold weights alone.*\nnote: a str"),
        ({"norm.weight": None, "fc_norm.bias": torch.zeros(128)}, r"missing: norm\.weight"),
    ],
)
def test_what_does_not_fit_is_listed(tmp_path, vit, kind, changes, message):
    with pytest.raises(UserError, match=message):
        load(f"{kind}:{write(tmp_path / 'a.pth', changed(vit, **changes))}")


def test_the_wrapper_of_distributed_training_is_taken_off_only_where_every_name_has_it(tmp_path, vit, images):
    """RETFound once loaded such names with strict=False: none matched, and nothing was said."""
    wrapped = {f"module.{key}": value for key, value in vit.state_dict().items()}
    encoder = load(f"retfound:{write(tmp_path / 'all.pth', wrapped)}")
    torch.testing.assert_close(encoder.features(images), mean_patch(vit, images), atol=1e-5, rtol=1e-5)
    wrapped["norm.weight"] = wrapped.pop("module.norm.weight")
    with pytest.raises(UserError, match="patch_embed"):
        load(f"retfound:{write(tmp_path / 'some.pth', wrapped)}")
    some = vit.state_dict() | {"module.norm.weight": vit.norm.weight}
    with pytest.raises(UserError, match=r"unexpected: module\.norm\.weight"):
        load(f"retfound:{write(tmp_path / 'one.pth', some)}")


def test_code_in_a_file_does_not_run(tmp_path, vit):
    path = write(tmp_path / "a.pth", vit.state_dict(), extra=Payload(tmp_path / "executed"))
    with pytest.raises(UserError, match=r"refused: it holds an object of type \S*mkdir"):
        load(f"retfound:{path}")
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists()  # the payload was live


def test_other_objects_are_refused_by_name(tmp_path, vit):
    with pytest.raises(UserError, match=r"of type pathlib\.\S*Path"):
        load(f"mae:{write(tmp_path / 'a.pth', vit.state_dict(), folder=pathlib.PurePosixPath('x'))}")
    hidden = argparse.Namespace(hook=Payload(tmp_path / "executed"))
    with pytest.raises(UserError, match="mkdir"):
        load(f"mae:{write(tmp_path / 'b.pth', vit.state_dict(), args=hidden)}")
    assert not (tmp_path / "executed").exists()


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="No file with weights"):
        load(f"mae:{tmp_path / 'absent.pth'}")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match="not a readable"):
        load(f"mae:{tmp_path / 'cut.pth'}")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="not a readable safetensors"):
        load(f"mae:{tmp_path / 'cut.safetensors'}")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list"):
        load(f"mae:{tmp_path / 'list.pth'}")


def dinov2(vit: VisionTransformer, *, registers: bool = False, gated: bool = False) -> dict[str, torch.Tensor]:
    """The names and parts of facebook's file, from a timm model."""
    weights = dict(vit.state_dict()) | {"mask_token": torch.ones(1, vit.embed_dim)}
    if registers:
        class_position = torch.full_like(weights["cls_token"], 0.3)
        weights["register_tokens"] = weights.pop("reg_token")
        weights["cls_token"] = weights["cls_token"] - class_position
        weights["pos_embed"] = torch.cat([class_position, weights["pos_embed"]], dim=1)
    if gated:
        weights = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): weights[key] for key in weights}
    return weights


@pytest.mark.parametrize(
    ("arguments", "layout"),
    [
        ({}, {}),
        ({"init_values": 1.0}, {}),
        ({"init_values": 1.0, "reg_tokens": 4, "no_embed_class": True}, {"registers": True}),
        ({"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 5.33334}, {"gated": True}),
    ],
)
@pytest.mark.parametrize("training_file", [False, True])
def test_dinov2_files(tmp_path, images, arguments, layout, training_file):
    vit = build(**arguments)
    content = dinov2(vit, **layout)
    if training_file:  # blocks in chunks of two, and the heads of the losses
        number = lambda key: int(key.split(".")[1]) if key.startswith("blocks.") else 0  # noqa: E731
        content = {
            "backbone." + key.replace("blocks.", f"blocks.{number(key) // 2}.", 1): content[key] for key in content
        }
        content = {"teacher": content | {"dino_head.mlp.0.bias": torch.ones(3), "ibot_head.mlp.0.bias": torch.ones(3)}}
    torch.save(content, tmp_path / "dinov2.pth")
    encoder = load(f"dinov2:{tmp_path / 'dinov2.pth'}")
    torch.testing.assert_close(encoder.features(images), mean_patch(vit, images), atol=1e-5, rtol=1e-5)
    assert set(encoder.module.state_dict()) == set(vit.state_dict())


def test_timms_names_for_registers_are_pointed_to_timm(tmp_path):
    vit = build(reg_tokens=4)
    torch.save(vit.state_dict(), tmp_path / "a.pth")
    with pytest.raises(UserError, match="Use timm:NAME@"):
        load(f"dinov2:{tmp_path / 'a.pth'}")


def test_retfounds_classifier(tmp_path, vit):
    encoder = load(f"retfound:{write(tmp_path / 'a.pth', vit.state_dict())}")
    assert isinstance(encoder, ViTEncoder)
    scales = check_layers(encoder.classifier(3, 0.2), first="patch_embed.proj.weight", head="head.weight", size=32)
    assert [scales[f"blocks.{index}.attn.qkv.weight"] for index in range(3)] == [0.125, 0.25, 0.5]
    assert scales["pos_embed"] == 0.0625
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in encoder.classifier(3, 0.2).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])


def test_the_large_vit_of_224_pixels_is_recognised(tmp_path):
    """The names and shapes of RETFound's release, without its gigabyte."""
    from maskedclip_composer.evaluation.encoders.facebook import _architecture

    with torch.device("meta"):
        large = VisionTransformer(embed_dim=1024, depth=24, num_heads=16, num_classes=0)
    size, arguments = _architecture(large.state_dict(), tmp_path)
    assert size == 224
    assert {key: arguments[key] for key in ("embed_dim", "depth", "num_heads", "patch_size")} == {
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "patch_size": 16,
    }


def test_the_heads_of_maes_largest_model_are_wider_than_the_others():
    with torch.device("meta"):
        vit = timm.create_model("vit_huge_patch14_224")
        assert isinstance(vit, VisionTransformer)
        weights = {key: value for key, value in vit.state_dict().items() if not key.startswith("head")}
    _, arguments = facebook._architecture(weights, pathlib.Path("mae_huge.pth"))
    assert arguments["num_heads"] == vit.blocks[0].attn.num_heads == 16
    assert (arguments["img_size"], arguments["depth"]) == (224, 32)
