"""Loaders of labelled photographs: each one exactly once, named when it cannot be read."""

from functools import partial

import numpy as np
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from maskedclip_composer.data.transforms import eval_transform
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.data import LabelledData, LabelledSplit
from maskedclip_composer.evaluation.ranks import gather_objects, rank, world_size
from maskedclip_composer.evaluation.transforms import Transform

_MAX_NAMED = 10


class PhotographDataset(Dataset):
    """Decoded photographs of a split, or of a part of it.

    A sample is {"image": [3, size, size] uint8, "target": int, "index": its position in this data set}.
    """

    def __init__(
        self,
        split: LabelledSplit,
        transform: Transform,
        rows: Int[np.ndarray, " chosen"] | None = None,
    ):
        self.split = split
        self.rows = np.arange(len(split)) if rows is None else rows
        self._transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        row = int(self.rows[index])
        photographs = self.split.photographs
        image = self._transform(photographs.image(row), name=photographs.describe(row))
        return {"image": image, "target": int(self.split.targets[row]), "index": index}


def eval_dataset(split: LabelledSplit, size: int) -> PhotographDataset:
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


def check_readable(data: LabelledData, size: int, workers: int) -> None:
    """Decode every photograph once, so that a damaged one is found before hours of training.

    Raises:
        UserError: Names the records that cannot be decoded.
    """
    failures: list[str] = []
    for split in (data.train, data.val, data.test):
        loader = build_loader(
            _Unreadable(eval_dataset(split, size)), 32, workers, sampler=range(rank(), len(split), world_size())
        )
        for texts in tqdm(loader, desc=f"check {split.name}", disable=rank() > 0, leave=False):
            failures += [text for text in texts if text]
    failures = [text for part in gather_objects(failures) for text in part]
    if failures:
        more = f"\n... and {len(failures) - _MAX_NAMED} more" if len(failures) > _MAX_NAMED else ""
        raise UserError(f"{len(failures)} photographs cannot be decoded:\n" + "\n".join(failures[:_MAX_NAMED]) + more)


class _Unreadable(Dataset):
    """For each photograph why it cannot be decoded, or an empty string."""

    def __init__(self, dataset: PhotographDataset):
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> str:
        try:
            self._dataset[index]
        except UserError as error:
            return str(error)
        return ""
