import math

import pytest
import torch
import torch.nn.functional as F

from maskedclip_composer.callbacks import diagnostics
from maskedclip_composer.objectives.lg_clip import LabelGuidedClip, LgClipConfig
from tests import tiny


def diagnose(outputs: dict) -> dict[str, float]:
    """Drop the names of the objectives, of which each test has one."""
    net = tiny.net("maskedclip")
    distinct = "all_labels" in outputs.get("lg_clip", {})
    net.objectives["lg_clip"] = LabelGuidedClip(LgClipConfig(), 64, tiny.TEXT_DIM, distinct_logits=distinct)
    for name in set(net.objectives) - set(outputs):
        del net.objectives[name]
    numbers = diagnostics.diagnose(net, outputs)
    assert all(name.startswith(f"{next(iter(outputs))}/") for name in numbers)
    return {name.split("/")[1]: value for name, value in numbers.items()}


def plain(labels: list[int], image_features: torch.Tensor, text_features: torch.Tensor, scale: float) -> dict:
    outputs = {"image_features": image_features, "text_features": text_features, "labels": torch.tensor(labels)}
    return {"lg_clip": outputs | {"logit_scale": torch.tensor(scale)}}


def distinct(labels: list[int], image_features: torch.Tensor, text_features: torch.Tensor, scale: float) -> dict:
    """As `plain`, on the second of two ranks: its pairs are the last one alone, and the tables are padded."""
    rows = text_features.unique(dim=0)
    index = (text_features[:, None] == rows).all(dim=2).int().argmax(dim=1)
    padding = torch.zeros(2, text_features.shape[1])
    every = {
        "image_features": image_features,
        "text_features": torch.cat([padding, rows, padding]),
        "text_index": index + 2,
        "labels": torch.tensor(labels),
    }
    own = {name: values[-1:] for name, values in every.items()}
    own |= {"text_features": text_features[-1:], "text_index": torch.zeros(1, dtype=torch.int64)}
    every = {f"all_{name}": values for name, values in every.items()}
    return {"lg_clip": own | every | {"logit_scale": torch.tensor(scale)}}


FORMS = pytest.mark.parametrize("form", [plain, distinct])


@FORMS
def test_perfect_features_rest_on_the_floor(form):
    labels = [0, 0, 0, 1, 1, 2]
    features = torch.eye(3)[torch.tensor(labels)].requires_grad_()
    metrics = diagnose(form(labels, features, features, 100.0))
    assert metrics["above_floor"] == pytest.approx(0, abs=1e-5)
    assert metrics["logit_scale"] == 100.0
    assert metrics["retrieval_at_1"] == 1.0


@FORMS
def test_equal_features_are_ln_n_minus_the_mean_of_ln_p_above_the_floor(form):
    labels = [0, 0, 0, 1, 1, 2]
    features = F.normalize(torch.ones(6, 4), dim=-1)
    floor = (3 * math.log(3) + 2 * math.log(2) + math.log(1)) / 6
    metrics = diagnose(form(labels, features, features, 7.0))
    assert metrics["above_floor"] == pytest.approx(math.log(6) - floor, rel=1e-5)


@FORMS
def test_retrieval_counts_any_text_with_the_images_label(form):
    images, texts = torch.eye(3), torch.eye(3)[[1, 0, 1]]  # nearest texts: 1, 0 or 2, and none
    assert diagnose(form([5, 5, 6], images, texts, 1.0))["retrieval_at_1"] == pytest.approx(2 / 3)


@FORMS
def test_the_nearest_text_is_found_where_all_are_far_and_has_its_first_pairs_label(form):
    images, texts = torch.eye(2)[[0, 0, 0, 1]], -torch.eye(2)[[0, 0, 0, 1]]
    # The nearest text of the first three images is the last pair's, that of the last image the first three pairs'.
    assert diagnose(form([8, 9, 4, 8], images, texts, 1.0))["retrieval_at_1"] == pytest.approx(2 / 4)
    images, texts = torch.eye(2)[[0, 0, 0, 1]], torch.eye(2)[[0, 0, 0, 1]] * 0.6 - 0.8
    assert diagnose(form([7, 7, 9, 8], images, texts, 1.0))["retrieval_at_1"] == pytest.approx(3 / 4)


def test_the_teachers_variance_is_over_patches_of_one_image():
    per_image = torch.randn(3, 1, 8).expand(3, 5, 8)  # images differ, the patches of one image do not
    assert diagnose({"mfd": {"prediction": per_image, "target": per_image}})["teacher_patch_variance"] == 0
    target = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]], dtype=torch.bfloat16)  # variances 1 and 0
    numbers = diagnose({"mfd": {"prediction": target, "target": target}})
    assert numbers == {"teacher_patch_variance": 0.5, "teacher_effective_rank": 1.0}


def test_an_objective_without_numbers_leaves_no_entry():
    assert diagnose({"mim": {}}) == {}
