import json
import shutil

import pytest
import torch
import torch.nn.functional as F

import maskedclip_composer
from maskedclip_composer.build import build_model
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError
from maskedclip_composer.export.encoder import load_encoder
from maskedclip_composer.models.text import mean_tokens, save_text_side
from maskedclip_composer.use.architecture import recipe_of_run
from tests.data_prep.drawing import retina
from tests.model_run import write_run


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network(folder):
    model = build_model(load_config(TrainConfig, str(folder / "config.yaml"), []))
    content = torch.load(folder / "checkpoints" / "latest-rank0.pt", weights_only=True)
    model.load_state_dict(content["state"]["model"])
    return model.net.eval()


def test_three_lines_give_model_transform_and_tokenizer(run_folder):
    model, transform, tokenizer = maskedclip_composer.load(run_folder)
    image = model.encode_image(transform(retina(160, 120))[None])
    texts = model.encode_text(**tokenizer(["fundus photograph", "glaucoma"]))
    assert image.shape == (1, 16)
    assert texts.shape == (2, 16)
    assert not torch.allclose(texts[0], texts[1], atol=1e-3)


def test_features_are_those_of_the_network_that_was_trained(run_folder, images):
    model, _, tokenizer = maskedclip_composer.load(run_folder)
    net = network(run_folder)
    with torch.no_grad():
        tokens = net.branch.image_encoder(net.normalise(images))
        objective = net.objectives["lg_clip"]
        image = F.normalize(objective.image_projection(net.branch.bridge(tokens)[:, 1:].mean(dim=1)), dim=-1)
        arguments = tokenizer(["glaucoma", "a b"])
        text = mean_tokens(net.text_encoder(**arguments), arguments["text_mask"])
        text = F.normalize(objective.text_projection(text), dim=-1)
    torch.testing.assert_close(model.encode_features(images), tokens[:, 1:].mean(dim=1))
    torch.testing.assert_close(model.encode_image(images), image)
    torch.testing.assert_close(model.encode_text(**arguments), text)
    for found, expected in zip(model.encode_both(images), (model.encode_features(images), image), strict=True):
        torch.testing.assert_close(found, expected)
    assert model.logit_scale == pytest.approx(float(objective.log_logit_scale.detach().exp()))


def test_one_image_has_the_features_it_has_in_a_batch(run_folder, images):
    model = maskedclip_composer.load(run_folder).model
    for encode in (model.encode_features, model.encode_image):
        alone = torch.cat([encode(image[None]) for image in images])
        torch.testing.assert_close(alone, encode(images), atol=1e-6, rtol=1e-6)


