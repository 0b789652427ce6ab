"""Full fine-tuning with Composer: train, keep the weights that are best on validation, score the test split once."""

import atexit
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from composer import Callback, Evaluator, Logger, State, Trainer
from composer.optim import ComposerScheduler, CosineAnnealingScheduler, CosineAnnealingWithWarmupScheduler
from composer.utils import dist, reproducibility
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.decoded import DecodedSplit
from maskedclip_composer.evaluation.encoders.base import Encoder
from maskedclip_composer.evaluation.loading import PhotographDataset, build_loader, eval_dataset
from maskedclip_composer.evaluation.protocols.base import Fit, Problem
from maskedclip_composer.evaluation.protocols.classifier import (
    METRIC,
    ImageClassifier,
    ScoreCollector,
    build_optimizer,
)
from maskedclip_composer.evaluation.protocols.config import FinetuneConfig
from maskedclip_composer.evaluation.ranks import DIST_TIMEOUT
from maskedclip_composer.evaluation.transforms import train_transform


class BestWeights(Callback):
    """Keeps a copy, on the CPU, of the weights with the best validation score; the earlier one among equals."""

    def __init__(self, module: nn.Module):
        self._module = module
        self._weights: dict[str, Tensor] = {}
        self._best = -float("inf")
        self.best_epoch = 0
        self.val_roc: list[float] = []

    def eval_end(self, state: State, logger: Logger) -> None:
        """Compare the validation score just measured with the best so far."""
        if state.dataloader_label != "val":
            return
        collector = state.eval_metrics["val"][METRIC]
        assert isinstance(collector, ScoreCollector)
        assert collector.metrics is not None
        self.val_roc.append(collector.metrics["roc"])
        score = float(state.eval_metric_values[METRIC])
        if score > self._best:
            self._best, self.best_epoch = score, len(self.val_roc)
            self._weights = {key: value.detach().cpu().clone() for key, value in self._module.state_dict().items()}

    def restore(self) -> None:
        """Put the best weights back; every key must match."""
        self._module.load_state_dict(self._weights, strict=True)


def finetune(config: FinetuneConfig, problem: Problem, rows: Int[np.ndarray, " chosen"], seed: int) -> Fit:
    """Train a classifier from the encoder and score the test split with the epoch that was best on validation.

    Args:
        config: The protocol.
        problem: Encoder and photographs.
        rows: Rows of the training split to use.
        seed: Of the head, the order, stochastic depth and augmentation.

    Raises:
        UserError: Training diverged.
    """
    data, photographs = problem.data, problem.photographs
    reproducibility.seed_all(seed)  # the head is drawn before the Trainer seeds
    problem.encoder.module.cpu()
    network = problem.encoder.classifier(len(data.classes), config.drop_path)
    collector = partial(ScoreCollector, data.kind, data.trained, config.select_by)
    model = ImageClassifier(network, problem.encoder, config, collector)
    best = BestWeights(model)
    device = "gpu" if torch.cuda.is_available() else "cpu"
    precision = config.precision or ("amp_bf16" if device == "gpu" else "fp32")
    trainer = Trainer(
        model=model,
        optimizers=build_optimizer(network, config),
        schedulers=_build_schedule(config),
        train_dataloader=_train_loader(config, problem.encoder, photographs["train"], rows, seed, problem.workers),
        eval_dataloader=_evaluator("val", photographs["val"], problem),
        max_duration=f"{config.epochs}ep",
        callbacks=best,
        device=device,
        precision=precision,
        seed=seed,
        dist_timeout=DIST_TIMEOUT,
        progress_bar=sys.stderr.isatty(),
    )
    with _closing(trainer):
        with warnings.catch_warnings():
            # Composer 0.32.1 says so of every ragged last batch.
            warnings.filterwarnings("ignore", "Cannot split tensor of length")
            trainer.fit()
            best.restore()
            trainer.eval(eval_dataloader=_evaluator("test", photographs["test"], problem))
        tested = trainer.state.eval_metrics["test"][METRIC]
        assert isinstance(tested, ScoreCollector)
        assert tested.scores is not None
        probabilities, targets = tested.scores
        if not np.array_equal(targets, data.test.one_hot):
            raise RuntimeError("the scores of the test split are not in its order")
        return Fit(
            probabilities=probabilities,
            steps=int(trainer.state.timestamp.batch),
            val_roc=best.val_roc,
            details={"best_epoch": best.best_epoch},
            network=network,
            precision=precision,
        )


@contextmanager
def _closing(trainer: Trainer) -> Iterator[None]:
    """Close a trainer so that its memory is free for the next one."""
    try:
        yield
    except BaseException:
        if dist.get_world_size() == 1:  # close() waits for all ranks, which may be waiting for this one elsewhere
            trainer.close()
        raise
    trainer.close()
    # Composer 0.32.1 keeps every trainer's state, weights and loaders, for the end of the process.
    atexit.unregister(trainer.engine._close)


def check_batch(config: FinetuneConfig) -> None:
    """Refuse a batch that does not divide over the ranks.

    Raises:
        UserError: It does not.
    """
    if config.batch_size % dist.get_world_size():
        raise UserError(
            f"finetune.batch_size={config.batch_size} does not divide over {dist.get_world_size()} processes.\n"
            "Use a multiple of their number."
        )


def _build_schedule(config: FinetuneConfig) -> ComposerScheduler:
    lowest = config.min_lr / config.lr
    if config.warmup_epochs == 0:  # which the other one warns of
        return CosineAnnealingScheduler(alpha_f=lowest)
    return CosineAnnealingWithWarmupScheduler(f"{config.warmup_epochs}ep", alpha_f=lowest)


def _train_loader(
    config: FinetuneConfig,
    encoder: Encoder,
    split: DecodedSplit,
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


def _evaluator(label: str, split: DecodedSplit, problem: Problem) -> Evaluator:
    """Score each image once: Composer removes what a DistributedSampler pads, and only what that pads."""
    dataset = eval_dataset(split, problem.encoder.image_size)
    loader = build_loader(dataset, problem.batch_size, problem.workers, sampler=dist.get_sampler(dataset))
    return Evaluator(label=label, dataloader=loader, metric_names=[METRIC])
