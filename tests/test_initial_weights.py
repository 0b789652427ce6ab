"""Pre-training that goes on from weights: the readers of the evaluation, an exact architecture, a record."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from timm.layers import resample_abs_pos_embed
from timm.models import VisionTransformer
from torch import nn

import train
from maskedclip_composer.build import build_model
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.export.encoder import load_encoder, save_encoder
from maskedclip_composer.export.origin import read_origin
from maskedclip_composer.initial_weights import read_start
from maskedclip_composer.models.vit import IMAGE_MEAN, build_vit
from tests import tiny
from tests.training.conftest import DEBUG, overrides, shards  # noqa: F401  fixtures

TINY = ["image_encoder.name=vit_tiny_patch16_224", "image_encoder.patch_size=16", "image_encoder.depth=2"]
MEAN, STD = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)


def config(*more: str) -> TrainConfig:
    return load_config(TrainConfig, DEBUG, list(more))


@pytest.fixture
def model(text_tower: Path):
    def build(*more: str):
        return build_model(config(f"text_encoder.name={text_tower}", "data.max_tokens=32", *more))

    return build


def random(vit: VisionTransformer) -> VisionTransformer:
    """Give a value of its own to every parameter, also to those that start at zero."""
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.1)
    return vit.eval()


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    vit = random(tiny.image_encoder().vit)
    path = tmp_path / "earlier" / "encoder.safetensors"
    save_encoder(path, vit, name="test_vit", image_size=32, patch_size=8, mean=MEAN, std=STD)
    return path


def retfound(path: Path, **arguments) -> VisionTransformer:
    """As its training script writes a ViT: options and decoder beside the weights."""
    vit = random(
        VisionTransformer(
            **{"img_size": 32, "embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 0} | arguments
        )
    )
    weights = vit.state_dict() | {"decoder_embed.weight": torch.ones(8, 192), "mask_token": torch.ones(1, 1, 8)}
    torch.save({"model": weights, "args": argparse.Namespace(lr=1e-3), "epoch": 799}, path)
    return vit


@pytest.mark.parametrize("given", ["encoder.safetensors", ""])
def test_an_exported_encoder_gives_the_same_tokens_bit_for_bit(model, exported: Path, given: str):
    net = model(f"image_encoder.weights={exported.parent / given}").net
    encoder, images = net.branch.image_encoder, torch.randn(2, 3, 32, 32)
    before = tiny.image_encoder()
    before.vit.load_state_dict(load_encoder(str(exported)).vit.state_dict())
    assert torch.equal(encoder(images), before(images))
    assert (encoder.image_mean, encoder.image_std) == (MEAN, STD)
    assert net.image_mean.flatten().tolist() == pytest.approx(MEAN)
    assert encoder.vit.pos_embed.requires_grad
    assert torch.equal(net.teacher.image_encoder(images), encoder(images))


def test_all_other_modules_are_drawn_alike_whatever_the_start(model, exported: Path, tmp_path: Path):
    other = tmp_path / "other.safetensors"
    save_encoder(other, random(tiny.image_encoder().vit), name="test_vit", image_size=32, patch_size=8)
    states = []
    for source in (exported, other):
        torch.manual_seed(3)
        states.append(model(f"image_encoder.weights={source}").state_dict())
    same = {key for key, value in states[0].items() if torch.equal(value, states[1][key])}
    assert set(states[0]) - same == {key for key in states[0] if ".image_encoder.vit." in key}


@pytest.mark.parametrize("kind", ["mae", "retfound"])
def test_a_file_of_mae_or_retfound_gives_timms_tokens(model, tmp_path: Path, kind: str):
    vit = retfound(tmp_path / "a.pth")
    encoder = model(*TINY, f"image_encoder.weights={kind}:{tmp_path / 'a.pth'}").net.branch.image_encoder
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder(images), vit.forward_features(images), atol=1e-5, rtol=1e-5)
    assert encoder.image_mean == IMAGE_MEAN


def test_positions_are_resampled_to_the_size_of_the_data(model, tmp_path: Path):
    vit = retfound(tmp_path / "a.pth")
    start = f"image_encoder.weights=retfound:{tmp_path / 'a.pth'}"
    encoder = model(*TINY, "data.image_size=64", start).net.branch.image_encoder
    torch.testing.assert_close(encoder.vit.pos_embed, resample_abs_pos_embed(vit.pos_embed, [4, 4], [2, 2]))
    assert "resampled from 32 to 64" in read_start(config(*TINY, "data.image_size=64", start)).origin.description


def test_timms_file(model, tmp_path: Path):
    vit = random(build_vit("vit_tiny_patch16_224", 224))
    torch.save(vit.state_dict(), tmp_path / "a.pth")
    source = f"image_encoder.weights=timm:vit_tiny_patch16_224@{tmp_path / 'a.pth'}"
    encoder = model(TINY[0], TINY[1], "data.image_size=224", source).net.branch.image_encoder
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(encoder(images), vit.forward_features(images), atol=1e-5, rtol=1e-5)
    assert encoder.image_mean == (0.5, 0.5, 0.5)  # of timm's own weights of that name


@pytest.mark.parametrize(
    ("written", "given", "message"),
    [
        ({"depth": 3}, TINY, "width 192, depth 3, heads 3.*image_encoder.name=vit_tiny_patch16_224.*depth 2, heads 3"),
        ({"patch_size": 8}, TINY, "patch size 8.*patch size 16"),
        ({"embed_dim": 64, "num_heads": 1, "patch_size": 8, "depth": 6}, [], "heads 1.*image_encoder.name=test_vit"),
        ({"mlp_ratio": 2}, TINY, r"fc1\.bias: \[384\] in the file, \[768\] in image_encoder.name=vit_tiny_patch16_224"),
        ({"init_values": 1.0}, TINY, r"unexpected: blocks\.0\.ls1\.gamma"),
        ({"global_pool": "avg", "num_classes": 5}, TINY, "norm after the mean.*before the fine-tuning"),
    ],
)
def test_another_architecture_is_refused_and_both_are_named(tmp_path: Path, written, given: list[str], message: str):
    retfound(tmp_path / "a.pth", **written)
    with pytest.raises(UserError, match=f"(?s)image_encoder.weights=mae:.*a.pth.*{message}"):
        read_start(config(*given, f"image_encoder.weights=mae:{tmp_path / 'a.pth'}"))


def test_what_shapes_do_not_show_is_compared_too(tmp_path: Path):
    """CLIP's published ViTs have another activation than their twins in timm with the same shapes."""
    name = "vit_base_patch16_clip_quickgelu_224"
    given = ["image_encoder.name=vit_base_patch16_clip_224", "image_encoder.patch_size=16", "data.image_size=224"]
    torch.save(build_vit(name, 224).state_dict(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"(?s)activation QuickGELU.*describes.*activation GELU"):
        read_start(config(*given, f"image_encoder.weights=timm:{name}@{tmp_path / 'a.pth'}"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/encoder.safetensors", "cannot be read.*nowhere/encoder.safetensors"),
        ("retfound:nowhere.pth", "cannot be read.*nowhere.pth"),
        ("nowhere", "cannot be read.*no such run folder"),
        ("retfond:a.pth", "cannot be read.*retfond: is no kind of encoder"),
    ],
)
def test_absent_weights(source: str, message: str):
    with pytest.raises(UserError, match=f"(?s)image_encoder.weights={source} {message}"):
        read_start(config(f"image_encoder.weights={source}"))


def test_no_vit(tmp_path: Path):
    import timm

    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"is a ResNet, not one of timm's ViTs"):
        read_start(config(f"image_encoder.weights=timm:test_resnet@{tmp_path / 'a.pth'}"))


