import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.models.vit import IMAGE_MEAN
from tests.evaluation.encoders.layers import check_layers
from tests.evaluation.encoders.payload import Payload

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
CLIP = {"vision_config": SMALL, "text_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 2]}


def vit():
    return ViTModel(ViTConfig(**SMALL))


# how to build it, how many tokens come before the patches, first parameter, drop path, blocks
TOKENS = {
    "vit": (vit, 1, "embeddings.patch_embeddings.projection.weight", False, "encoder.layer"),
    "dinov2": (
        lambda: Dinov2Model(Dinov2Config(**SMALL)),
        1,
        "embeddings.patch_embeddings.projection.weight",
        True,
        "encoder.layer",
    ),
    "registers": (
        lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL)),
        5,
        "embeddings.register_tokens",
        True,
        "encoder.layer",
    ),
    "clip": (lambda: CLIPModel(CLIPConfig(**CLIP)), 1, "embeddings.patch_embedding.weight", False, "encoder.layers"),
    "swin": (
        lambda: SwinModel(
            SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1, 2], num_heads=[1, 2], window_size=4)
        ),
        0,
        "embeddings.patch_embeddings.projection.weight",
        True,
        "encoder.layers",
    ),
}
CONVOLUTIONS = {
    "resnet": (
        lambda: ResNetModel(ResNetConfig(embedding_size=8, **STAGES)),
        "embedder.embedder.convolution.weight",
        "encoder.stages",
    ),
    "convnext": (
        lambda: ConvNextModel(ConvNextConfig(num_stages=2, image_size=32, **STAGES)),
        "embeddings.patch_embeddings.weight",
        "encoder.stages",
    ),
}
BUILD = {name: entry[0] for name, entry in (TOKENS | CONVOLUTIONS).items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One model of each kind as transformers saves it, with weights that no initialisation gives."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    for name, build in BUILD.items():
        model = build()
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter) * 0.05
        model.save_pretrained(root / name)
    return root


@pytest.mark.parametrize("name", TOKENS)
def test_features_are_the_mean_patch_of_transformers_own_forward(folders, name):
    encoder = load(f"hf:{folders / name}")
    images = torch.randn(2, 3, 32, 32)
    model = AutoModel.from_pretrained(folders / name).eval()
    model = model.vision_model if name == "clip" else model
    with torch.no_grad():
        expected = model(images).last_hidden_state[:, TOKENS[name][1] :].mean(dim=1)
    torch.testing.assert_close(encoder.features(images), expected, atol=1e-5, rtol=1e-5)
    assert (encoder.image_size, encoder.dim) == (32, expected.shape[1])
    assert encoder.mean == IMAGE_MEAN
    assert "ImageNet's are used" in encoder.description
    assert ("without stochastic depth" in encoder.description) == (not TOKENS[name][3])
    assert not [key for key in encoder.module.state_dict() if key.startswith(("text", "pooler"))]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_features_of_convolutional_networks_are_their_pooled_output(folders, name):
    encoder = load(f"hf:{folders / name}", image_size=64)
    images = torch.randn(2, 3, 64, 64)
    model = AutoModel.from_pretrained(folders / name).eval()
    with torch.no_grad():
        expected = model(images).pooler_output.flatten(1)
    torch.testing.assert_close(encoder.features(images), expected, atol=1e-5, rtol=1e-5)
    assert encoder.dim == 16


@pytest.mark.parametrize("name", BUILD)
def test_classifiers_learn_by_layer(folders, name):
    first, blocks = (TOKENS[name][2], TOKENS[name][4]) if name in TOKENS else CONVOLUTIONS[name][1:]
    encoder = load(f"hf:{folders / name}", image_size=32)
    before = {key: value.clone() for key, value in encoder.module.state_dict().items()}
    classifier = encoder.classifier(3, 0.2)
    scales = check_layers(classifier, first=f"backbone.{first}", head="head.weight", size=32)
    depth = {key: min(scales[name] for name in scales if f"{blocks}.{key}." in name) for key in (0, 1)}
    assert scales[f"backbone.{first}"] < depth[0] < depth[1] < 1
    assert scales.get("backbone.layernorm.weight", 0.5) == 0.5  # the encoder's last norm goes with the last block
    frozen = [key for key, parameter in classifier.named_parameters() if not parameter.requires_grad]
    assert set(frozen) <= {
        "backbone.embeddings.mask_token",
        "backbone.post_layernorm.weight",
        "backbone.post_layernorm.bias",
    }
    assert all(torch.equal(before[key], value) for key, value in encoder.module.state_dict().items())
    no_decay = classifier.no_weight_decay()
    assert (name in ("resnet", "convnext")) == (not no_decay)
    assert all("token" in key or "position" in key for key in no_decay)


