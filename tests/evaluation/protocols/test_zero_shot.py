"""On a run of the debug recipe, pre-trained for two steps."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoTokenizer

import train
from maskedclip_composer.build import build_model
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.prompts import PromptConfig
from maskedclip_composer.data.transforms import eval_transform
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.protocols.config import ProtocolConfig, ZeroShotConfig
from maskedclip_composer.evaluation.protocols.zero_shot import check_prompts, objection, zero_shot
from maskedclip_composer.evaluation.tasks import PromptSource, TaskConfig
from maskedclip_composer.models.text import mean_tokens
from tests.evaluation.conftest import write_mds
from tests.evaluation.problems import whole_problem
from tests.training.conftest import DEBUG, shards  # noqa: F401  a fixture

ROOT = Path(__file__).parents[3]
GRADES = PromptSource(dataset="idrid", target="dme")


@pytest.fixture(scope="module")
def run(shards, text_tower, tmp_path_factory):  # noqa: F811
    output = tmp_path_factory.mktemp("runs")
    options = [f"data.{kind}.remote={shards / kind}" for kind in ("paired", "unpaired")]
    options += [f"data.{kind}.split=null" for kind in ("paired", "unpaired")]
    options += ["data.max_tokens=32", f"text_encoder.name={text_tower}", f"output={output}", "run_name=tiny"]
    options += [
        "trainer.progress_bar=false",
        "trainer.max_duration=2ba",
        "optimizer.warmup=1ba",
        "tracking.mlflow=false",
    ]
    assert train.main([str(ROOT / DEBUG), *options]) == 0
    return output / "tiny"


@pytest.fixture(scope="module")
def grades(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("grades"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        images = []
        for _ in range(6):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (40, 44, 3), dtype=np.uint8)).save(buffer, format="PNG")
            images.append(buffer.getvalue())
        write_mds(root / split, [str(index % 3) for index in range(6)], images)
    return root


def test_scores_are_cosines_with_the_mean_prompt(run, grades, tmp_path):
    problem = whole_problem(grades, tmp_path, kind="ordinal", source=str(run), prompts=GRADES)
    fit = zero_shot(ZeroShotConfig(prompts=PromptConfig(expert=False)), problem)
    config = load_config(TrainConfig, str(run / "config.yaml"), [])
    model = build_model(config)
    content = torch.load(run / "checkpoints" / "latest-rank0.pt", weights_only=False)
    model.load_state_dict(content["state"]["model"])
    net = model.net.eval()
    objective = net.objectives["lg_clip"]
    tokenizer = AutoTokenizer.from_pretrained(config.text_encoder.name)
    pack = PromptConfig(expert=False).applied_to(read_pack("retina-en"))
    with torch.no_grad():
        texts = []
        for prompts in pack.class_prompts("idrid", "dme").values():
            one_by_one = []
            for prompt in prompts:
                tokens = tokenizer(prompt, truncation=True, max_length=32, return_tensors="pt")
                text = mean_tokens(
                    net.text_encoder(tokens["input_ids"], tokens["attention_mask"]), tokens["attention_mask"]
                )
                one_by_one.append(F.normalize(objective.text_projection(text), dim=-1)[0])
            texts.append(F.normalize(torch.stack(one_by_one).mean(dim=0), dim=-1))
        size = config.data.image_size
        images = torch.stack([eval_transform(problem.data.test.photographs.image(row), size) for row in range(6)])
        tokens = net.branch(net.normalise(images))[:, 1:].mean(dim=1)
        features = F.normalize(objective.image_projection(tokens), dim=-1)
        expected = (objective.log_logit_scale.exp() * features @ torch.stack(texts).T).softmax(dim=1)
    np.testing.assert_allclose(fit.probabilities, expected.numpy(), atol=1e-5)
    assert set(fit.details["roc_by_template"]) == set(pack.templates)


def test_a_text_tower_tells_different_prompts_apart(run, grades, tmp_path):
    """EyeCLIP's released text tower gave any two texts a similarity of 1."""
    problem = whole_problem(grades, tmp_path, kind="ordinal", source=str(run), prompts=GRADES)
    probabilities = zero_shot(ZeroShotConfig(), problem).probabilities
    assert np.ptp(probabilities, axis=1).max() > 1e-4


def test_what_cannot_be_classified_is_said(run, tmp_path):
    assert objection(str(run), None) == ""
    assert objection(str(run / "encoder.safetensors"), 32) == ""
    assert "text encoder" in objection("random:vit_tiny_patch16_224", None)
    assert "text encoder" in objection(str(tmp_path), None)
    assert "pixels, not image_size=64" in objection(str(run), 64)


def test_classes_without_words_are_found_before_anything_runs():
    protocols = {"zero_shot": ProtocolConfig(title="z", source="s", zero_shot=ZeroShotConfig())}
    task = TaskConfig(title="a", data="b", prompts=GRADES)
    check_prompts(protocols, {"a": task}, {"a": ["0", "1", "2"]})
    with pytest.raises(UserError, match="no words for class 9"):
        check_prompts(protocols, {"a": task}, {"a": ["0", "9"]})
    unknown = TaskConfig(title="a", data="b", prompts=PromptSource(dataset="absent"))
    with pytest.raises(UserError, match="no zero-shot classes of absent"):
        check_prompts(protocols, {"a": unknown}, {"a": ["0"]})


def test_the_checkpoint_is_the_one_that_is_named_and_of_the_encoder_that_is_evaluated(run, grades, tmp_path):
    newest = run / "checkpoints" / "latest-rank0.pt"
    other = tmp_path / "other"
    shutil.copytree(run, other)
    content = torch.load(newest, weights_only=False)
    for name, value in content["state"]["model"].items():
        if name.startswith("net.branch.image_encoder"):
            value.mul_(2)
    early = other / "checkpoints" / "ep0-ba1-rank0.pt"
    torch.save(content, early)
    options = {"kind": "ordinal", "prompts": GRADES}
    first = zero_shot(ZeroShotConfig(), whole_problem(grades, tmp_path, source=str(newest), **options))
    second = zero_shot(ZeroShotConfig(), whole_problem(grades, tmp_path, source=str(early), **options))
    assert not np.allclose(first.probabilities, second.probabilities)
    # An exported encoder beside a checkpoint that went on after it.
    torch.save(content, other / "checkpoints" / "latest-rank0.pt")
    problem = whole_problem(grades, tmp_path, source=str(other), **options)
    with pytest.raises(UserError, match="has another image encoder than"):
        zero_shot(ZeroShotConfig(), problem)
