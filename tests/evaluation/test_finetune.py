import numpy as np
import pytest
import timm
import torch
from composer import Trainer

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation import finetune as module
from maskedclip_composer.evaluation.classifier import METRIC, ImageClassifier, build_classifier, build_optimizer
from maskedclip_composer.evaluation.config import FinetuneConfig
from maskedclip_composer.evaluation.data import load_labelled
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.transforms import train_transform
from maskedclip_composer.export.encoder import load_encoder
from tests.evaluation.conftest import SIZES, TINY


@pytest.fixture(scope="module")
def data(mds):
    return load_labelled(str(mds))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(TINY, image_size=32)


def test_the_classifier_is_timms_average_pooled_vit(encoder):
    classifier = build_classifier(encoder.vit, 3, 0.2).eval()
    reference = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=3, global_pool="avg", drop_path_rate=0.2
    ).eval()
    assert set(classifier.state_dict()) == set(reference.state_dict())
    reference.load_state_dict(classifier.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(classifier(images), reference(images), atol=1e-6, rtol=1e-4)
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in classifier.blocks]
    assert rates == [getattr(block.drop_path2, "drop_prob", 0.0) for block in reference.blocks]
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert classifier.head.weight.abs().max() < 1e-4
    assert not encoder.vit.pos_embed.requires_grad  # the encoder itself is left alone


def test_layers_learn_at_the_rates_of_the_formula(encoder):
    vit = build_classifier(encoder.vit, 3, 0.0)
    config = FinetuneConfig(lr=1e-3, layer_decay=0.5)
    rates, decays = {}, {}
    for group in build_optimizer(vit, config).param_groups:
        for parameter in group["params"]:
            rates[id(parameter)], decays[id(parameter)] = group["lr"], group["weight_decay"]
    for name, parameter in vit.named_parameters():
        if name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        else:
            layer = 13 if name.startswith(("head", "fc_norm")) else 0
        assert rates[id(parameter)] == pytest.approx(1e-3 * 0.5 ** (13 - layer)), name
        exempt = parameter.ndim == 1 or name in ("cls_token", "pos_embed")
        assert decays[id(parameter)] == (0 if exempt else 0.05), name


def test_augmentation_gives_uint8_and_differs_from_draw_to_draw(data):
    transform = train_transform(32, min_crop=0.08, rand_augment="rand-m9-mstd0.5-inc1", mean=(0.5, 0.5, 0.5))
    views = [transform(data.train.photographs.image(0), name="a") for _ in range(4)]
    assert all(view.dtype == torch.uint8 and view.shape == (3, 32, 32) for view in views)
    assert not torch.equal(views[0], views[1])


def test_erasing_is_for_training_alone(encoder, data):
    model = ImageClassifier(build_classifier(encoder.vit, 3, 0.0), encoder, FinetuneConfig(random_erasing=0.99))
    torch.nn.init.normal_(model.vit.head.weight)
    batch = {"image": torch.full((2, 3, 32, 32), 128, dtype=torch.uint8), "target": torch.tensor([0, 1])}
    torch.testing.assert_close(model.eval()(batch), model(batch), atol=0, rtol=0)
    assert not torch.allclose(model.train()(batch), model(batch))


@pytest.fixture
def recorded(monkeypatch):
    """What the Trainer is asked to do: learning rates per step, and each evaluation with the weights it saw."""
    record = {"evaluations": [], "rates": []}
    loop, train_batch = Trainer._eval_loop, Trainer._train_batch

    def eval_loop(self, evaluator, *args, **kwargs):
        loop(self, evaluator, *args, **kwargs)
        weights = {key: value.clone() for key, value in self._original_model.state_dict().items()}
        roc = float(self.state.eval_metrics[evaluator.label][METRIC].compute())
        record["evaluations"].append((evaluator.label, roc, weights))

    def batch(self, *args, **kwargs):
        record["rates"].append(max(group["lr"] for group in self.state.optimizers[0].param_groups))
        return train_batch(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "_eval_loop", eval_loop)
    monkeypatch.setattr(Trainer, "_train_batch", batch)
    return record


def test_trains_chooses_on_validation_and_tests_the_best_once(encoder, data, recorded, monkeypatch):
    before = {key: value.clone() for key, value in encoder.vit.state_dict().items()}
    config = FinetuneConfig(epochs=4, warmup_epochs=1, batch_size=12, lr=2e-3, layer_decay=0.9, drop_path=0.0)
    fit = module.finetune(config, encoder, data, rows=np.arange(SIZES["train"]), seed=1, workers=0)

    assert [label for label, *_ in recorded["evaluations"]] == ["val"] * 4 + ["test"]
    assert fit.val_roc == [roc for label, roc, _ in recorded["evaluations"] if label == "val"]
    assert fit.best_epoch == int(np.argmax(fit.val_roc)) + 1
    assert fit.best_epoch < 4  # else the next line could not fail
    best, tested = recorded["evaluations"][fit.best_epoch - 1][2], recorded["evaluations"][-1][2]
    assert all(torch.equal(value, tested[key]) for key, value in best.items())
    assert fit.steps == 12
    rates = recorded["rates"]
    warmup = [config.lr * step / 3 for step in range(3)]
    cosine = [config.min_lr + (config.lr - config.min_lr) * (1 + np.cos(np.pi * step / 9)) / 2 for step in range(9)]
    # Composer steps the schedule before it counts the batch, so every rate comes one step late.
    assert rates == pytest.approx([0, *warmup, *cosine][:12])
    assert fit.probabilities.shape == (SIZES["test"], 3)
    assert classification_metrics(fit.probabilities, data.test.targets)["roc"] > 0.8
    assert all(torch.equal(value, before[key]) for key, value in encoder.vit.state_dict().items())


def test_the_best_weights_are_not_the_last_ones(encoder):
    linear = torch.nn.Linear(1, 1)
    best = module.BestWeights(linear)

    class State:
        dataloader_label = "val"
        eval_metric_values: dict

    for value, score in enumerate([0.5, 0.9, 0.9, 0.7]):
        torch.nn.init.constant_(linear.weight, value)
        State.eval_metric_values = {METRIC: torch.tensor(score)}
        best.eval_end(State, None)  # pyright: ignore
    best.restore()
    assert best.best_epoch == 2
    assert linear.weight.item() == 1
    del best._weights["bias"]
    with pytest.raises(RuntimeError, match="bias"):
        best.restore()


def test_a_seed_repeats_and_another_differs_on_fewer_images_than_a_batch(encoder, data):
    config = FinetuneConfig(epochs=1, warmup_epochs=0, batch_size=16)
    rows = np.arange(6)
    runs = [module.finetune(config, encoder, data, rows=rows, seed=seed, workers=0).probabilities for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_the_trainer_waits_for_slow_ranks(encoder, data, monkeypatch):
    def refuse(**options):
        raise UserError(f"timeout {options['dist_timeout']:.0f}")

    monkeypatch.setattr(module, "Trainer", refuse)
    with pytest.raises(UserError, match="timeout 3600"):
        module.finetune(FinetuneConfig(), encoder, data, rows=np.arange(SIZES["train"]), seed=0, workers=0)


def test_divergence_is_said(encoder, data):
    config = FinetuneConfig(epochs=2, warmup_epochs=0, batch_size=12, lr=1e30)
    with pytest.raises(UserError, match=r"Lower finetune\.lr"):
        module.finetune(config, encoder, data, rows=np.arange(SIZES["train"]), seed=0, workers=0)
