"""Full fine-tuning with Composer: train, keep the weights that are best on validation, score the test split once."""

import sys
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from composer import Callback, Evaluator, Logger, State, Trainer
from composer.optim import ComposerScheduler, CosineAnnealingScheduler, CosineAnnealingWithWarmupScheduler
from composer.utils import dist, reproducibility
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.classifier import (
    METRIC,
    ImageClassifier,
    ScoreCollector,
    build_classifier,
    build_optimizer,
)
from maskedclip_composer.evaluation.config import FinetuneConfig
from maskedclip_composer.evaluation.data import LabelledData, LabelledSplit
from maskedclip_composer.evaluation.loading import PhotographDataset, build_loader, eval_dataset
from maskedclip_composer.evaluation.ranks import DIST_TIMEOUT
from maskedclip_composer.evaluation.transforms import train_transform
from maskedclip_composer.export.encoder import LoadedEncoder

_EVAL_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class FinetuneFit:
    """What fine-tuning yields.

    Attributes:
        probabilities: Of the test images, in the split's order.
        best_epoch: Epoch, from 1, whose weights were tested.
        val_roc: Macro ROC on the validation split after each epoch.
        steps: Optimiser steps taken.
    """

    probabilities: Float[np.ndarray, "images classes"]
    best_epoch: int
    val_roc: list[float]
    steps: int


class BestWeights(Callback):
    """Keeps a copy, on the CPU, of the weights with the best validation score; the earlier one among equals."""

    def __init__(self, module: nn.Module):
        self._module = module
        self._weights: dict[str, Tensor] = {}
        self.history: list[float] = []
        self.best_epoch = 0

    def eval_end(self, state: State, logger: Logger) -> None:
        """Compare the validation score just measured with the best so far."""
        if state.dataloader_label != "val":
            return
        score = float(state.eval_metric_values[METRIC])
        if not self.history or score > max(self.history):
            self.best_epoch = len(self.history) + 1
            self._weights = {key: value.detach().cpu().clone() for key, value in self._module.state_dict().items()}
        self.history.append(score)

    def restore(self) -> None:
        """Put the best weights back; every key must match."""
        self._module.load_state_dict(self._weights, strict=True)


def finetune(
    config: FinetuneConfig,
    encoder: LoadedEncoder,
    data: LabelledData,
    *,
    rows: Int[np.ndarray, " chosen"],
    seed: int,
    workers: int,
) -> FinetuneFit:
    """Train a classifier from the encoder and score the test split with the epoch that was best on validation.

    Args:
        config: The protocol.
        encoder: Start of the weights; not changed.
        data: The three splits.
        rows: Rows of the training split to use.
        seed: Of the head, the order, stochastic depth and augmentation.
        workers: Processes that decode, per rank and loader.

    Raises:
        UserError: The batch does not divide over the ranks, or training diverged.
    """
    if config.batch_size % dist.get_world_size():
        raise UserError(
            f"finetune.batch_size={config.batch_size} does not divide over {dist.get_world_size()} processes.\n"
            "Use a multiple of their number."
        )
    reproducibility.seed_all(seed)  # the head is drawn before the Trainer seeds
    vit = build_classifier(encoder.vit.cpu(), len(data.classes), config.drop_path)
    model = ImageClassifier(vit, encoder, config)
    best = BestWeights(model)
    device = "gpu" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(
        model=model,
        optimizers=build_optimizer(vit, config),
        schedulers=_build_schedule(config),
        train_dataloader=_train_loader(config, encoder, data.train, rows, seed, workers),
        eval_dataloader=_evaluator("val", data.val, encoder.image_size, workers),
        max_duration=f"{config.epochs}ep",
        callbacks=best,
        device=device,
        precision=config.precision or ("amp_bf16" if device == "gpu" else "fp32"),
        seed=seed,
        dist_timeout=DIST_TIMEOUT,
        progress_bar=sys.stderr.isatty(),
    )
    try:
        with warnings.catch_warnings():
            # Composer 0.32.1 says so of every ragged last batch.
            warnings.filterwarnings("ignore", "Cannot split tensor of length")
            trainer.fit()
            best.restore()
            trainer.eval(eval_dataloader=_evaluator("test", data.test, encoder.image_size, workers))
        collector = trainer.state.eval_metrics["test"][METRIC]
        assert isinstance(collector, ScoreCollector)
        assert collector.scores is not None
        probabilities, targets = collector.scores
        if not np.array_equal(targets, data.test.targets):
            raise RuntimeError("the scores of the test split are not in its order")
        return FinetuneFit(
            probabilities=probabilities,
            best_epoch=best.best_epoch,
            val_roc=best.history,
            steps=int(trainer.state.timestamp.batch),
        )
    finally:
        trainer.close()


def _build_schedule(config: FinetuneConfig) -> ComposerScheduler:
    lowest = config.min_lr / config.lr
    if config.warmup_epochs == 0:  # which the other one warns of
        return CosineAnnealingScheduler(alpha_f=lowest)
    return CosineAnnealingWithWarmupScheduler(f"{config.warmup_epochs}ep", alpha_f=lowest)


def _train_loader(
    config: FinetuneConfig,
    encoder: LoadedEncoder,
    split: LabelledSplit,
    rows: Int[np.ndarray, " chosen"],
    seed: int,
    workers: int,
) -> DataLoader:
    transform = train_transform(
        encoder.image_size, min_crop=config.min_crop, rand_augment=config.rand_augment, mean=encoder.mean
    )
    dataset = PhotographDataset(split, transform, rows)
    # RETFound drops the ragged last batch; a split smaller than a batch would then have none.
    drop_last = len(rows) >= config.batch_size
    sampler = dist.get_sampler(dataset, shuffle=True, drop_last=drop_last, seed=seed)
    return build_loader(
        dataset, config.batch_size // dist.get_world_size(), workers, sampler=sampler, drop_last=drop_last
    )


def _evaluator(label: str, split: LabelledSplit, size: int, workers: int) -> Evaluator:
    """Score each image once: Composer removes what a DistributedSampler pads, and only what that pads."""
    dataset = eval_dataset(split, size)
    loader = build_loader(dataset, _EVAL_BATCH, workers, sampler=dist.get_sampler(dataset))
    return Evaluator(label=label, dataloader=loader, metric_names=[METRIC])
