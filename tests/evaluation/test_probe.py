import numpy as np
import pytest
import torch

from maskedclip_composer.data.transforms import eval_transform
from maskedclip_composer.evaluation.config import ProbeConfig
from maskedclip_composer.evaluation.data import load_labelled
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.probe import extract_features, fit_probe
from maskedclip_composer.export.encoder import load_encoder
from tests.evaluation.conftest import TINY


@pytest.fixture(scope="module")
def data(mds):
    return load_labelled(str(mds))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(TINY, image_size=32)


@pytest.fixture(scope="module")
def features(encoder, data):
    splits = (data.train, data.val, data.test)
    return [extract_features(encoder, s, batch_size=8, workers=0, device=torch.device("cpu")) for s in splits]


def test_features_are_the_mean_patch_token_after_the_final_norm(encoder, data, features):
    image = eval_transform(data.test.photographs.image(20), 32).numpy().transpose(1, 2, 0) / 255
    normalised = (image - np.array(encoder.mean)) / np.array(encoder.std)
    vit = encoder.vit.eval()
    with torch.no_grad():
        patches = vit.patch_embed(torch.tensor(normalised.transpose(2, 0, 1)[None], dtype=torch.float32))
        tokens = torch.cat([vit.cls_token, patches], dim=1) + vit.pos_embed
        for block in vit.blocks:
            tokens = block(tokens)
        expected = vit.norm(tokens)[0, 1:].mean(dim=0)
    assert features[2].dtype == np.float32
    np.testing.assert_allclose(features[2][20], expected, atol=1e-4)
    assert features[2].shape == (21, 192)


def test_separable_classes_are_separated(data, features):
    train, val, test = features
    fit = fit_probe(ProbeConfig(), (train, data.train.targets), (val, data.val.targets))
    assert classification_metrics(fit.model.predict_proba(test), data.test.targets)["roc"] > 0.95
    assert fit.converged


def test_shuffled_labels_teach_nothing():
    rng = np.random.default_rng(0)
    values = []
    for _ in range(8):
        parts = [(rng.normal(size=(n, 20)), rng.integers(3, size=n)) for n in (90, 60, 200)]
        fit = fit_probe(ProbeConfig(), parts[0], parts[1])
        values.append(classification_metrics(fit.model.predict_proba(parts[2][0]), parts[2][1])["roc"])
    assert abs(np.mean(values) - 0.5) < 0.04  # three standard errors


def test_strength_is_chosen_on_validation_and_fitted_on_train_alone():
    rng = np.random.default_rng(1)
    train = (rng.normal(3, 2, size=(60, 5)), rng.integers(2, size=60))
    val = (rng.normal(size=(40, 5)), rng.integers(2, size=40))
    fit = fit_probe(ProbeConfig(c_grid=[1e-4, 1.0, 100.0]), train, val)
    assert fit.val_roc[fit.c] == max(fit.val_roc.values())
    assert list(fit.val_roc) == [1e-4, 1.0, 100.0]
    np.testing.assert_allclose(fit.model[0].mean_, train[0].mean(axis=0))
    again = fit_probe(ProbeConfig(c_grid=[fit.c]), train, val)
    np.testing.assert_allclose(fit.model[-1].coef_, again.model[-1].coef_)


def test_a_solver_that_stops_early_is_reported():
    rng = np.random.default_rng(2)
    part = (rng.normal(size=(60, 30)), rng.integers(3, size=60))
    assert not fit_probe(ProbeConfig(c_grid=[10.0], max_iterations=1), part, part).converged
