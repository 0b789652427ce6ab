import numpy as np
import pytest
import torch

from maskedclip_composer.data.transforms import eval_transform
from maskedclip_composer.evaluation.features import Features
from tests.evaluation.conftest import SIZES
from tests.evaluation.problems import whole_problem


@pytest.fixture(scope="module")
def problem(mds, tmp_path_factory):
    return whole_problem(mds, tmp_path_factory.mktemp("aside"))


def test_features_are_the_mean_patch_token_after_the_final_norm(problem):
    encoder = problem.encoder
    image = eval_transform(problem.data.test.photographs.image(20), 32).numpy().transpose(1, 2, 0) / 255
    normalised = (image - np.array(encoder.mean)) / np.array(encoder.std)
    vit = encoder.module.eval()
    with torch.no_grad():
        patches = vit.patch_embed(torch.tensor(normalised.transpose(2, 0, 1)[None], dtype=torch.float32))
        tokens = torch.cat([vit.cls_token, patches], dim=1) + vit.pos_embed
        for block in vit.blocks:
            tokens = block(tokens)
        expected = vit.norm(tokens)[0, 1:].mean(dim=0)
    features = problem.features.of("test")
    assert features.dtype == np.float32
    assert features.shape == (SIZES["test"], 192)
    np.testing.assert_allclose(features[20], expected, atol=1e-4)


def test_a_second_process_reads_them_and_a_damaged_file_is_replaced(problem, monkeypatch):
    first = problem.features.of("val")
    calls = []
    monkeypatch.setattr(type(problem.encoder), "features", lambda self, images: calls.append(1))
    options = {name: getattr(problem.features, name) for name in ("encoder", "splits", "file", "batch_size", "workers")}
    np.testing.assert_array_equal(Features(**options).of("val"), first)
    assert not calls
    monkeypatch.undo()
    problem.features.file.write_bytes(problem.features.file.read_bytes()[:100])
    np.testing.assert_array_equal(Features(**options).of("val"), first)
    assert problem.features.file.stat().st_size > 100
