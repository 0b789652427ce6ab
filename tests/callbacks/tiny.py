"""Runs of a tiny MaskedCLIP that are recorded, in a second each."""

from pathlib import Path

import torch
from composer import Trainer
from composer.core import Callback, DataSpec
from composer.loggers import LoggerDestination
from composer.models import ComposerModel
from torch.utils.data import DataLoader

from maskedclip_composer.callbacks.build import tracking_callbacks
from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.models.pretrain import MaskedCLIP
from tests import tiny

SIZE, PATCH, PATCHES = tiny.IMAGE_SIZE, tiny.PATCH_SIZE, tiny.NUM_PATCHES


def TinyModel(objectives: tuple[str, ...] = ("mim", "lg_clip", "mfd")) -> MaskedCLIP:
    net = tiny.net("maskedclip")
    for name in set(net.objectives) - set(objectives):
        del net.objectives[name]
    return MaskedCLIP(net)


def loader(num_batches: int) -> DataSpec:
    """Steps of two paired and two unpaired images."""
    batches = DataLoader([tiny.batch(2, 2, seed) for seed in range(num_batches)], collate_fn=lambda rows: rows[0])  # pyright: ignore
    return DataSpec(
        batches,
        get_num_samples_in_batch=lambda batch: sum(len(part["image"]) for part in batch.values()),
        split_batch=lambda batch, size: [batch],
    )


def make_trainer(
    output: Path,
    config: TrackingConfig,
    *,
    run_name: str = "tiny",
    duration: str = "2ep",
    num_batches: int = 3,
    resolved_config: dict | None = None,
    callbacks: tuple[Callback, ...] = (),
    save: bool = False,
    resume: bool = True,
    model: ComposerModel | None = None,
    **options: tuple[float, ...],
) -> tuple[Trainer, list[LoggerDestination]]:
    loggers, own = tracking_callbacks(
        config,
        run_folder=output / run_name,
        run_name=run_name,
        output=output,
        resolved_config=resolved_config or {"seed": 3, "data": {"image_size": SIZE}},
        manifest={"datasets": {"odir": 12}},
        documents=documents,
        seed=3,
        **options,
    )
    model = model or TinyModel()
    trainer = Trainer(
        model=model,
        train_dataloader=loader(num_batches),
        optimizers=torch.optim.AdamW(model.parameters(), lr=1e-2),
        max_duration=duration,
        callbacks=[*own, *callbacks],
        loggers=loggers,
        run_name=run_name,
        progress_bar=False,
        device="cpu",
        save_folder=str(output / run_name / "checkpoints") if save else None,
        save_filename="ep{epoch}-ba{batch}-rank{rank}.pt",
        save_latest_filename="latest-rank{rank}.pt",
        save_interval="2ba",
        autoresume=save and resume,
    )
    return trainer, loggers


def run(trainer: Trainer) -> None:
    try:
        trainer.fit()
    finally:
        trainer.close()


def documents(folder: Path) -> list[Path]:
    """Write a data card, as `data.documents.collect_documents` does."""
    card = folder / "paired" / "DATA_CARD.md"
    card.parent.mkdir(parents=True, exist_ok=True)
    card.write_text("# Twelve photographs\n")
    return [card]
