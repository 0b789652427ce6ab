"""CPU time per image of our loader and of public ones, over the same photographs in one run; exits 1 on a missed goal.

OMP_NUM_THREADS=1 python benchmarks/loader.py; docs/performance.md explains the tables.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from loader_peers import Epoch, image_folder, installed, litdata, webdataset
from loader_sets import draw, encoded_kilobytes, pixels_of, write_litdata, write_pixels, write_shards, write_webdataset
from rounds import Cost, interleave, machine, milliseconds, print_table, quotients, spread, times_faster
from streaming import StreamingDataset

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.loader import build_loader
from maskedclip_composer.data.transforms import decode
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD

PEER, TORCHVISION = "ImageFolder, PIL", "ImageFolder, torchvision.io and v2"
LITDATA, WEBDATASET = "litdata, our transform", "webdataset, our transform"
OURS, NORMALISED, STOCK = (
    "build_loader",
    "build_loader, normalised on the CPU",
    "build_loader, threads of Streaming",
)
PIXELS, SMALL_PIXELS = "build_loader, stored pixels", "build_loader, stored pixels of half the size"
LARGE, LARGE_PEER, SCALED = "build_loader, exact", PEER, "build_loader, scaled"
VIEW = 224
MEAN, STD = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)

Key = tuple[str, int]  # row and number of workers
# (row, what it is compared with, workers, largest quotient of their CPU times)
GATES = (
    (OURS, PEER, 0, 0.45),
    (OURS, PEER, 2, 0.45),
    (OURS, LITDATA, 0, 1.1),
    (OURS, LITDATA, 2, 1.1),
    (SMALL_PIXELS, PEER, 0, 0.2),
    (OURS, STOCK, 0, 1.0),
)
LARGE_GATES = ((SCALED, LARGE, 0, 1.0),)


def ours(
    shards: Path, *, batch: int, workers: int, view: int, normalise: bool = False, stock: bool = False, **data: Any
) -> Epoch:
    """Build our loader; `stock` gives it Streaming's threads and the predownload that they take if none is given."""
    # Streaming refuses two data sets of one folder in one process.
    folder = Path(tempfile.mkdtemp(dir=shards.parent))
    shutil.copytree(shards, folder, copy_function=os.link, dirs_exist_ok=True)
    stream = StreamConfig(remote=str(folder), batch_size=batch)
    config = DataConfig(unpaired=stream, image_size=view, num_workers=workers, **data)
    spec = build_loader(config, tokenizer=None, grid=(view // 16, view // 16), seed=0)
    loader: Any = spec.dataloader
    if stock:
        dataset = loader.dataset
        dataset.predownload = 8 * batch
        dataset._prepare_thread = MethodType(StreamingDataset._prepare_thread, dataset)
        dataset._ready_thread = MethodType(StreamingDataset._ready_thread, dataset)

    def epoch() -> int:
        count = 0
        for step in loader:
            pixels = step["unpaired"]["image"]
            if normalise:
                pixels = (pixels.float() / 255 - MEAN) / STD
            count += len(pixels)
        return count

    return epoch


def variants(root: Path, files: Sequence[Path], size: int, batch: int) -> dict[Key, Epoch]:
    """Write the shards and build every row of the first table."""
    write_shards(files, root / "shards")
    write_pixels(files, root / "pixels", size)
    write_pixels(files, root / "small", size // 2)
    if installed("webdataset"):
        write_webdataset(files, root / "webdataset")
    if installed("litdata"):
        write_litdata(files, root / "litdata")
    built: dict[Key, Epoch] = {}
    for workers in (0, 2):
        options: dict[str, int] = {"batch": batch, "workers": workers, "view": VIEW}
        mine = partial(ours, root / "shards", **options)
        built[PEER, workers] = image_folder(files[0].parents[1], decoder="PIL", **options)
        if workers == 0:
            built[TORCHVISION, workers] = image_folder(files[0].parents[1], decoder="torchvision", **options)
            if installed("webdataset"):
                built[WEBDATASET, workers] = webdataset(root / "webdataset", **options)
        built[OURS, workers] = mine()
        if workers == 0:
            built[NORMALISED, workers] = mine(normalise=True)
        built[STOCK, workers] = mine(stock=True)
        if workers == 0:
            built[PIXELS, workers] = ours(root / "pixels", **options)
        built[SMALL_PIXELS, workers] = ours(root / "small", **options)
        # Last: a process that is forked while litdata's workers live complains about them.
        if installed("litdata"):
            built[LITDATA, workers] = litdata(root / "litdata", **options)
    return built


def large_variants(root: Path, files: Sequence[Path], batch: int) -> dict[Key, Epoch]:
    """Write the shards of large photographs and build every row of the second table."""
    write_shards(files, root / "large shards")
    options: dict[str, int] = {"batch": batch, "workers": 0, "view": VIEW}
    return {
        (LARGE_PEER, 0): image_folder(files[0].parents[1], decoder="PIL", **options),
        (LARGE, 0): ours(root / "large shards", **options),
        (SCALED, 0): ours(root / "large shards", decode="scaled", **options),
    }


def measure(built: Mapping[Key, Epoch], images: int, rounds: int) -> dict[Key, list[Cost]]:
    """Check that every row yields every image, measure all, print the table and return the costs."""
    for key, epoch in built.items():
        assert (found := epoch()) == images, f"{key} yields {found} of {images} images"
    costs = interleave(built, rounds=rounds)
    print_table(
        ["loader", "workers", "CPU ms an image", "times faster (CPU)", "images/s (wall)"],
        [
            [
                name,
                workers,
                milliseconds(found, images),
                times_faster(costs[PEER, workers], found),
                spread([images / cost.wall for cost in found], ".0f"),
            ]
            for (name, workers), found in costs.items()
        ],
    )
    return costs


def check(costs: Mapping[Key, Sequence[Cost]], gates: Sequence[tuple[str, str, int, float]]) -> bool:
    """Print every gate with the median of its quotients; return whether all hold."""
    holds = True
    for name, reference, workers, limit in gates:
        title = f"gate: {name} / {reference}, {workers} workers, CPU <= {limit:.2f}:"
        if (reference, workers) not in costs:
            print(f"{title} skipped, {reference.split(',')[0]} is not installed (pip install -e '.[bench]')")
            continue
        found = quotients(costs[name, workers], costs[reference, workers])
        kept = statistics.median(found) <= limit
        holds &= kept
        print(f"{title} {spread(found, '.2f')} {'ok' if kept else 'MISSED'}")
    print(flush=True)
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512, help="files of an epoch (%(default)s)")
    parser.add_argument("--distinct", type=int, default=128, help="different photographs among them (%(default)s)")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each variant (%(default)s)")
    parser.add_argument("--large-images", type=int, default=64, help="files of the second table (%(default)s)")
    parser.add_argument("--large-size", type=int, default=2048, help="their width and height (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Loader: {machine()}, batches of {args.batch}, {args.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = draw(root / "photographs" / "all", args.images, args.distinct, args.size)
        assert np.array_equal(decode(files[0].read_bytes()), pixels_of(files[0])), "decoders disagree"
        print(f"{args.images} JPEGs of {args.size} px, {encoded_kilobytes(files):.0f} kB each\n")
        built = variants(root, files, args.size, args.batch)
        holds = check(measure(built, args.images, args.rounds), GATES)
        files = draw(root / "large photographs" / "all", args.large_images, 8, args.large_size)
        print(f"{args.large_images} JPEGs of {args.large_size} px, {encoded_kilobytes(files):.0f} kB each\n")
        built = large_variants(root, files, min(args.batch, args.large_images))
        holds &= check(measure(built, args.large_images, args.rounds), LARGE_GATES)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
