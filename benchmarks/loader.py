"""CPU time per image of our loader and of torchvision's ImageFolder, over the same files in one run.

OMP_NUM_THREADS=1 python benchmarks/loader.py; docs/performance.md explains the table.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rounds import interleave, machine, milliseconds, print_table, spread, times_faster
from streaming import MDSWriter
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import InterpolationMode, v2

from data_prep.phantom.case import photograph, sample_cases
from data_prep.phantom.diagnoses import DIAGNOSES
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.loader import build_loader
from maskedclip_composer.data.schema import COLUMNS
from maskedclip_composer.data.transforms import decode
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD

PEER = "ImageFolder, PIL"
VIEW = 224
MEAN, STD = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)

# Loads an epoch and returns the number of its images.
Epoch = Callable[[], int]


def draw(folder: Path, images: int, distinct: int, size: int) -> list[Path]:
    """Draw `distinct` phantoms and save them under `images` names; drawing takes longer than all that is measured."""
    folder.mkdir(parents=True)
    files = []
    for number in range(images):
        files.append(folder / f"{number:05d}.jpg")
        if number >= distinct:
            shutil.copyfile(files[number % distinct], files[-1])
            continue
        diagnosis = list(DIAGNOSES)[number % len(DIAGNOSES)]
        case = sample_cases(np.random.SeedSequence([number]), {"left": [diagnosis]})[0]
        Image.fromarray(photograph(case, size)).save(files[-1], quality=90, subsampling="4:2:0")
    return files


def write_shards(files: Sequence[Path], folder: Path, size: int) -> None:
    """Put the bytes of the same files into the shards of an unpaired stream."""
    empty = {"dataset": "phantom", "patient": "", "eye": "", "split": "train", "sha256": ""}
    with MDSWriter(out=str(folder), columns=COLUMNS["unpaired"], hashes=["xxh64"]) as writer:
        for file in files:
            record = {"image": file.read_bytes(), "width": size, "height": size, "source": file.name}
            writer.write(empty | record | {"crop": {"status": "none", "box": None}})


def ours(shards: Path, *, batch: int, workers: int, view: int, normalise: bool = False, stock: bool = False) -> Epoch:
    """Build our loader; `stock` gives it the predownload that Streaming takes where none is given."""
    # Streaming refuses two data sets of one folder in one process.
    folder = Path(tempfile.mkdtemp(dir=shards.parent))
    shutil.copytree(shards, folder, copy_function=os.link, dirs_exist_ok=True)
    stream = StreamConfig(remote=str(folder), batch_size=batch)
    config = DataConfig(unpaired=stream, image_size=view, num_workers=workers)
    spec = build_loader(config, tokenizer=None, grid=(view // 16, view // 16), seed=0)
    loader: Any = spec.dataloader
    if stock:
        loader.dataset.predownload = 8 * batch

    def epoch() -> int:
        count = 0
        for step in loader:
            pixels = step["unpaired"]["image"]
            if normalise:
                pixels = (pixels.float() / 255 - MEAN) / STD
            count += len(pixels)
        return count

    return epoch


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


def variants(root: Path, shards: Path, batch: int, view: int) -> dict[tuple[str, int], Epoch]:
    """Build every row of the table, by name and number of worker processes."""
    built: dict[tuple[str, int], Epoch] = {}
    for workers in (0, 2):
        peer = partial(image_folder, root, batch=batch, workers=workers, view=view)
        mine = partial(ours, shards, batch=batch, workers=workers, view=view)
        built[PEER, workers] = peer(decoder="PIL")
        if workers == 0:
            built["ImageFolder, torchvision.io and v2", workers] = peer(decoder="torchvision")
        built["build_loader", workers] = mine()
        if workers == 0:
            built["build_loader, normalised on the CPU", workers] = mine(normalise=True)
        built["build_loader, predownload of Streaming", workers] = mine(stock=True)
    return built


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512, help="files of an epoch (%(default)s)")
    parser.add_argument("--distinct", type=int, default=128, help="different photographs among them (%(default)s)")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each variant (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = draw(root / "photographs" / "all", args.images, args.distinct, args.size)
        write_shards(files, root / "shards", args.size)
        with Image.open(files[0]) as picture:
            assert np.array_equal(decode(files[0].read_bytes()), np.asarray(picture)), "decoders disagree"
        built = variants(root / "photographs", root / "shards", args.batch, VIEW)
        expected = args.images // args.batch * args.batch
        for key, epoch in built.items():
            assert epoch() == expected, f"{key} does not yield {expected} images"
        costs = interleave({f"{name} {workers}": built[name, workers] for name, workers in built}, rounds=args.rounds)
        kilobytes = sum(file.stat().st_size for file in files) / len(files) / 1000
    print(f"Loader: {machine()}")
    print(
        f"{expected} JPEGs of {args.size} px, {kilobytes:.0f} kB each, batches of {args.batch}, {args.rounds} rounds\n"
    )
    print_table(
        ["loader", "workers", "CPU ms an image", "times faster (CPU)", "images/s (wall)"],
        [
            [
                name,
                workers,
                milliseconds(costs[f"{name} {workers}"], expected),
                times_faster(costs[f"{PEER} {workers}"], costs[f"{name} {workers}"]),
                spread([expected / cost.wall for cost in costs[f"{name} {workers}"]], ".0f"),
            ]
            for name, workers in built
        ],
    )


if __name__ == "__main__":
    main()
