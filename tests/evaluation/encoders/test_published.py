import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.evaluation.encoders.timm_model import TimmEncoder
from maskedclip_composer.evaluation.encoders.vit import ViTEncoder
from tests.evaluation.encoders.layers import check_layers
from tests.evaluation.encoders.payload import Payload


def build(name: str, **arguments):
    """A timm model with running statistics and parameters that no initialisation gives."""
    model = timm.create_model(name, **arguments)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) * 0.1)
    return model.eval()


def pooled(model, images: torch.Tensor) -> torch.Tensor:
    """What timm's own forward gives its head, the mean patch token for ViTs that have another pooling."""
    with torch.no_grad():
        tokens = model.forward_features(images)
        if getattr(model, "global_pool", None) in ("token", "map"):
            return tokens[:, model.num_prefix_tokens :].mean(dim=1)
        return model.forward_head(tokens, pre_logits=True)


# name, encoder, patch embedding or stem, head
MODELS = [
    ("test_vit", ViTEncoder, "patch_embed.proj.weight", "head.weight"),
    ("test_vit2", ViTEncoder, "patch_embed.proj.weight", "head.weight"),  # registers, norm after the mean
    ("test_vit3", ViTEncoder, "patch_embed.proj.weight", "head.weight"),  # attention pooling
    ("test_vit4", ViTEncoder, "patch_embed.proj.weight", "head.weight"),
    ("test_vit_relpos", TimmEncoder, "patch_embed.proj.weight", "head.weight"),
    ("test_resnet", TimmEncoder, "conv1.0.weight", "fc.weight"),
    ("test_convnext", TimmEncoder, "stem.0.weight", "head.fc.weight"),
    ("test_efficientnet", TimmEncoder, "conv_stem.weight", "classifier.weight"),
    ("test_maxvit", TimmEncoder, "stem.conv1.weight", "head.fc.weight"),
]
NAMES = [model[0] for model in MODELS]


@pytest.mark.parametrize(("name", "kind"), [(model[0], model[1]) for model in MODELS])
def test_any_timm_model_from_a_file(tmp_path, name, kind):
    file = ("a.safetensors", "a.pth", "a.bin")[NAMES.index(name) % 3]
    model, images = build(name), torch.randn(2, 3, 160, 160)
    expected, path = pooled(model, images), tmp_path / file
    if file == "a.safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict() if file == "a.bin" else {"state_dict": model.state_dict(), "epoch": 3}, path)
    encoder = load(f"timm:{name}@{path}")
    assert isinstance(encoder, kind)
    assert encoder.image_size == 160
    assert encoder.mean == tuple(model.pretrained_cfg["mean"])
    assert str(path) in encoder.description
    torch.testing.assert_close(encoder.features(images), expected, atol=1e-5, rtol=1e-5)
    assert encoder.dim == expected.shape[1]
    assert not [
        key for key in encoder.module.state_dict() if key.startswith(("attn_pool", "head.weight", "head.fc", "fc."))
    ]


@pytest.mark.parametrize(("name", "first", "head"), [(model[0], model[2], model[3]) for model in MODELS])
def test_classifiers_learn_by_layer_and_keep_the_weights(tmp_path, name, first, head):
    torch.save(timm.create_model(name).state_dict(), tmp_path / "a.pth")
    encoder = load(f"timm:{name}@{tmp_path / 'a.pth'}")
    classifier = encoder.classifier(3, 0.0)
    own, kept = classifier.state_dict(), encoder.module.state_dict()
    final = {"norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias"} if isinstance(encoder, ViTEncoder) else set()
    assert all(torch.equal(own[key], value) for key, value in kept.items() if key not in final)
    check_layers(classifier, first=first, head=head, size=160)
    assert all(torch.equal(value, encoder.module.state_dict()[key]) for key, value in kept.items())


def test_stochastic_depth_and_its_absence(tmp_path):
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "a.pth")
    classifier = load(f"timm:test_convnext@{tmp_path / 'a.pth'}").classifier(3, 0.3)
    rates = [getattr(block.drop_path, "drop_prob", 0) for block in classifier.modules() if hasattr(block, "drop_path")]
    assert max(rates) == pytest.approx(0.3)
    torch.save(timm.create_model("densenet121").state_dict(), tmp_path / "b.pth")
    encoder = load(f"timm:densenet121@{tmp_path / 'b.pth'}", image_size=64)
    assert "without stochastic depth" in encoder.description
    check_layers(encoder.classifier(3, 0.3), first="features.conv0.weight", head="classifier.weight", size=64)


def test_other_heads_and_none(tmp_path):
    images = torch.randn(2, 3, 160, 160)
    for name in ("test_vit", "test_resnet"):
        for classes in (0, 5):
            model = build(name, num_classes=classes)
            torch.save(model.state_dict(), tmp_path / "a.pth")
            features = load(f"timm:{name}@{tmp_path / 'a.pth'}").features(images)
            torch.testing.assert_close(features, pooled(model, images), atol=1e-5, rtol=1e-5)


def test_the_moving_average_is_preferred_and_a_wrapper_taken_off(tmp_path):
    model, images = build("test_resnet"), torch.randn(2, 3, 160, 160)
    wrapped = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": {"no": torch.ones(1)}, "state_dict_ema": wrapped}, tmp_path / "a.pth")
    features = load(f"timm:test_resnet@{tmp_path / 'a.pth'}").features(images)
    torch.testing.assert_close(features, pooled(model, images), atol=1e-5, rtol=1e-5)


