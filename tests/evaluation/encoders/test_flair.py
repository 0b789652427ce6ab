import pytest
import torch
import torchvision
from safetensors.torch import save_file

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.load import load
from tests.evaluation.encoders.layers import check_layers
from tests.evaluation.encoders.payload import Payload


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    network = torchvision.models.resnet50()
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))  # running statistics of their own
    return network.eval()


@pytest.fixture(scope="module")
def weights(resnet):
    own = {f"vision_model.model.{key}": value for key, value in resnet.state_dict().items()}
    return own | {
        "vision_model.projection_head_vision.projection.weight": torch.ones(512, 2048),
        "text_model.model.embeddings.word_embeddings.weight": torch.ones(3, 4),
        "text_model.projection_head_text.projection.weight": torch.ones(512, 768),
        "logit_scale": torch.tensor(2.6),
    }


@pytest.fixture(scope="module")
def released(tmp_path_factory, weights):
    path = tmp_path_factory.mktemp("flair") / "flair_resnet.pth"
    torch.save(weights, path)
    return path


def test_features_are_torchvisions_and_not_projected(released, resnet):
    """FLAIR's `--project_features False` has no effect, so its users probe 512 projected numbers."""
    encoder = load(f"flair:{released}")
    assert (encoder.dim, encoder.image_size, encoder.mean, encoder.std) == (2048, 512, (0.0,) * 3, (1.0,) * 3)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(images), resnet(images), atol=1e-5, rtol=1e-4)
    assert set(encoder.module.state_dict()) == set(resnet.state_dict())
    assert load(f"flair:{released}", image_size=224).image_size == 224


def test_the_hubs_safetensors_are_the_same(tmp_path, released, weights):
    save_file({key: value.contiguous() for key, value in weights.items()}, tmp_path / "model.safetensors")
    images = torch.rand(1, 3, 64, 64)
    one, other = load(f"flair:{tmp_path / 'model.safetensors'}"), load(f"flair:{released}")
    assert torch.equal(one.features(images), other.features(images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_model.model.layer1.0.conv1.weight": None}, r"missing: layer1\.0\.conv1\.weight"),
        ({"vision_model.model.fc.weight": torch.zeros(2, 2048)}, r"unexpected: fc\.weight"),
        ({"vision_model.model.bn1.weight": torch.zeros(3)}, r"bn1\.weight: \[3\] in the file, \[64\] in FLAIR's"),
        ({"conv1.weight": torch.zeros(1)}, r"unexpected: conv1\.weight"),
    ],
)
def test_what_does_not_fit_is_listed(tmp_path, weights, changes, message):
    torch.save({key: value for key, value in (weights | changes).items() if value is not None}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        load(f"flair:{tmp_path / 'a.pth'}")


def test_other_files_and_code_are_refused(tmp_path, weights):
    torch.save({"logit_scale": torch.zeros(1)}, tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"no file of FLAIR.*\nmissing: vision_model\.model\.\*"):
        load(f"flair:{tmp_path / 'none.pth'}")
    torch.save(weights | {"extra": Payload(tmp_path / "executed")}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="mkdir"):
        load(f"flair:{tmp_path / 'code.pth'}")
    assert not (tmp_path / "executed").exists()


def test_the_classifier_keeps_the_weights_and_learns_by_layer(released):
    encoder = load(f"flair:{released}", image_size=64)
    classifier = encoder.classifier(3, 0.2)
    own = classifier.state_dict()
    assert all(torch.equal(own[key], value) for key, value in encoder.module.state_dict().items())
    assert set(own) - set(encoder.module.state_dict()) == {"fc.weight", "fc.bias"}
    rates = [block.drop_path.drop_prob for block in classifier.modules() if getattr(block, "drop_path", None)]
    assert max(rates) == pytest.approx(0.2)
    before = {key: value.clone() for key, value in encoder.module.state_dict().items()}
    scales = check_layers(classifier, first="conv1.weight", head="fc.weight", size=64)
    assert scales["layer1.0.conv1.weight"] < scales["layer4.0.conv1.weight"] < 1
    assert all(torch.equal(before[key], value) for key, value in encoder.module.state_dict().items())
