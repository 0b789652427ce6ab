"""Bridge, text encoder, teacher, heads and decoders that go on from weights: what both have, whole, or an error."""

import json
from pathlib import Path

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from timm.models import VisionTransformer
from torch import Tensor

from maskedclip_composer.build import build_model
from maskedclip_composer.config import TrainConfig, to_yaml
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.fingerprint import weights_sha256
from maskedclip_composer.export.origin import read_origin
from maskedclip_composer.export.parts import parts_of_checkpoint
from maskedclip_composer.initial_weights import find_start, read_start
from maskedclip_composer.models.pretrain import MaskedCLIP
from tests.evaluation.encoders.test_pretraining import MaeDecoder, write
from tests.test_initial_weights import DEBUG, TINY, random


@pytest.fixture(scope="module")
def settings(text_tower: Path) -> list[str]:
    return [f"text_encoder.name={text_tower}", "data.max_tokens=32"]


def changed(model: MaskedCLIP) -> MaskedCLIP:
    """Give every weight a value that no initialisation has, teacher and student different ones."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def run(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A run's folder as training leaves it, as far as another run reads it, and its weights."""
    folder = tmp_path_factory.mktemp("runs") / "earlier"
    config = load_config(TrainConfig, DEBUG, settings)
    torch.manual_seed(5)
    weights = changed(build_model(config)).state_dict()
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    torch.save({"state": {"model": weights}}, folder / "checkpoints" / "latest-rank0.pt")
    return folder, weights


def loaded(settings: list[str], *more: str) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return build_model(load_config(TrainConfig, DEBUG, [*settings, *more])).state_dict()


def without(settings: list[str], *names: str) -> list[str]:
    return [*settings, *(f"objectives.{name}=null" for name in names)]


@pytest.mark.parametrize("given", ["", "latest", "checkpoints/latest-rank0.pt"])
def test_everything_of_an_earlier_run(run, settings, given: str):
    folder, weights = run
    found = loaded(settings, f"image_encoder.weights={folder / given}", "from_weights=[all]")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], value) for key, value in weights.items())
    assert not torch.equal(found["net.teacher.bridge.norm.weight"], found["net.branch.bridge.norm.weight"])


def test_a_run_of_other_objectives_takes_what_both_have(run, settings):
    folder, weights = run
    start = [f"image_encoder.weights={folder}", "from_weights=[all]"]
    config = load_config(TrainConfig, DEBUG, [*without(settings, "mim", "mfd"), "data.unpaired=null", *start])
    origin = read_start(config).origin
    assert set(origin.parts) == {"bridge", "text_encoder", "lg_clip"}
    assert origin.fresh == ()
    found = build_model(config).state_dict()
    assert set(found) < set(weights)
    assert all(torch.equal(value, weights[key]) for key, value in found.items())


def test_parts_that_are_not_named_start_as_without_weights(run, settings, capsys):
    folder, weights = run
    start = [f"image_encoder.weights={folder}", "from_weights=[bridge,mim]"]
    found, before = loaded(settings, *start), loaded(settings)
    parts, theirs, fresh = map(parts_of_checkpoint, (found, weights, before))
    for name in ("bridge", "mim"):
        assert all(torch.equal(parts[name][key], value) for key, value in theirs[name].items())
    for name in ("text_encoder", "mfd", "lg_clip"):
        assert parts[name].keys() == fresh[name].keys()
        assert not any(torch.equal(parts[name][key], theirs[name][key]) for key in theirs[name])
    # The teacher copies the student as it starts, its bridge too.
    assert all(
        torch.equal(value, found[key.replace("teacher", "branch")]) for key, value in found.items() if "teacher" in key
    )

    config = load_config(TrainConfig, DEBUG, [*settings, *start, "output=nowhere"])
    started = find_start(config, Path("nowhere"))
    assert started is not None
    assert started.origin.parts == {name: weights_sha256(theirs[name], "") for name in ("bridge", "mim")}
    assert started.origin.fresh == ("text_encoder", "teacher", "lg_clip", "mfd")
    assert capsys.readouterr().out == (
        f"From {folder}: image_encoder, bridge, mim. As without weights: text_encoder, teacher, lg_clip, mfd.\n"
    )


def test_at_another_image_size_the_teachers_positions_are_resampled_too(run, settings):
    folder, weights = run
    start = [f"image_encoder.weights={folder}", "from_weights=[teacher,mim]", "data.image_size=48"]
    found = loaded(settings, *start)
    for side in ("branch", "teacher"):
        key = f"net.{side}.image_encoder.vit.pos_embed"
        torch.testing.assert_close(found[key], resample_abs_pos_embed(weights[key], [6, 6], [4, 4]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["from_weights=[bridge]", "bridge.num_heads=1"], r"bridge of .* has .*num_heads=2.*Write bridge.num_heads=2"),
        (["from_weights=[all]", "bridge.depth=2"], r"depth=1.*this run's has depth=2.*Write bridge.depth=1"),
        (["from_weights=[mim]", "objectives.mim.dim=64"], r"dim=32.*Write objectives.mim.dim=32, or leave mim out"),
        (["from_weights=[mfd]", "objectives.mfd.num_heads=1"], r"mfd of .* has dim=64, depth=1, num_heads=2"),
        (
            ["from_weights=[dinov2]", "objectives.dinov2={prototypes: 8}", "data.crops={local_size: 16}"],
            "holds no dinov2.*It holds",
        ),
    ],
)
def test_a_part_that_is_absent_or_other_is_refused(run, settings, more: list[str], message: str):
    config = load_config(TrainConfig, DEBUG, [*settings, f"image_encoder.weights={run[0]}", *more])
    with pytest.raises(UserError, match=f"(?s){message}"):
        read_start(config)