def test_padding_does_not_change_a_text(run_folder):
    model, _, tokenizer = maskedclip_composer.load(run_folder)
    alone = model.encode_text(**tokenizer("glaucoma"))
    padded = model.encode_text(**tokenizer(["glaucoma", "a b c d e f g"]))
    torch.testing.assert_close(padded[:1], alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("recipe", ["mae", "mlip"])
def test_other_recipes_load(recipe, tmp_path, text_tower, images):
    folder = write_run(tmp_path, text_tower, recipe)
    model, _, tokenizer = maskedclip_composer.load(folder)
    assert model.has_texts == (recipe == "mlip")
    assert (tokenizer is not None) == model.has_texts
    encoder = load_encoder(str(folder / "encoder.safetensors"))
    expected = encoder.vit.forward_features(model.normalise(images))[:, 1:].mean(dim=1)
    torch.testing.assert_close(model.encode_features(images), expected)
    if recipe == "mlip":
        assert model.encode_image(images).shape == (3, 16)
    else:
        with pytest.raises(UserError, match="trained without texts"):
            model.encode_image(images)


def test_the_encoder_alone_loads_without_a_bridge(run_folder, images):
    whole = maskedclip_composer.load(run_folder).model
    alone = maskedclip_composer.load(run_folder / "encoder.safetensors").model
    torch.testing.assert_close(alone.encode_features(images), whole.encode_features(images))
    assert not alone.has_texts


def test_the_recipe_of_the_preparation_comes_from_the_run(run_folder, tmp_path, caplog):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    assert maskedclip_composer.load(folder).transform.recipe.size == 512
    assert "does not say how its photographs were prepared" in caplog.text
    caplog.clear()
    report = folder / "data" / "paired" / "report.json"
    report.parent.mkdir(parents=True)
    # With --hash-patients the report has more options.
    options = {"size": 64, "crop": False, "quality": 95, "encoding": "jpeg", "patients": "hashed"}
    report.write_text(json.dumps({"options": options}))
    recipe = maskedclip_composer.load(folder).transform.recipe
    assert (recipe.size, recipe.crop, recipe.quality) == (64, False, 95)
    assert not caplog.text


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def options(**changed):
    return {"size": 384, "crop": True, "quality": 90, "encoding": "jpeg"} | changed


def test_the_recipe_of_a_build_comes_from_its_sets(tmp_path):
    sets = {"paired/odir5k": options(), "unpaired/refuge": options(crop=False), "downstream/idrid": options(size=64)}
    report = {"options": {"size": 384}, "sets": {place: {"options": told} for place, told in sets.items()}}
    written(tmp_path / "data" / "paired" / "report.json", report)
    recipe, known = recipe_of_run(tmp_path)
    assert known
    assert (recipe.size, recipe.crop) == (384, True)
    report["sets"]["unpaired/refuge"] = {"options": options(size=512)}
    written(tmp_path / "data" / "paired" / "report.json", report)
    assert recipe_of_run(tmp_path) == (Recipe(), False)


def test_streams_that_were_prepared_differently_are_told(tmp_path, caplog):
    for stream, size in (("paired", 256), ("unpaired", 384)):
        written(tmp_path / "data" / stream / "report.json", {"options": options(size=size)})
    assert recipe_of_run(tmp_path)[0].size == 256
    assert "prepared differently" in caplog.text


def test_a_run_keeps_its_text_side(run_folder, tmp_path, images):
    """The text encoder's folder may have gone, or be another one under the same name."""
    folder = shutil.copytree(run_folder, tmp_path / "run")
    expected = maskedclip_composer.load(folder)
    assert expected.model.text_encoder is not None
    save_text_side(expected.model.text_encoder, expected.tokenizer.tokenizer, folder / "text_encoder")
    config = (folder / "config.yaml").read_text()
    name = load_config(TrainConfig, str(folder / "config.yaml"), []).text_encoder.name
    (folder / "config.yaml").write_text(config.replace(name, "gone"))
    found = maskedclip_composer.load(folder)
    texts = ["glaucoma", "a fundus photograph"]
    assert torch.equal(found.tokenizer(texts)["text_ids"], expected.tokenizer(texts)["text_ids"])
    torch.testing.assert_close(
        found.model.encode_text(**found.tokenizer(texts)), expected.model.encode_text(**expected.tokenizer(texts))
    )


def test_what_is_no_model_is_refused(run_folder, tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        maskedclip_composer.load(tmp_path)
    lonely = tmp_path / "checkpoints" / "latest-rank0.pt"
    lonely.parent.mkdir()
    shutil.copy(run_folder / "checkpoints" / "latest-rank0.pt", lonely)
    with pytest.raises(UserError, match=r"config\.yaml is missing"):
        maskedclip_composer.load(lonely)
    config = (run_folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("depth: 2", "depth: 3"))
    with pytest.raises(UserError, match=r"missing: branch\.image_encoder"):
        maskedclip_composer.load(lonely)


def test_an_empty_text_is_refused(run_folder):
    tokenizer = maskedclip_composer.load(run_folder).tokenizer
    with pytest.raises(UserError, match="empty"):
        tokenizer(["glaucoma", " "])


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = maskedclip_composer.nothing_such
