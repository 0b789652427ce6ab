import gc
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from composer import Trainer
from sklearn.metrics import cohen_kappa_score, f1_score

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.protocols import finetune as module
from maskedclip_composer.evaluation.protocols.classifier import METRIC, ImageClassifier, ScoreCollector, build_optimizer
from maskedclip_composer.evaluation.protocols.config import FinetuneConfig
from maskedclip_composer.evaluation.transforms import train_transform
from tests.evaluation.conftest import SIZES
from tests.evaluation.problems import whole_problem

ALL = np.arange(SIZES["train"])


@pytest.fixture(scope="module")
def problem(mds, tmp_path_factory):
    return whole_problem(mds, tmp_path_factory.mktemp("aside"))


def collector(kind="nominal", select_by="roc") -> ScoreCollector:
    return ScoreCollector(kind, np.ones(3, dtype=bool), select_by)


def test_layers_learn_at_the_rates_of_the_formula(problem):
    vit = problem.encoder.classifier(3, 0.0)
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


def test_augmentation_gives_uint8_and_differs_from_draw_to_draw(problem):
    transform = train_transform(32, min_crop=0.08, rand_augment="rand-m9-mstd0.5-inc1", mean=(0.5, 0.5, 0.5))
    views = [transform(problem.photographs["train"].pixels(0)) for _ in range(4)]
    assert all(view.dtype == torch.uint8 and view.shape == (3, 32, 32) for view in views)
    assert not torch.equal(views[0], views[1])


def model_of(problem, **options) -> ImageClassifier:
    kind = options.pop("kind", "nominal")
    config = FinetuneConfig(**options)
    return ImageClassifier(problem.encoder.classifier(3, 0.0), problem.encoder, config, lambda: collector(kind))


def test_erasing_is_for_training_alone(problem):
    model = model_of(problem, random_erasing=0.99)
    torch.nn.init.normal_(model.network.head.weight)
    batch = {"image": torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)}
    torch.testing.assert_close(model.eval()(batch), model(batch), atol=0, rtol=0)
    assert not torch.allclose(model.train()(batch), model(batch))


def test_label_smoothing_has_an_effect_and_is_that_of_the_textbook(problem):
    """RETFound's code of 2025 parses --smoothing and does not use it."""
    logits = torch.randn(5, 3)
    target = torch.tensor([0, 1, 2, 2, 1])
    batch = {"target": F.one_hot(target, 3).bool()}
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits, target, label_smoothing=smoothing)
        torch.testing.assert_close(model_of(problem, label_smoothing=smoothing).loss(logits, batch), expected)
    several = {"target": torch.rand(5, 3) < 0.5}
    wanted = torch.where(several["target"], 0.95, 0.05)
    log_likelihood = wanted * logits.sigmoid().log() + (1 - wanted) * (1 - logits.sigmoid()).log()
    loss = model_of(problem, label_smoothing=0.1, kind="multilabel").loss(logits, several)
    torch.testing.assert_close(loss, -log_likelihood.mean())


def test_probabilities_of_several_labels_are_each_for_itself(problem):
    for kind in ("nominal", "multilabel"):
        model, metric = model_of(problem, kind=kind), collector(kind)
        logits = torch.randn(4, 3)
        target = torch.eye(3, dtype=torch.bool)[[0, 1, 2, 0]]
        model.update_metric({"target": target, "index": torch.tensor([2, 0, 1, 3])}, logits, metric)
        metric.compute()
        expected = logits.sigmoid() if kind == "multilabel" else logits.softmax(dim=1)
        np.testing.assert_allclose(metric.scores[0], expected[[1, 2, 0, 3]], atol=1e-6)
        assert (metric.scores[1] == target[[1, 2, 0, 3]].numpy()).all()


def test_an_image_that_is_scored_twice_is_noticed():
    metric = collector()
    metric.update(torch.rand(2, 3), torch.eye(3, dtype=torch.bool)[:2], torch.tensor([0, 0]))
    with pytest.raises(RuntimeError, match="twice"):
        metric.compute()


def test_selection_by_the_mean_of_three_is_retfounds():
    rng = np.random.default_rng(0)
    scores, targets = rng.dirichlet(np.ones(3), 30), rng.integers(3, size=30)
    metric = collector(select_by="mean_of_f1_roc_kappa")
    metric.update(torch.tensor(scores), torch.eye(3, dtype=torch.bool)[targets], torch.arange(30))
    guess = scores.argmax(axis=1)
    roc = classification_metrics(scores, np.eye(3, dtype=bool)[targets], "nominal")["roc"]
    expected = (f1_score(targets, guess, average="macro") + roc + cohen_kappa_score(targets, guess)) / 3
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)


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


