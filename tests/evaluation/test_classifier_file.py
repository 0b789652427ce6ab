"""Saved classifiers give the very probabilities of the suite, whatever encoder they hold, and say what they are."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timm.models import VisionTransformer
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.cells import load_suite
from maskedclip_composer.evaluation.classifier_file import (
    CLASSIFIER_FILE,
    ClassifierFacts,
    load_classifier,
    save_classifier,
)
from maskedclip_composer.evaluation.encoders.architecture import build_encoder
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.evaluation.keep_classifier import without_classifier
from maskedclip_composer.evaluation.loading import eval_dataset
from maskedclip_composer.evaluation.preparation import preparation
from maskedclip_composer.evaluation.protocols.config import KnnConfig, LinearProbeConfig, ProtocolConfig
from maskedclip_composer.evaluation.protocols.head import LinearHead
from tests.evaluation.encoders.test_facebook import build, dinov2
from tests.evaluation.encoders.test_hugging_face import CLIP, SMALL
from tests.evaluation.problems import whole_problem

CELLS = [(task, protocol) for task in ("grades", "several") for protocol in ("linear_probe", "fast")]


@pytest.mark.parametrize(("task", "protocol"), CELLS)
def test_a_saved_classifier_gives_the_probabilities_of_the_suite(saved_suite, tmp_path, task, protocol):
    cell, outcome = saved_suite.cells[task, protocol]
    several = task == "several"
    problem = whole_problem(saved_suite.data[task], tmp_path, kind="multilabel" if several else "ordinal")
    dataset = eval_dataset(problem.photographs["test"], 32)
    images = torch.stack([torch.as_tensor(dataset[row]["image"]) for row in range(len(dataset))])
    classifier = load_classifier(saved_suite.model(task, protocol))
    found = np.concatenate([classifier.probabilities(part) for part in images.split(16)])  # the suite's batches
    assert found.dtype == outcome.probabilities.dtype == np.float32
    np.testing.assert_array_equal(found, outcome.probabilities)
    np.testing.assert_allclose(classifier.probabilities(images[3:4])[0], outcome.probabilities[3], atol=1e-5)
    facts = classifier.facts
    assert facts.classes == (("D", "G", "N") if several else ("1", "2", "10"))
    assert (facts.kind, facts.seed, facts.amount, facts.train_images) == (problem.data.kind, 0, "100%", 36)
    assert facts.test["roc"] == outcome.metrics["roc"]
    assert facts.val_roc == max(outcome.val_roc)
    assert facts.trained_by == ("finetune" if protocol == "fast" else "linear_probe")
    assert cell.encoder == facts.encoder["name"]


def test_beside_it_lies_what_it_is(saved_suite):
    card = (saved_suite.model("grades", "fast") / "README.md").read_text()
    assert "**Not a medical device.**" in card
    assert "ordinal" not in card  # in words
    assert "one grade for a photograph" in card
    assert "of 2, the best on validation by macro ROC" in card
    assert "assumed: the shards came without report.json" in card


def test_no_folder_of_the_machine_leaves_with_it(saved_suite):
    for task, protocol in CELLS:
        place = saved_suite.model(task, protocol)
        with safe_open(place / CLASSIFIER_FILE, framework="np") as file:
            content = json.loads(file.metadata()["classifier"])
        known = load_suite(saved_suite.folder).encoders[saved_suite.cells[task, protocol][0].encoder]
        assert str(saved_suite.encoder.parent) in known.source  # else nothing is shown here
        for text in (json.dumps(content), (place / "README.md").read_text()):
            assert str(saved_suite.encoder.parent) not in text
            assert str(saved_suite.folder) not in text
        assert content["encoder"]["source"] == saved_suite.encoder.name
        assert f"| encoder | {content['encoder']['name']} |" in (place / "README.md").read_text()


def facts_of(encoder, classes: int = 3) -> ClassifierFacts:
    names = tuple(str(number) for number in range(classes))
    return ClassifierFacts(
        architecture=json.loads(json.dumps(encoder.architecture)),
        image_size=encoder.image_size,
        mean=tuple(encoder.mean),
        std=tuple(encoder.std),
        pooling="",
        kind="nominal",
        classes=names,
        names=names,
        trained_by="",
        precision="fp32",
        rule="",
        selection="",
        recipe=None,
        recipe_source="",
        task={},
        protocol={},
        seed=0,
        amount="100%",
        train_images=1,
        encoder={},
    )


def mae(folder):
    torch.save({"model": build().state_dict()}, folder / "a.pth")
    return f"mae:{folder / 'a.pth'}"


def mae_after_fine_tuning(folder):
    torch.save({"model": build(num_classes=5, global_pool="avg").state_dict()}, folder / "a.pth")
    return f"retfound:{folder / 'a.pth'}"


def gated_dinov2(folder):
    from timm.layers.mlp import SwiGLUPacked

    options = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU, "mlp_ratio": 5.33334}
    vit = build(**options, reg_tokens=4, no_embed_class=True, init_values=1.0)
    torch.save(dinov2(vit, registers=True, gated=True), folder / "a.pth")
    return f"dinov2:{folder / 'a.pth'}"


def timms(name):
    def write(folder):
        torch.save(timm.create_model(name).state_dict(), folder / "a.pth")
        return f"timm:{name}@{folder / 'a.pth'}"

    return write


def hugging_face(model):
    def write(folder):
        model().save_pretrained(folder / "hf")
        return f"hf:{folder / 'hf'}"

    return write


SOURCES = {
    "mae": (mae, 48),
    "fine-tuned mae": (mae_after_fine_tuning, None),
    "dinov2": (gated_dinov2, None),
    "timm's vit": (timms("test_vit"), 64),
    "resnet": (timms("test_resnet"), 64),
    "hugging face": (hugging_face(lambda: ViTModel(ViTConfig(**SMALL))), 32),
    "clip": (hugging_face(lambda: CLIPModel(CLIPConfig(**CLIP))), 32),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_encoder_is_built_again_from_the_file_alone(tmp_path, kind):
    write, size = SOURCES[kind]
    source = write(tmp_path)
    encoder = load(source, image_size=size)
    facts = facts_of(encoder)
    rng = np.random.default_rng(0)
    head = LinearHead(weight=rng.normal(size=(3, encoder.dim)), bias=rng.normal(size=3), several=False)
    network = encoder.classifier(3, 0.1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    images = torch.randint(0, 256, (2, 3, encoder.image_size, encoder.image_size), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (encoder.mean, encoder.std))
    normalised = (images.float() / 255 - mean) / std
    save_classifier(tmp_path / "probe.safetensors", facts, encoder=encoder, head=head, network=None)
    save_classifier(tmp_path / "tuned.safetensors", facts, encoder=encoder, head=None, network=network)
    expected = head.probabilities(encoder.features(normalised).numpy())
    with torch.no_grad():
        tuned = network.eval().forward_head(network.forward_features(normalised)).softmax(dim=1)
    for path in (*tmp_path.glob("*.pth"), *tmp_path.glob("hf/*")):
        path.unlink()
    np.testing.assert_allclose(
        load_classifier(tmp_path / "probe.safetensors").probabilities(images), expected, atol=1e-6
    )
    assert expected.std() > 0.01
    np.testing.assert_allclose(load_classifier(tmp_path / "tuned.safetensors").probabilities(images), tuned, atol=1e-6)


def change(path, to, **facts):
    """Copy a file with other facts, as somebody could who wants it to read or fetch something else."""
    with safe_open(path, framework="pt") as file:
        metadata, weights = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    content = json.loads(metadata["classifier"]) | facts
    save_file(weights, to, metadata | {"classifier": json.dumps(content)})


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"architecture": {"kind": "own"}}, "cannot be read"),
        ({"architecture": {"kind": "other"}}, "unknown kind 'other'"),
        ({"architecture": {"kind": "timm", "name": "hf-hub:somebody/model", "arguments": {}}}, "no timm model"),
        (
            {"architecture": {"kind": "timm", "name": "test_vit", "arguments": {"checkpoint_path": "x"}}},
            "checkpoint_path",
        ),
        ({"recipe": {"size": 4}}, "32 pixels"),
        ({"colour": "red"}, "cannot be read by this version"),
        ({"classes": ["1", "2"], "names": ["1", "2"]}, r"head.bias: \[3\] in the file, \[2\]"),
    ],
)
def test_a_file_with_other_facts_is_refused(saved_suite, tmp_path, facts, message):
    change(saved_suite.model("grades", "fast") / CLASSIFIER_FILE, tmp_path / "a.safetensors", **facts)
    with pytest.raises(UserError, match=message):
        load_classifier(tmp_path / "a.safetensors")


def test_what_is_no_classifier_is_told_apart(saved_suite, tmp_path):
    with pytest.raises(UserError, match=r"is an encoder, not a classifier.*\n.*save_models=true"):
        load_classifier(saved_suite.encoder)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="no classifier of ours"):
        load_classifier(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="not a readable safetensors"):
        load_classifier(tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="No classifier at"):
        load_classifier(tmp_path)


def test_cells_that_are_done_without_a_classifier_are_counted(saved_suite, tmp_path, caplog):
    protocols = {
        "linear_probe": ProtocolConfig(title="a", source="s", linear_probe=LinearProbeConfig()),
        "fast": ProtocolConfig(title="b", source="s", knn=KnnConfig()),
    }
    done = [cell for cell, _ in saved_suite.cells.values()]
    with caplog.at_level(logging.WARNING):
        without_classifier(saved_suite.folder, done, protocols)
        assert not caplog.records
        without_classifier(tmp_path, done, protocols)
    assert "2 cells are done without their classifiers" in caplog.text


def test_the_preparation_is_that_of_the_shards(mds, tmp_path):
    data = whole_problem(mds, tmp_path).data
    assert preparation(data) == (Recipe(), "assumed: the shards came without report.json")
    (tmp_path / "report.json").write_text(json.dumps({"options": {"size": 128}}))
    assert preparation(replace(data, place=str(tmp_path)))[1].startswith("assumed")
    options = Recipe(size=128, crop=False).options() | {"pseudonyms": "keyed"}
    (tmp_path / "report.json").write_text(json.dumps({"options": options}))
    for place in (tmp_path, tmp_path / "downstream"):
        found = preparation(replace(data, place=str(place)))
        assert found == (Recipe(size=128, crop=False), "report.json beside the shards")


def test_an_architecture_of_timm_that_is_not_a_vit_keeps_its_layers(tmp_path):
    encoder = load(timms("test_resnet")(tmp_path), image_size=64)
    again = build_encoder(encoder.architecture, mean=(0.5,) * 3, std=(0.5,) * 3, description="x")
    assert again.module.state_dict().keys() == encoder.module.state_dict().keys()
    assert not isinstance(again.module, VisionTransformer)
