"""What other libraries compute with an export is what the model computes."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config
from tokenizers import Tokenizer
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, Dinov2Model, ViTModel

import maskedclip_composer
from maskedclip_composer.data.transforms import eval_transform
from maskedclip_composer.evaluation.encoders.load import load as load_any
from maskedclip_composer.export import to_onnx
from maskedclip_composer.export.encoder import load_encoder, save_encoder
from maskedclip_composer.export.golden import read_golden
from maskedclip_composer.export.hugging_face_vit import to_hugging_face, why_not
from maskedclip_composer.export.source import open_source
from maskedclip_composer.export.to_timm import crop_share, model_arguments
from maskedclip_composer.export.write import export
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD, build_vit
from tests.data_prep.drawing import retina
from tests.model_run import write_run

NAME = "vit_tiny_patch16_224"  # tests/model_run.py gives it patches of 8 and two blocks
TEXTS = ["glaucoma", "a fundus photograph", "b c d e f g h i j"]


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(torch.as_tensor(found), expected, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def features(loaded, images):
    return loaded.model.encode_features(images)


@pytest.fixture(scope="module")
def similarity(loaded, images):
    return loaded.model.encode_image(images) @ loaded.model.encode_text(**loaded.tokenizer(TEXTS)).T


@pytest.fixture(scope="module")
def normalised(images):
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGE_MEAN, IMAGE_STD))
    return (images.float() / 255 - mean) / std


def test_timm_gives_the_same_features(exported, normalised, features):
    model = timm.create_model(f"local-dir:{exported['timm']}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        close(model(normalised), features)


def test_timm_by_name_loads_the_weights_strictly(exported, run_folder, normalised, features):
    model = timm.create_model(NAME, num_classes=0, **model_arguments(open_source(run_folder)))
    model.load_state_dict(load_file(exported["timm"] / "model.safetensors"), strict=True)
    with torch.no_grad():
        close(model.eval()(normalised), features)
        # What the arguments are for: timm's own pooling of this model is the class token.
        plain = timm.create_model(NAME, num_classes=0, img_size=32, patch_size=8, depth=2).eval()
        plain.load_state_dict(model.state_dict(), strict=True)
        assert (plain(normalised) - features).abs().max() > 0.01


@pytest.mark.parametrize("size", [32, 40, 48, 112, 224, 256, 336, 392, 448, 512])
def test_timm_has_the_short_side_of_evaluation(size):
    assert math.floor(size / crop_share(size)) == round(size * 256 / 224)  # timm/data/transforms_factory.py rounds down


def test_timm_prepares_images_as_evaluation_does(exported):
    model = timm.create_model(f"local-dir:{exported['timm']}", pretrained=True)
    data = resolve_data_config(model=model)
    assert data["input_size"] == (3, 32, 32)
    assert (tuple(data["mean"]), tuple(data["std"])) == (IMAGE_MEAN, IMAGE_STD)
    photograph = retina(150, 120)
    mean, std = (torch.tensor(data[name]).view(3, 1, 1) for name in ("mean", "std"))
    view = create_transform(**data)(photograph) * std + mean
    difference = view * 255 - eval_transform(np.asarray(photograph), 32).float()
    assert difference.abs().max() < 3  # grey levels: PIL's bicubic and torch's


def test_a_fine_tuning_in_plain_timm_learns(exported):
    code = f"""
import sys, timm, torch
torch.manual_seed(0); torch.set_num_threads(1)
model = timm.create_model("local-dir:{exported["timm"]}", pretrained=True, num_classes=3)
images, labels = torch.randn(12, 3, 32, 32), torch.arange(12) % 3
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
losses = []
for _ in range(12):
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad(); loss.backward(); optimizer.step(); losses.append(loss.item())
assert not [name for name in sys.modules if name.startswith("maskedclip")]
print(losses[0], losses[-1])
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, last = map(float, done.stdout.split())
    assert last < 0.5 * first


def test_the_whole_model_comes_back_as_it_was(exported, loaded, images):
    again = maskedclip_composer.load(exported["hf"])
    assert again.model.state_dict().keys() == loaded.model.state_dict().keys()
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert torch.equal(again.model.encode_image(images), loaded.model.encode_image(images))
    tokens, expected = again.tokenizer(TEXTS), loaded.tokenizer(TEXTS)
    assert torch.equal(tokens["text_ids"], expected["text_ids"])
    assert torch.equal(again.model.encode_text(**tokens), loaded.model.encode_text(**expected))
    assert again.transform == loaded.transform


def test_transformers_reads_the_image_encoder_strictly(exported, images, features):
    folder = exported["hf"] / "image_encoder"
    processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
    pixels = processor(list(images.numpy()), do_resize=False, do_center_crop=False, return_tensors="pt")
    for kind in (ViTModel, AutoModel):
        model, report = kind.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
        with torch.no_grad():
            close(model.eval()(**pixels).last_hidden_state[:, 1:].mean(dim=1), features)


def test_transformers_prepares_images_as_evaluation_does(exported):
    processor = AutoImageProcessor.from_pretrained(exported["hf"], use_fast=False)
    photograph = retina(150, 120)
    view = processor(photograph, return_tensors="pt", do_normalize=False)["pixel_values"][0]
    assert (view * 255 - eval_transform(np.asarray(photograph), 32).float()).abs().max() < 3


