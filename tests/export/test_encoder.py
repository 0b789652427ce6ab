import os
import pickle
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.checkpoint import read_checkpoint
from maskedclip_composer.export.encoder import STUDENT_PREFIX, load_encoder, save_encoder
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD, build_vit

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def vit():
    return load_encoder(f"random:{NAME}", image_size=32).vit


@pytest.fixture
def exported(tmp_path, vit) -> Path:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, vit, name=NAME, image_size=32, patch_size=16, extra={"run_name": "toy"})
    return path


@pytest.fixture
def run_folder(tmp_path, vit) -> Path:
    """As train.py leaves it after a first checkpoint, with what Composer stores beside the weights."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    weights = {STUDENT_PREFIX + key: value for key, value in vit.state_dict().items()}
    other = {
        "net.teacher.image_encoder.vit.cls_token": torch.zeros(1, 1, 192),
        "net.branch.bridge.norm.bias": torch.ones(1),
    }
    state = {"model": weights | other, "timestamp": {"Timestamp": {"total_wct": timedelta(seconds=3)}}}
    rng = [{"numpy": np.random.get_state(), "python": (3, (1, 2), None)}]
    torch.save({"state": state, "rng": rng}, folder / "checkpoints" / "ep1-ba9-rank0.pt")
    (folder / "checkpoints" / "latest-rank0.pt").symlink_to("ep1-ba9-rank0.pt")
    config = {"image_encoder": {"name": NAME, "patch_size": None, "depth": None}, "data": {"image_size": 32}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def change(path: Path, edit) -> None:
    """Rewrite an exported file with other weights and the same metadata."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(edit(load_file(path)), path, metadata)


def equal(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    right_state = right.state_dict()
    return all(torch.equal(value, right_state[key]) for key, value in left.state_dict().items())


def test_export_round_trip(exported, vit):
    loaded = load_encoder(str(exported))
    assert equal(vit, loaded.vit)
    assert (loaded.name, loaded.image_size, loaded.mean, loaded.std) == (NAME, 32, IMAGE_MEAN, IMAGE_STD)
    images = torch.randn(2, 3, 32, 32)
    plain = timm.create_model(NAME, num_classes=0, img_size=32)
    plain.load_state_dict(load_file(exported), strict=True)
    torch.testing.assert_close(
        loaded.vit.eval().forward_features(images), plain.eval().forward_features(images), atol=1e-5, rtol=1e-5
    )
    assert [file.name for file in exported.parent.iterdir()] == ["encoder.safetensors"]  # nothing left aside


def test_a_patch_size_and_depth_of_ones_own_are_kept(tmp_path):
    small = build_vit(NAME, 32, 8, 2)
    save_encoder(tmp_path / "small.safetensors", small, name=NAME, image_size=32, patch_size=8)
    assert equal(small, load_encoder(str(tmp_path / "small.safetensors")).vit)


def test_a_mean_and_deviation_of_ones_own_are_kept(tmp_path, vit):
    path, mean, std = tmp_path / "own.safetensors", (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
    save_encoder(path, vit, name=NAME, image_size=32, patch_size=16, mean=mean, std=std)
    loaded = load_encoder(str(path))
    assert (loaded.mean, loaded.std) == (mean, std)


@pytest.mark.parametrize(("pretrained", "mean"), [(True, (0.5, 0.5, 0.5)), (False, IMAGE_MEAN)])
def test_a_checkpoint_is_normalised_as_the_weights_it_started_from(run_folder, pretrained, mean):
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    config["image_encoder"]["pretrained"] = pretrained
    (run_folder / "config.yaml").write_text(yaml.safe_dump(config))
    loaded = load_encoder(str(run_folder))
    assert loaded.mean == mean  # timm's weights of this model are Google's, trained with 0.5
    assert loaded.std == ((0.5, 0.5, 0.5) if pretrained else IMAGE_STD)


@pytest.mark.parametrize("part", ["", "checkpoints/latest-rank0.pt", "checkpoints/ep1-ba9-rank0.pt"])
def test_run_folder_and_checkpoint_give_the_student(run_folder, vit, part):
    assert equal(vit, load_encoder(str(run_folder / part)).vit)


def test_a_run_folder_prefers_its_export(run_folder, vit):
    (run_folder / "checkpoints" / "latest-rank0.pt").unlink()
    save_encoder(run_folder / "encoder.safetensors", vit, name=NAME, image_size=32, patch_size=16)
    assert equal(vit, load_encoder(str(run_folder)).vit)


def test_random_is_the_same_each_time_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    first = load_encoder(f"random:{NAME}", image_size=32).vit
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), drawn)
    assert equal(first, load_encoder(f"random:{NAME}", image_size=32).vit)