def test_two_starts_are_refused():
    with pytest.raises(UserError, match=r"image_encoder.weights=a and image_encoder.pretrained=true both say"):
        config("image_encoder.weights=a", "image_encoder.pretrained=true")


def test_a_run_records_its_start_and_continues_without_the_file(
    overrides: Callable[..., list[str]],  # noqa: F811
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    short = ["optimizer.warmup=1ba", "checkpoint.interval=1ba", f"image_encoder.weights={exported}"]
    assert train.main([DEBUG, *overrides("trainer.max_duration=2ba", *short)]) == 0
    run = tmp_path / "runs" / "debug"
    origin = read_origin(run)
    assert origin is not None
    assert (origin.source, origin.mean, origin.std) == (str(exported), MEAN, STD)
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("maskedclip")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.data.params["image_encoder.weights"] == str(exported)
    assert logged.data.params["origin.sha256"] == origin.sha256

    exported.unlink()
    assert train.main([DEBUG, *overrides("trainer.max_duration=3ba", *short)]) == 0
    assert read_origin(run) == origin
    for source in (run / "encoder.safetensors", run / "checkpoints" / "latest-rank0.pt"):
        loaded = load_encoder(str(source))
        assert (loaded.mean, loaded.std) == (MEAN, STD)

    capsys.readouterr()
    assert train.main([DEBUG, *overrides("trainer.max_duration=3ba", "run_name=other", *short)]) == 2
    assert f"image_encoder.weights={exported} cannot be read" in capsys.readouterr().err
    (run / "origin.json").write_text(json.dumps({"source": "a"}))
    with pytest.raises(UserError, match=r"origin\.json is damaged"):
        load_encoder(str(run / "checkpoints" / "latest-rank0.pt"))
    (run / "origin.json").unlink()
    with pytest.raises(UserError, match=r"origin\.json, which says how images are normalised"):
        load_encoder(str(run / "checkpoints" / "latest-rank0.pt"))
