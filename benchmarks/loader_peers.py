"""Public loaders over the photographs of `loader_sets.py`, as their documentation has them."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import InterpolationMode, v2

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.loader import Collate, Sample, SampleTransform
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD

# Loads an epoch and returns the number of its images.
Epoch = Callable[[], int]


def installed(package: str) -> bool:
    """Tell whether a peer is there: pip install -e '.[bench]'."""
    return importlib.util.find_spec(package) is not None


def image_folder(root: Path, *, batch: int, workers: int, view: int, decoder: str) -> Epoch:
    """Build the loader of most public pre-training code, or the same with torchvision's faster decoder and v2."""
    crop = {"size": view, "scale": (0.2, 1.0), "interpolation": InterpolationMode.BICUBIC}
    if decoder == "PIL":
        steps = [transforms.RandomResizedCrop(**crop), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        transform = transforms.Compose([*steps, transforms.Normalize(IMAGE_MEAN, IMAGE_STD)])
        dataset = ImageFolder(str(root), transform)
    else:
        steps = [v2.RandomResizedCrop(**crop, antialias=True), v2.RandomHorizontalFlip()]
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(IMAGE_MEAN), list(IMAGE_STD))]
        dataset = ImageFolder(str(root), v2.Compose(steps), loader=_read)
    loader = DataLoader(
        dataset, batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    return lambda: sum(len(pixels) for pixels, _ in loader)


def _read(path: str) -> torch.Tensor:
    return decode_image(read_file(path), ImageReadMode.RGB)


class OurTransform:
    """What `build_loader` does to a record, for the shards of another library."""

    def __init__(self, view: int) -> None:
        config = DataConfig(unpaired=StreamConfig(remote="/nowhere", batch_size=1), image_size=view)
        self._transform = SampleTransform(config, None, (view // 16, view // 16))
        self._rng = np.random.default_rng()

    def __call__(self, record: dict[str, Any]) -> Sample:
        return self._transform(record, "unpaired", 0, self._rng)

    def of_tar(self, record: dict[str, Any]) -> Sample:
        """Take a record of webdataset."""
        return self({"image": record["jpg"], "dataset": "phantom", "source": record["__key__"]})


COLLATE = Collate(max_tokens=77, pad_id=0, distinct_texts=True)


def litdata(shards: Path, *, batch: int, workers: int, view: int) -> Epoch:
    """Build litdata's loader with our decoding and transform."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(shards), shuffle=True, drop_last=True, transform=OurTransform(view))
    loader = StreamingDataLoader(
        dataset,
        batch_size=batch,
        num_workers=workers,
        drop_last=True,
        collate_fn=COLLATE,
        persistent_workers=workers > 0,
    )
    return functools.partial(_count, loader)


def webdataset(shards: Path, *, batch: int, workers: int, view: int) -> Epoch:
    """Build webdataset's loader with our decoding and transform."""
    from webdataset import WebDataset

    files = [str(file) for file in sorted(shards.glob("*.tar"))]
    dataset = WebDataset(files, shardshuffle=len(files)).shuffle(256).map(OurTransform(view).of_tar)
    loader = DataLoader(
        dataset.batched(batch, collation_fn=COLLATE, partial=False),
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return functools.partial(_count, loader)


def _count(loader: Any) -> int:
    return sum(len(batch["unpaired"]["image"]) for batch in loader)