def test_a_part_that_lacks_a_weight_is_refused(run, settings, tmp_path: Path):
    folder, weights = run
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text((folder / "config.yaml").read_text())
    less = {key: value for key, value in weights.items() if key != "net.objectives.mim.pixel_decoder.predict.bias"}
    torch.save({"state": {"model": less}}, tmp_path / "checkpoints" / "latest-rank0.pt")
    with pytest.raises(UserError, match=r"(?s)mim of image_encoder.weights=.*missing: pixel_decoder.predict.bias"):
        loaded(settings, f"image_encoder.weights={tmp_path}", "from_weights=[mim]")


def test_the_file_of_an_encoder_has_no_parts(run, settings, tmp_path: Path):
    from maskedclip_composer.export.encoder import load_encoder, save_encoder

    save_encoder(
        tmp_path / "encoder.safetensors", load_encoder(str(run[0])).vit, name="test_vit", image_size=32, patch_size=8
    )
    for source in (tmp_path, tmp_path / "encoder.safetensors"):
        config = load_config(
            TrainConfig, DEBUG, [*settings, f"image_encoder.weights={source}", "from_weights=[bridge]"]
        )
        with pytest.raises(
            UserError, match=r"(?s)holds no bridge.*It holds image_encoder; this run has image_encoder, b"
        ):
            read_start(config)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["from_weights=[mim]"], "image_encoder.weights, the source, is not"),
        (["image_encoder.weights=a", "from_weights=[mim,mim]"], "twice"),
        (["image_encoder.weights=a", "from_weights=[all,mim]"], "twice"),
        (
            ["image_encoder.weights=a", "from_weights=[brigde]"],
            "brigde is no part of this run.*bridge, text_encoder, t",
        ),
        (["image_encoder.weights=a", "from_weights=[dinov2]"], "dinov2 is no part"),
        (["image_encoder.weights=a", "from_weights=[bridge]", "bridge.depth=0"], "bridge is no part"),
    ],
)
def test_names_are_checked_with_the_config(given: list[str], message: str):
    with pytest.raises(UserError, match=f"(?s)from_weights=.*{message}"):
        load_config(TrainConfig, DEBUG, given)


@pytest.fixture
def mae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, MaeDecoder]:
    """A pre-training file of MAE with its decoder, 192 to 64 channels."""
    from tests.evaluation.encoders import test_pretraining

    monkeypatch.setattr(test_pretraining, "WIDTH", 192)
    monkeypatch.setattr(test_pretraining, "VALUES", 768)
    decoder = MaeDecoder(2)
    vit = random(VisionTransformer(img_size=32, embed_dim=192, depth=2, num_heads=3, num_classes=0))
    return write(tmp_path / "mae.pth", vit.state_dict() | decoder.state_dict()), decoder


def test_a_file_of_mae_brings_encoder_and_decoder(mae, settings):
    file, theirs = mae
    start = [*TINY, f"image_encoder.weights=retfound:{file}", "objectives.mim.dim=64", "objectives.mim.depth=2"]
    with pytest.raises(UserError, match=r"(?s)has dim=64, depth=2, num_heads=2;.*has dim=64, depth=2, num_heads=4\."):
        loaded(settings, *start, "from_weights=[mim]", "objectives.mim.num_heads=4")
    config = load_config(TrainConfig, DEBUG, [*settings, *start, "from_weights=[all]"])
    assert set(read_start(config).origin.parts) == {"mim"}
    net = build_model(config).net
    ids, tokens = torch.arange(4)[None], torch.randn(1, 3, 192)
    torch.testing.assert_close(
        net.objectives["mim"].pixel_decoder(tokens, ids), theirs(tokens, ids), atol=1e-4, rtol=1e-4
    )
    assert torch.equal(net.teacher.image_encoder.vit.cls_token, net.branch.image_encoder.vit.cls_token)


def test_heads_of_dinov2_are_not_put_behind_a_bridge(settings, tmp_path: Path):
    vit = random(VisionTransformer(img_size=32, embed_dim=192, depth=2, num_heads=3, num_classes=0))
    write(tmp_path / "a.pth", vit.state_dict() | {"dino_head.mlp.0.bias": torch.zeros(8)})
    given = [
        *TINY,
        f"image_encoder.weights=dinov2:{tmp_path / 'a.pth'}",
        "objectives.dinov2={}",
        "data.crops={local_size: 16}",
    ]
    with pytest.raises(UserError, match="the bridge lies between"):
        read_start(load_config(TrainConfig, DEBUG, [*settings, *given, "from_weights=[all]"]))


def test_a_resumed_run_has_the_record_and_does_not_need_the_source(run, settings, tmp_path: Path):
    start = [*settings, f"image_encoder.weights={run[0]}", "from_weights=[mim]", f"output={tmp_path}"]
    config = load_config(TrainConfig, DEBUG, start)
    origin = read_start(config).origin
    config.run_folder.mkdir()
    (config.run_folder / "origin.json").write_text(json.dumps(origin.plain()))
    assert read_origin(config.run_folder) == origin
    gone = load_config(TrainConfig, DEBUG, [*start, "image_encoder.weights=gone"])
    resumed = find_start(gone, config.run_folder / "origin.json")  # any file that is there
    assert resumed is not None
    assert (resumed.origin, resumed.parts) == (origin, {})
    build_model(gone, resumed)
