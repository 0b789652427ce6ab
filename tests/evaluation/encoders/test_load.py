import pytest
import torch
import yaml

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.fingerprint import fingerprint
from maskedclip_composer.evaluation.encoders.load import LOADERS, load
from maskedclip_composer.export.encoder import STUDENT_PREFIX, load_encoder, save_encoder

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose newest checkpoint is younger than its exported encoder."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    vit = load_encoder(f"random:{NAME}", image_size=32).vit
    save_encoder(folder / "encoder.safetensors", vit, name=NAME, image_size=32, patch_size=16)
    (folder / "checkpoints").mkdir()
    newer = {STUDENT_PREFIX + key: value + 0.01 for key, value in vit.state_dict().items()}
    torch.save({"state": {"model": newer}}, folder / "checkpoints" / "latest-rank0.pt")
    config = {"image_encoder": {"name": NAME}, "data": {"image_size": 32}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize(
    ("part", "newer"),
    [("", False), ("encoder.safetensors", False), ("latest", True), ("checkpoints/latest-rank0.pt", True)],
)
def test_ones_own_runs(run, part, newer):
    encoder = load(str(run / part))
    assert (encoder.image_size, encoder.dim) == (32, 192)
    exported = load_encoder(str(run / "encoder.safetensors"))
    expected = exported.vit.state_dict()["norm.bias"] + (0.01 if newer else 0)
    torch.testing.assert_close(encoder.module.state_dict()["norm.bias"], expected)
    assert ("latest-rank0.pt" in encoder.description) == newer
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = encoder.module.forward_features(images)
    torch.testing.assert_close(encoder.features(images), tokens[:, 1:].mean(dim=1))
    assert load(str(run / part), image_size=64).image_size == 64


def test_random_is_pre_trainings_start():
    encoder, again = load(f"random:{NAME}", image_size=32), load(f"random:{NAME}", image_size=32)
    assert encoder.description == f"random initialisation of {NAME}"
    expected = load_encoder(f"random:{NAME}", image_size=32).vit.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in encoder.module.state_dict().items())
    assert fingerprint(encoder) == fingerprint(again)


def test_unknown_kinds_name_the_known_ones(tmp_path):
    with pytest.raises(UserError, match=r"clip: is no kind of encoder(.|\n)*RUN/latest(.|\n)*hf:") as caught:
        load("clip:ViT-B-32")
    assert all(f"{kind}:" in str(caught.value) for kind in LOADERS)
    with pytest.raises(UserError, match=r"no such run folder or file(.|\n)*retfound:FILE"):
        load(str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"nothing after the colon"):
        load("mae:")
    with pytest.raises(UserError, match="is no encoder"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="No checkpoint at"):
        load(str(tmp_path / "latest"))


def test_a_fingerprint_changes_with_any_weight_name_or_shape():
    encoder = load(f"random:{NAME}", image_size=32)
    seen = {fingerprint(encoder)}
    state = encoder.module.state_dict()
    state["blocks.11.mlp.fc2.bias"][5] += 1e-7
    seen.add(fingerprint(encoder))
    state["blocks.11.mlp.fc2.bias"][5] = 0
    assert fingerprint(encoder) in seen
    encoder.module.pos_embed = torch.nn.Parameter(encoder.module.pos_embed.detach().view(1, 192, 5))
    seen.add(fingerprint(encoder))
    encoder.module.half()
    seen.add(fingerprint(encoder))
    encoder.module.bfloat16()
    seen.add(fingerprint(encoder))
    encoder.module.other = encoder.module.norm
    del encoder.module.norm
    seen.add(fingerprint(encoder))
    assert len(seen) == 6
    assert all(len(text) == 64 for text in seen)