def test_transformers_reads_the_text_encoder(exported, loaded):
    folder = exported["hf"] / "text_encoder"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    arguments = loaded.tokenizer(TEXTS)
    with torch.no_grad():
        found = model(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state
        expected = loaded.model.text_encoder(**arguments)
    kept = arguments["text_mask"].bool()
    close(found[kept], expected[kept])


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_tiny_patch16_224"])
def test_layer_scale_becomes_a_dinov2_model(name):
    vit = build_vit(name, 28 if "14" in name else 32, None, 2).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model = to_hugging_face(vit, 28 if "14" in name else 32)
    assert isinstance(model, Dinov2Model if "dinov2" in name else ViTModel)
    images = torch.randn(2, 3, *vit.patch_embed.img_size)
    with torch.no_grad():
        close(model(images).last_hidden_state, vit.forward_features(images))


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("vit_small_patch14_dinov2", "Dinov2Model", None),
        ("vit_base_patch16_clip_224", None, "a norm before the blocks, an embedding without a bias"),
    ],
)
def test_other_architectures_are_exported_whole(name, part, said, tmp_path):
    """With a mean of their own; what transformers has no model for is left out, and that is said."""
    vit = build_vit(name, 28 if "14" in name else 32, None, 1)
    half = (0.5, 0.5, 0.5)
    file, patch = tmp_path / "encoder.safetensors", vit.patch_embed.patch_size[0]
    save_encoder(file, vit, name=name, image_size=2 * patch, patch_size=patch, mean=half, std=half)
    notes = export(file, "hf", tmp_path / "hf")  # verifies what it wrote
    assert notes == (
        [] if said is None else [f"image_encoder/ is left out: {name} has {said}, unlike transformers' ViTs."]
    )
    text = (tmp_path / "hf" / "README.md").read_text()
    assert all(note in text for note in notes)
    assert (tmp_path / "hf" / "image_encoder").exists() == (f"{part}.from_pretrained" in text) == (part is not None)
    if part is not None:
        encoder = load_any(f"hf:{tmp_path / 'hf' / 'image_encoder'}")
        assert (encoder.image_size, encoder.mean) == (28, half)
    export(file, "timm", tmp_path / "timm")


def test_an_mlp_that_transformers_lacks_is_named():
    assert why_not(build_vit("vit_giant_patch14_dinov2", 28, None, 1)) == "another MLP"


def test_evaluation_reads_every_export(exported, images, features):
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGE_MEAN, IMAGE_STD))
    for source in (
        str(exported["safetensors"]),
        str(exported["safetensors"] / "encoder.safetensors"),
        f"hf:{exported['hf'] / 'image_encoder'}",
    ):
        encoder = load_any(source)
        assert encoder.image_size == 32
        close(encoder.features((images.float() / 255 - mean) / std), features)


@pytest.mark.parametrize("count", [1, 3])
def test_onnxruntime_gives_the_same_features(exported, loaded, images, features, similarity, count):
    """At batch sizes and text lengths that were not traced."""
    folder = exported["onnx"]
    image, text = (
        onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        for name in ("image.onnx", "text.onnx")
    )
    tower, joint = image.run(["features", "image_features"], {"images": images[:count].numpy()})
    close(tower, features[:count])
    encoded = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(TEXTS[:count])
    ids, mask = (np.array([getattr(one, name) for one in encoded]) for name in ("ids", "attention_mask"))
    (texts,) = text.run(["text_features"], {"text_ids": ids, "text_mask": mask})
    close(joint @ texts.T, similarity[:count, :count])
    config = json.loads((folder / "config.json").read_text())
    assert config["text"]["logit_scale"] == pytest.approx(loaded.model.logit_scale)
    long = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a " * 100)
    assert len(long.ids) == config["text"]["max_tokens"] == 24


def test_large_weights_lie_beside_the_graph(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(to_onnx, "LARGEST", 1000)
    export(run_folder, "onnx", tmp_path / "onnx")  # verifies what it wrote
    names = {path.name for path in (tmp_path / "onnx").iterdir()}
    assert {"image.onnx", "image.onnx.data", "text.onnx.data"} <= names
    assert (
        (tmp_path / "onnx" / "image.onnx").stat().st_size < 200_000 < (tmp_path / "onnx/image.onnx.data").stat().st_size
    )


def test_onnx_that_is_not_installed_is_named(run_folder, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(to_onnx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(to_onnx.LibraryError, match=r"needs onnx and onnxruntime\.\nInstall: .*\[onnx\]"):
        export(run_folder, "onnx", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_the_encoder_alone_keeps_the_preparation(exported, loaded, images, features):
    again = maskedclip_composer.load(exported["safetensors"])
    assert torch.equal(again.model.encode_features(images), features)
    assert again.transform == loaded.transform
    assert load_encoder(str(exported["safetensors"] / "encoder.safetensors")).image_size == 32


@pytest.mark.parametrize("recipe", ["mae", "mlip"])
def test_other_recipes(recipe, tmp_path, text_tower):
    run = write_run(tmp_path, text_tower, recipe)
    for target in ("hf", "onnx"):
        export(run, target, tmp_path / target)
        golden = read_golden(tmp_path / target)
        assert ("logits" in golden.outputs) == (recipe == "mlip")
        assert len(golden.prompts) == (5 if recipe == "mlip" else 0)
    assert (tmp_path / "hf" / "text_encoder").exists() == (recipe == "mlip")
    assert (tmp_path / "onnx" / "text.onnx").exists() == (recipe == "mlip")


def test_no_folder_of_this_machine_is_told(exported, run_folder, text_tower):
    for folder in exported.values():
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not re.search(f"{run_folder.parent}|{text_tower}".encode(), content), path
                assert b"auto_map" not in content or path.suffix != ".json"


def test_golden_images_are_the_same_in_every_export(exported):
    images = [read_golden(folder).inputs["images"] for folder in exported.values()]
    assert all(torch.equal(each, images[0]) for each in images)
    assert images[0].shape == (3, 3, 32, 32)
    assert images[0][:, :, 0, 0].max() == 0  # outside of the disc: a drawing, nobody's photograph
