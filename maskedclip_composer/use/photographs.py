"""Photographs that a command works on: an image file, a folder, a table of paths, or prepared shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maskedclip_composer.data.folders import IMAGE_SUFFIXES
from maskedclip_composer.data.index import INDEX
from maskedclip_composer.data.tables import SUFFIXES
from maskedclip_composer.errors import UserError
from maskedclip_composer.use.image_files import files_of_folder, files_of_table, one_file
from maskedclip_composer.use.one_photograph import Photograph, Photographs
from maskedclip_composer.use.prepared_shards import open_prepared
from maskedclip_composer.use.transform import PhotographTransform

WHAT = f"an image file, a folder of them, a table ({', '.join(SUFFIXES)}) with the column image, or prepared shards"


@dataclass(frozen=True)
class PhotographBatch:
    """Photographs that follow each other.

    Attributes:
        photographs: All of them, in order, those that cannot be read too.
        images: The model's input for those that can be read, in the same order; there may be none.
    """

    photographs: list[Photograph]
    images: UInt8[Tensor, "readable 3 size size"]

    @property
    def readable(self) -> list[int]:
        """Which of `photographs` each of `images` is."""
        return [index for index, photograph in enumerate(self.photographs) if not photograph.reason]

    def pin_memory(self) -> "PhotographBatch":
        """Return it with its images in page-locked memory; the DataLoader calls this."""
        return PhotographBatch(self.photographs, self.images.pin_memory())


def open_photographs(photos: str | Path, images: str | Path | None = None) -> Photographs:
    """Find out what `photos` is, and list what it holds; no photograph is opened yet.

    A folder with an `index.json`, or with folders that have one, holds prepared shards: then the photographs beside
    them are not looked for.

    Args:
        photos: An image file; a folder, whose image files are taken in the order of their paths, hidden ones left out;
            a table with the column `image`, whose other columns are carried along; or prepared shards.
        images: Folder that the table's paths start from; None takes the table's own.

    Raises:
        UserError: There is no such thing, it holds no photograph, a table lacks the column or a path leaves its folder.
    """
    path = Path(photos)
    if "://" in str(photos):
        raise UserError(f"{photos} is an address in an object store.\nCopy it to this machine, and give its folder.")
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return files_of_table(path, Path(images) if images is not None else path.parent)
    if images is not None:
        raise UserError(f"--images {images}: {path} is no table, whose paths could start there.\nLeave --images out.")
    if path.is_dir():
        found = [path] if (path / INDEX).is_file() else sorted(index.parent for index in path.glob(f"*/{INDEX}"))
        return open_prepared(found) if found else files_of_folder(path)
    if not path.is_file():
        found = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise UserError(f"{path} {found}.\nGive {WHAT}.")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{path}: suffix {path.suffix or '(none)'} is not known.\nGive {WHAT}.")
    return one_file(path)


def batches(
    photographs: Photographs,
    transform: PhotographTransform,
    *,
    batch_size: int,
    workers: int = 0,
    device: torch.device | str = "cpu",
    start: int = 0,
) -> Iterator[PhotographBatch]:
    """Read photographs in their order, a batch at a time; one that cannot be read does not stop it.

    Args:
        photographs: What `open_photographs` returned.
        transform: Of the model.
        batch_size: Photographs of a batch, readable or not.
        workers: Processes that read; 0 reads in this one. The batches are the same.
        device: Where the batches will go: for a GPU they are put into page-locked memory.
        start: Photographs to pass over.
    """
    return iter(
        DataLoader(
            _Reading(photographs, transform),
            batch_size=batch_size,
            sampler=range(start, len(photographs)),  # pyright: ignore[reportArgumentType]  any sized iterable will do
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=torch.device(device).type == "cuda",
        )
    )


class _Reading(Dataset):
    def __init__(self, photographs: Photographs, transform: PhotographTransform):
        self._photographs, self._transform = photographs, transform

    def __getitem__(self, index: int) -> tuple[Photograph, Tensor | None]:
        return self._photographs.read(index, self._transform)


def _collate(samples: list[tuple[Photograph, Tensor | None]]) -> PhotographBatch:
    images = [image for _, image in samples if image is not None]
    stacked = torch.stack(images) if images else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return PhotographBatch([photograph for photograph, _ in samples], stacked)
