import math

import pytest
import torch
import torch.nn.functional as F

from maskedclip_composer.callbacks import diagnostics
from tests import tiny


def diagnose(outputs: dict) -> dict[str, float]:
    """Drop the names of the objectives, of which each test has one."""
    net = tiny.net("maskedclip")
    for name in set(net.objectives) - set(outputs):
        del net.objectives[name]
    numbers = diagnostics.diagnose(net, outputs)
    assert all(name.startswith(f"{next(iter(outputs))}/") for name in numbers)
    return {name.split("/")[1]: value for name, value in numbers.items()}


def lg_clip(labels: list[int], image_features: torch.Tensor, text_features: torch.Tensor, scale: float) -> dict:
    return {
        "image_features": image_features,
        "text_features": text_features,
        "labels": torch.tensor(labels),
        "logit_scale": torch.tensor(scale),
    }


def test_perfect_features_rest_on_the_floor():
    labels = [0, 0, 0, 1, 1, 2]
    features = torch.eye(3)[torch.tensor(labels)].requires_grad_()
    metrics = diagnose({"lg_clip": lg_clip(labels, features, features, 100.0)})
    assert metrics["above_floor"] == pytest.approx(0, abs=1e-5)
    assert metrics["logit_scale"] == 100.0
    assert metrics["retrieval_at_1"] == 1.0


def test_equal_features_are_ln_n_minus_the_mean_of_ln_p_above_the_floor():
    labels = [0, 0, 0, 1, 1, 2]
    features = F.normalize(torch.ones(6, 4), dim=-1)
    floor = (3 * math.log(3) + 2 * math.log(2) + math.log(1)) / 6
    metrics = diagnose({"lg_clip": lg_clip(labels, features, features, 7.0)})
    assert metrics["above_floor"] == pytest.approx(math.log(6) - floor, rel=1e-5)


def test_retrieval_counts_any_text_with_the_images_label():
    images, texts = torch.eye(3), torch.eye(3)[[1, 0, 1]]  # nearest texts: 1, 0 or 2, and none
    metrics = diagnose({"lg_clip": lg_clip([5, 5, 6], images, texts, 1.0)})
    assert metrics["retrieval_at_1"] == pytest.approx(2 / 3)


def test_the_teachers_variance_is_over_patches_of_one_image():
    per_image = torch.randn(3, 1, 8).expand(3, 5, 8)  # images differ, the patches of one image do not
    assert diagnose({"mfd": {"prediction": per_image, "target": per_image}})["teacher_patch_variance"] == 0
    target = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]], dtype=torch.bfloat16)  # variances 1 and 0
    assert diagnose({"mfd": {"prediction": target, "target": target}}) == {"teacher_patch_variance": 0.5}


def test_an_objective_without_numbers_leaves_no_entry():
    assert diagnose({"mim": {}}) == {}