def test_trains_chooses_on_validation_and_tests_the_best_once(problem, recorded):
    """RET-CLIP and EyeCLIP score the test set in every epoch; RETFound tested the last epoch by a strict=False."""
    before = {key: value.clone() for key, value in problem.encoder.module.state_dict().items()}
    config = FinetuneConfig(epochs=4, warmup_epochs=1, batch_size=12, lr=2e-3, layer_decay=0.9, drop_path=0.0)
    fit = module.finetune(config, problem, ALL, 1)

    assert [label for label, *_ in recorded["evaluations"]] == ["val"] * 4 + ["test"]
    assert fit.val_roc == pytest.approx([roc for label, roc, _ in recorded["evaluations"] if label == "val"])
    best_epoch = fit.details["best_epoch"]
    assert best_epoch == int(np.argmax(fit.val_roc)) + 1
    assert best_epoch < 4  # else the next line could not fail
    best, tested = recorded["evaluations"][best_epoch - 1][2], recorded["evaluations"][-1][2]
    assert all(torch.equal(value, tested[key]) for key, value in best.items())
    assert fit.steps == 12
    rates = recorded["rates"]
    warmup = [config.lr * step / 3 for step in range(3)]
    cosine = [config.min_lr + (config.lr - config.min_lr) * (1 + np.cos(np.pi * step / 9)) / 2 for step in range(9)]
    # Composer steps the schedule before it counts the batch, so every rate comes one step late.
    assert rates == pytest.approx([0, *warmup, *cosine][:12])
    assert fit.probabilities.shape == (SIZES["test"], 3)
    assert classification_metrics(fit.probabilities, problem.data.test.one_hot, "nominal")["roc"] > 0.8
    assert all(torch.equal(value, before[key]) for key, value in problem.encoder.module.state_dict().items())


def test_several_labels_are_learnt(multilabel_mds, tmp_path):
    problem = whole_problem(multilabel_mds, tmp_path, kind="multilabel")
    config = FinetuneConfig(epochs=6, warmup_epochs=1, batch_size=12, lr=2e-3, layer_decay=0.9, drop_path=0.0)
    fit = module.finetune(config, problem, ALL, 0)
    assert classification_metrics(fit.probabilities, problem.data.test.one_hot, "multilabel")["roc"] > 0.8
    assert (fit.probabilities.sum(axis=1) - 1).max() > 0.1  # no softmax


def test_the_best_weights_are_not_the_last_ones():
    linear = torch.nn.Linear(1, 1)
    best = module.BestWeights(linear)
    metric = collector()
    metric.metrics = {"roc": 0.5}  # pyright: ignore

    class State:
        dataloader_label = "val"
        eval_metrics = {"val": {METRIC: metric}}  # noqa: RUF012
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


def test_a_seed_repeats_and_another_differs_on_fewer_images_than_a_batch(problem):
    config = FinetuneConfig(epochs=1, warmup_epochs=0, batch_size=16)
    runs = [module.finetune(config, problem, np.arange(6), seed).probabilities for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_the_trainer_waits_for_slow_ranks(problem, monkeypatch):
    def refuse(**options):
        raise UserError(f"timeout {options['dist_timeout']:.0f}")

    monkeypatch.setattr(module, "Trainer", refuse)
    with pytest.raises(UserError, match="timeout 3600"):
        module.finetune(FinetuneConfig(), problem, ALL, 0)


def test_divergence_is_said(problem):
    config = FinetuneConfig(epochs=2, warmup_epochs=0, batch_size=12, lr=1e30)
    with pytest.raises(UserError, match="Lower its learning rate"):
        module.finetune(config, problem, ALL, 0)


def test_a_trainer_that_is_done_is_forgotten(problem, monkeypatch):
    """Composer 0.32.1 keeps every trainer for the end of the process: some cells later no memory would be left."""
    kept = []

    class Noted(Trainer):
        def __init__(self, **options):
            super().__init__(**options)
            kept.append(weakref.ref(self.state.model))

    monkeypatch.setattr(module, "Trainer", Noted)
    module.finetune(FinetuneConfig(epochs=1, warmup_epochs=0, batch_size=12), problem, ALL, 0)
    gc.collect()
    assert kept[0]() is None


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused(monkeypatch):
    monkeypatch.setattr(module.dist, "get_world_size", lambda: 3)
    module.check_batch(FinetuneConfig(batch_size=12))
    with pytest.raises(UserError, match="does not divide over 3 processes"):
        module.check_batch(FinetuneConfig(batch_size=16))
