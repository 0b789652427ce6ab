"""Loaders of labelled photographs."""

from functools import partial

import numpy as np
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from maskedclip_composer.data.transforms import eval_transform
from maskedclip_composer.evaluation.decoded import DecodedSplit
from maskedclip_composer.evaluation.transforms import Transform


class PhotographDataset(Dataset):
    """Photographs of a split, or of a part of it.

    A sample is {"image": [3, size, size] uint8, "target": [classes] bool, "index": its position in this data set}.
    """

    def __init__(self, split: DecodedSplit, transform: Transform, rows: Int[np.ndarray, " chosen"] | None = None):
        self.split = split
        self.rows = np.arange(len(split)) if rows is None else rows
        self._transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor | np.ndarray | int]:
        row = int(self.rows[index])
        image = self._transform(self.split.pixels(row))
        return {"image": image, "target": self.split.split.one_hot[row], "index": index}


def eval_dataset(split: DecodedSplit, size: int) -> PhotographDataset:
    """Return a whole split under the transform without randomness."""
    return PhotographDataset(split, partial(eval_transform, size=size))


def build_loader(
    dataset: Dataset, batch_size: int, workers: int, *, sampler: Sampler | range | None = None, drop_last: bool = False
) -> DataLoader:
    """Build a loader whose workers outlive an epoch."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,  # pyright: ignore[reportArgumentType]  any sized iterable will do
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=drop_last,
    )
