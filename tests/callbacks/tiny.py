"""A model small enough to train in a second, whose outputs have the shapes of the real one's."""

from pathlib import Path

import torch
import torch.nn.functional as F
from composer import Trainer
from composer.core import Callback, DataSpec
from composer.loggers import LoggerDestination
from composer.models import ComposerModel
from torch import Tensor, nn
from torch.utils.data import DataLoader

from maskedclip_composer.callbacks.build import tracking_callbacks
from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.losses.contrastive import label_guided_clip_loss
from maskedclip_composer.losses.distillation import masked_feature_cosine
from maskedclip_composer.losses.reconstruction import masked_patch_mse
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD
from maskedclip_composer.objectives.mim import patchify

SIZE, PATCH, PATCHES, DIM = 32, 8, 16, 12
LOSSES = {"mim": masked_patch_mse, "lg_clip": label_guided_clip_loss, "mfd": masked_feature_cosine}


class TinyModel(ComposerModel):
    def __init__(self, objectives: tuple[str, ...] = ("mim", "lg_clip", "mfd")):
        super().__init__()
        torch.manual_seed(0)
        self.objectives = objectives
        self.pixels = nn.Linear(PATCH**2 * 3, PATCH**2 * 3)
        self.features = nn.Linear(PATCH**2 * 3, DIM)
        self.teacher = nn.Linear(PATCH**2 * 3, DIM).requires_grad_(False)
        self.text = nn.Embedding(4, DIM)

    def forward(self, batch: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        images = torch.cat([part["image"] for part in batch.values()])
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGE_MEAN, IMAGE_STD))
        patches = patchify((images / 255 - mean) / std, PATCH)
        mask = (torch.arange(PATCHES) % 4 != 0).float().expand(len(images), -1)
        visible = patches * (1 - mask[..., None])
        outputs = {"mim": {"prediction": self.pixels(visible), "target": patches, "mask": mask}}
        outputs["mfd"] = {"prediction": self.features(visible), "target": self.teacher(patches)}
        if "paired" in batch:
            labels = batch["paired"]["label"]
            outputs["lg_clip"] = {
                "image_features": F.normalize(self.features(patches[: len(labels)]).mean(1), dim=-1),
                "text_features": F.normalize(self.text(labels), dim=-1),
                "labels": labels,
                "logit_scale": torch.tensor(14.0),
            }
        return {name: outputs[name] for name in self.objectives}

    def loss(self, outputs, batch, *args, **kwargs):
        losses = {name: LOSSES[name](**arguments) for name, arguments in outputs.items()}
        return {"total": torch.stack(list(losses.values())).sum(), **losses}


def loader(num_batches: int, batch_size: int = 4) -> DataSpec:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num_batches * batch_size, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)

    def collate(indices: list[int]) -> dict[str, dict[str, Tensor]]:
        half = len(indices) // 2
        return {
            "paired": {"image": images[indices[:half]], "label": torch.tensor([index % 2 for index in indices[:half]])},
            "unpaired": {"image": images[indices[half:]]},
        }

    rows = DataLoader(range(len(images)), batch_size=batch_size, collate_fn=collate)  # pyright: ignore
    return DataSpec(
        rows,
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
