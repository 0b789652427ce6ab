"""Features of the frozen encoder: once per encoder and task, kept on disk for a suite that is continued."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load, save
from tqdm import tqdm

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.evaluation.decoded import DecodedSplit
from maskedclip_composer.evaluation.encoders.base import Encoder
from maskedclip_composer.evaluation.loading import build_loader, eval_dataset
from maskedclip_composer.evaluation.ranks import gather_objects, rank, world_size


@dataclass
class Features:
    """Of all splits of one task.

    Attributes:
        encoder: Of the images.
        splits: By name.
        file: Where they are kept; its name must tell the encoder's weights and the task's photographs.
        batch_size: Images per forward pass and process.
        workers: Processes that load, per rank.
    """

    encoder: Encoder
    splits: dict[str, DecodedSplit]
    file: Path
    batch_size: int
    workers: int
    _known: dict[str, Float[np.ndarray, "images dim"]] = field(default_factory=dict)

    def of(self, split: str) -> Float[np.ndarray, "images dim"]:
        """Return the features of a split in its order; all ranks must call."""
        if not self._known:
            stored = gather_objects(self._stored() if rank() == 0 else None)[0]
            self._known = stored or {name: self._extract(part) for name, part in self.splits.items()}
            if rank() == 0 and not stored:
                write_whole(self.file, save(self._known))
        return self._known[split]

    def _stored(self) -> dict[str, Float[np.ndarray, "images dim"]] | None:
        try:
            return load(self.file.read_bytes())
        except (OSError, SafetensorError):  # extracted anew
            return None

    def _extract(self, split: DecodedSplit) -> Float[np.ndarray, "images dim"]:
        return extract(
            self.encoder,
            split,
            batch_size=self.batch_size,
            workers=self.workers,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        )


@torch.no_grad()
def extract(
    encoder: Encoder, split: DecodedSplit, *, batch_size: int, workers: int, device: torch.device
) -> Float[np.ndarray, "images dim"]:
    """Return the encoder's feature, in float32, of every photograph in the split's order.

    Ranks share the work; each gets all rows, and no photograph counts twice.
    """
    dataset = eval_dataset(split, encoder.image_size)
    loader = build_loader(dataset, batch_size, workers, sampler=range(rank(), len(dataset), world_size()))
    encoder.module.to(device).eval()
    mean = torch.tensor(encoder.mean, device=device).view(-1, 1, 1)
    std = torch.tensor(encoder.std, device=device).view(-1, 1, 1)
    own = []
    for batch in tqdm(loader, desc=f"features {split.split.name}", disable=rank() > 0, leave=False):
        images = (batch["image"].to(device).float() / 255 - mean) / std
        own.append(encoder.features(images).float().cpu().numpy())
    features = np.empty((len(dataset), encoder.dim), dtype=np.float32)
    parts = gather_objects(np.concatenate(own) if own else features[:0])
    for index, part in enumerate(parts):
        features[index :: len(parts)] = part
    return features