def test_stochastic_depth_rises_to_the_last_block(folders):
    classifier = load(f"hf:{folders / 'dinov2'}").classifier(3, 0.2)
    rates = [getattr(layer.drop_path, "drop_prob", 0) for layer in classifier.backbone.encoder.layer]
    assert rates == pytest.approx([0, 0.1, 0.2])
    rates = [
        getattr(module.drop_path, "drop_prob", 0)
        for module in load(f"hf:{folders / 'swin'}").classifier(3, 0.2).backbone.modules()
        if hasattr(module, "drop_path")
    ]
    assert rates == pytest.approx([0, 0.1, 0.2])


def test_another_image_size_interpolates_positions_and_says_so(folders):
    images = torch.randn(1, 3, 48, 48)
    for name in ("vit", "clip", "dinov2"):
        encoder = load(f"hf:{folders / name}", image_size=48)
        model = AutoModel.from_pretrained(folders / name).eval()
        model = model.vision_model if name == "clip" else model
        options = {} if name == "dinov2" else {"interpolate_pos_encoding": True}
        with torch.no_grad():
            expected = model(images, **options).last_hidden_state[:, 1:]
        assert expected.shape[1] == 36
        torch.testing.assert_close(encoder.features(images), expected.mean(dim=1), atol=1e-5, rtol=1e-5)
        assert "interpolated by transformers from 32 to 48" in encoder.description
        assert encoder.classifier(3, 0.0)(images).shape == (1, 3)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_preprocessor_tells_mean_deviation_and_size(tmp_path, normalise):
    vit().save_pretrained(tmp_path)
    ViTImageProcessor(
        size={"height": 40, "width": 40}, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], do_normalize=normalise
    ).save_pretrained(tmp_path)
    encoder = load(f"hf:{tmp_path}")
    assert (encoder.mean, encoder.std) == (
        ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)) if normalise else ((0.0,) * 3, (1.0,) * 3)
    )
    assert encoder.image_size == 40
    assert load(f"hf:{tmp_path}", image_size=32).image_size == 32
    ViTImageProcessor(rescale_factor=1 / 127.5).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="only 1/255"):
        load(f"hf:{tmp_path}")
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match=r"could not read its preprocessor_config\.json"):
        load(f"hf:{tmp_path}")


def test_a_classifiers_file_gives_its_encoder_the_same_each_time(tmp_path):
    whole = ViTForImageClassification(ViTConfig(**SMALL, num_labels=7)).eval()
    whole.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    first, second = load(f"hf:{tmp_path}"), load(f"hf:{tmp_path}")
    with torch.no_grad():
        expected = whole.vit(images).last_hidden_state[:, 1:].mean(dim=1)
    torch.testing.assert_close(first.features(images), expected, atol=1e-5, rtol=1e-5)
    # its pooler is absent from the file and would be drawn anew
    assert all(torch.equal(value, second.module.state_dict()[key]) for key, value in first.module.state_dict().items())


def test_a_masked_autoencoder_sees_whole_images(tmp_path):
    config = ViTMAEConfig(**SMALL, decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    whole = ViTMAEForPreTraining(config).eval()
    whole.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    encoder = load(f"hf:{tmp_path}")
    whole.config.mask_ratio = 0.0
    with torch.no_grad():
        expected = whole.vit(images, noise=torch.arange(16.0).expand(2, -1)).last_hidden_state[:, 1:].mean(dim=1)
    torch.testing.assert_close(encoder.features(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder.layer.1.output.dense.bias": None}, r"missing: encoder\.layer\.1\.output\.dense\.bias"),
        ({"encoder.layer.9.output.dense.bias": torch.zeros(64)}, r"unexpected: encoder\.layer\.9"),
        ({"layernorm.weight": torch.zeros(3)}, r"of another shape than \[64\]: layernorm\.weight"),
    ],
)
def test_what_does_not_fit_is_listed(tmp_path, changes, message):
    vit().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors") | changes
    save_file(
        {key: value for key, value in weights.items() if value is not None},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match=message):
        load(f"hf:{tmp_path}")


def test_code_does_not_run(tmp_path):
    vit().save_pretrained(tmp_path, safe_serialization=False)
    path = tmp_path / "pytorch_model.bin"
    weights = torch.load(path)
    assert load(f"hf:{tmp_path}").dim == 64
    torch.save(weights | {"extra": Payload(tmp_path / "executed")}, path)
    with pytest.raises(UserError, match="could not load it"):
        load(f"hf:{tmp_path}")
    assert not (tmp_path / "executed").exists()
    torch.save(weights, path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\n")
    with pytest.raises(UserError, match="could not load it"):
        load(f"hf:{tmp_path}")
    assert not (tmp_path / "executed").exists()


def test_what_is_no_vision_model(tmp_path):
    with pytest.raises(UserError, match="could not load it"):
        load("hf:nobody/nothing")
    BertModel(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50)
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no vision model"):
        load(f"hf:{tmp_path}")