def test_facebooks_dinov2_passes_through_timms_filter(tmp_path):
    model = build("vit_small_patch14_dinov2", img_size=56)
    # 37 x 37 positions, as published; timm's filter resamples them to the size that is wanted
    published = {key: value.clone() for key, value in model.state_dict().items()}
    published["pos_embed"] = torch.randn(1, 1 + 37 * 37, 384)
    torch.save(published | {"mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2_vits14.pth")
    encoder = load(f"timm:vit_small_patch14_dinov2@{tmp_path / 'dinov2_vits14.pth'}", image_size=56)
    expected = resample_abs_pos_embed(published["pos_embed"], [4, 4], [37, 37])
    torch.testing.assert_close(encoder.module.pos_embed, expected)
    assert "resampled by timm: pos_embed" in encoder.description
    assert "from 518 to 56 pixels" in encoder.description
    model.pos_embed.data.copy_(expected)
    images = torch.randn(1, 3, 56, 56)
    torch.testing.assert_close(encoder.features(images), pooled(model, images), atol=1e-4, rtol=1e-4)
    direct = load(f"dinov2:{tmp_path / 'dinov2_vits14.pth'}", image_size=56)
    torch.testing.assert_close(direct.features(images), encoder.features(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights, first: weights | {"extra.weight": torch.zeros(1)}, "Unexpected key.*extra.weight"),
        (lambda weights, first: {key: weights[key] for key in weights if key != first}, "Missing key.*{first}"),
        (lambda weights, first: weights | {first: torch.zeros(3, 3)}, "{first}|shape|size|invalid"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, name, change, message):
    weights = timm.create_model(name).state_dict()
    last = [key for key in weights if key.endswith("weight") and not key.startswith(("head", "fc.", "classifier"))][-1]
    torch.save(change(weights, last), tmp_path / "a.pth")
    with pytest.raises(UserError, match=f"(?s)not those of {name}.*(?:{message.format(first=last)})"):
        load(f"timm:{name}@{tmp_path / 'a.pth'}")


def test_code_in_a_file_does_not_run(tmp_path):
    weights = timm.create_model("test_resnet").state_dict()
    torch.save({"state_dict": weights, "extra": Payload(tmp_path / "executed")}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="mkdir"):
        load(f"timm:test_resnet@{tmp_path / 'a.pth'}")
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def download(monkeypatch):
    """What the hub would send; everything after the download is timm's own."""
    sent = {}

    def fetch(repository, *args, **kwargs):
        return dict(sent[repository])

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fetch)
    return sent


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "test_resnet", "test_convnext"])
def test_published_weights(download, name):
    model, images = build(name), torch.randn(2, 3, 160, 160)
    expected = pooled(model, images)
    download[f"timm/{name}.r160_in1k"] = model.state_dict()
    for source in (f"timm:{name}", f"timm:{name}.r160_in1k"):
        encoder = load(source)
        torch.testing.assert_close(encoder.features(images), expected, atol=1e-5, rtol=1e-5)
        assert "weights of timm (r160_in1k)" in encoder.description
    assert ("attention pooling" in encoder.description) == (name == "test_vit3")


def test_published_weights_at_another_size(download):
    model = build("test_vit")
    download["timm/test_vit.r160_in1k"] = model.state_dict()
    encoder = load("timm:test_vit", image_size=96)
    torch.testing.assert_close(
        encoder.module.pos_embed, resample_abs_pos_embed(model.pos_embed, [6, 6], [10, 10]), atol=1e-5, rtol=1e-5
    )
    assert encoder.image_size == 96
    assert "resampled from 160 to 96" in encoder.description
    assert encoder.features(torch.zeros(1, 3, 96, 96)).shape == (1, 64)
    with pytest.raises(UserError, match="does not take images of 3 x 100 x 100"):
        load("timm:test_maxvit", image_size=100)


@pytest.mark.parametrize("name", ["convnext_atto.d2_in1k", "convnextv2_atto.fcmae"])
def test_timms_leniency_is_not_used(download, name):
    """timm itself loads the masked-pre-trained ConvNeXt without its last norm, and reports it to a log."""
    weights = timm.create_model(name).state_dict()
    kept = {key: value for key, value in weights.items() if not key.startswith("head.norm")}
    download[f"timm/{name}"] = kept
    with pytest.raises(UserError, match=r"Missing key.*head\.norm\.weight"):
        load(f"timm:{name}")
    download[f"timm/{name}"] = weights
    assert load(f"timm:{name}").dim == 320


def test_families_that_set_the_check_themselves(download, tmp_path):
    weights = timm.create_model("mobilenetv3_small_050").state_dict()
    hub = timm.get_pretrained_cfg("mobilenetv3_small_050").hf_hub_id
    download[hub] = weights
    assert load("timm:mobilenetv3_small_050", image_size=64).dim == 1024
    download[hub] = {key: value for key, value in weights.items() if key != "conv_stem.weight"}
    with pytest.raises(UserError, match=r"Missing key.*conv_stem\.weight"):
        load("timm:mobilenetv3_small_050")
    with pytest.raises(UserError, match=r"^timm:dla34 is loaded by timm without a check"):
        load("timm:dla34")


def test_names_and_offline(tmp_path):
    with pytest.raises(UserError, match=r"no timm model.\nClose names: .*vit_tiny_patch16_224"):
        load("timm:vit_tiny_patch16_225")
    with pytest.raises(UserError, match=r"(?s)Invalid pretrained tag.*test_vit\.r160_in1k"):
        load("timm:test_vit.nothing")
    with pytest.raises(UserError, match="could not load weights"):
        load("timm:test_vit")
    with pytest.raises(UserError, match="could not load weights"):
        load("timm:test_vit4")  # timm publishes none
    with pytest.raises(UserError, match="No file with weights"):
        load(f"timm:test_vit@{tmp_path / 'absent.pth'}")
    with pytest.raises(UserError, match="several feature maps"):
        load("timm:crossvit_tiny_240")