def test_another_image_size_resamples_the_positions_as_timm_does(exported, vit):
    from timm.layers import resample_abs_pos_embed

    loaded = load_encoder(str(exported), image_size=64)
    assert loaded.image_size == 64
    torch.testing.assert_close(loaded.vit.pos_embed, resample_abs_pos_embed(vit.pos_embed, [4, 4], [2, 2]))
    assert "resampled from 32 to 64" in loaded.description
    assert loaded.vit.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 192)
    with pytest.raises(UserError, match="image_size=40 is not divisible"):
        load_encoder(str(exported), image_size=40)


def test_missing_and_unexpected_keys_are_listed(exported):
    change(exported, lambda weights: {key: value for key, value in weights.items() if key != "blocks.3.attn.qkv.bias"})
    with pytest.raises(UserError, match=r"missing: blocks\.3\.attn\.qkv\.bias"):
        load_encoder(str(exported))
    change(exported, lambda weights: weights | {"blocks.99.norm1.bias": torch.zeros(1)})
    with pytest.raises(UserError, match=r"unexpected: blocks\.99\.norm1\.bias"):
        load_encoder(str(exported))


def test_a_classifiers_head_is_dropped(exported, vit):
    change(exported, lambda weights: weights | {"head.weight": torch.zeros(5, 192), "fc_norm.bias": torch.zeros(192)})
    assert equal(vit, load_encoder(str(exported)).vit)


def test_weights_of_another_size_are_refused_with_both_shapes(exported):
    change(exported, lambda weights: weights | {"pos_embed": torch.zeros(1, 197, 192)})
    with pytest.raises(UserError, match=r"pos_embed: \[1, 197, 192\] in the file, \[1, 5, 192\] in .* at 32 pixels"):
        load_encoder(str(exported))


class Payload:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickled_payload_does_not_run(run_folder, tmp_path):
    checkpoint = run_folder / "checkpoints" / "ep1-ba9-rank0.pt"
    content = torch.load(checkpoint, weights_only=False)
    torch.save(content | {"extra": Payload(tmp_path / "executed")}, checkpoint)
    with pytest.raises(UserError, match=r"refused.*mkdir"):
        load_encoder(str(run_folder))
    assert not (tmp_path / "executed").exists()
    torch.load(checkpoint, weights_only=False)
    assert (tmp_path / "executed").exists()  # the payload was live


def test_damaged_files_are_said_to_be_damaged(run_folder, exported):
    checkpoint = run_folder / "checkpoints" / "ep1-ba9-rank0.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_encoder(str(run_folder))
    exported.write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(UserError, match="not a readable safetensors"):
        load_encoder(str(exported))


def test_other_files_and_names(tmp_path, run_folder):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(UserError, match="format=None"):
        load_encoder(str(foreign))
    with pytest.raises(UserError, match="is no encoder"):
        load_encoder(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="No encoder file"):
        load_encoder(str(tmp_path / "nothing.safetensors"))
    with pytest.raises(UserError, match="No checkpoint"):
        load_encoder(str(tmp_path / "nothing.pt"))
    with pytest.raises(UserError, match="vit_tiny"):
        load_encoder("random:vit_tiny_patch16_225")
    (run_folder / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config\.yaml is missing"):
        load_encoder(str(run_folder))
    (tmp_path / "list.pt").write_bytes(pickle.dumps([1]))
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "list.pt")


def test_timm_weights_offline_are_one_message(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="could not load weights"):
        load_encoder("timm:vit_tiny_patch16_224.augreg_in21k")
