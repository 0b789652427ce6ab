"""How many loader processes a run needs, measured on its own shards.

python benchmarks/workers.py [--target IMAGES/S] [CONFIG.yaml [key=value ...]]
python benchmarks/workers.py [--target IMAGES/S] --shards FOLDER

--target    images a second that one device takes: its batch size by the seconds of a step
CONFIG.yaml a config of train.py: its data, as it would read them
--shards    one folder of shards, read as an unpaired stream
Without either, photographs of 512 px are drawn and measured, which says something about this machine alone.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context, set_start_method
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rounds import cpu_seconds, machine, print_table

from maskedclip_composer.errors import UserError, report


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is read: a config and its overrides, or a folder of shards."""

    config: str | None
    overrides: tuple[str, ...]
    shards: str | None
    batch: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What a number of workers gives."""

    workers: int
    images: float  # a second
    cpu: float  # seconds an image, of all processes together
    bytes: float  # stored, an image


def build(source: Source, workers: int) -> Any:
    """Build the training loader with another number of workers."""
    if source.config is not None:
        from maskedclip_composer.build import build_train_loader
        from maskedclip_composer.config import TrainConfig
        from maskedclip_composer.config_file import load_config
        from maskedclip_composer.models.vit import build_vit

        config = load_config(TrainConfig, source.config, list(source.overrides))
        config = replace(config, data=replace(config.data, num_workers=workers))
        model = config.image_encoder
        with torch.device("meta"):  # the loader needs to know the patches alone
            vit = build_vit(model.name, config.data.image_size, model.patch_size, depth=1)
        encoder: Any = SimpleNamespace(grid=vit.patch_embed.grid_size)
        return build_train_loader(config, encoder).dataloader
    from maskedclip_composer.data.config import DataConfig, StreamConfig
    from maskedclip_composer.data.loader import build_loader

    stream = StreamConfig(remote=source.shards, batch_size=source.batch)
    data = DataConfig(unpaired=stream, num_workers=workers)
    return build_loader(data, tokenizer=None, grid=(14, 14), seed=0).dataloader


def measure(source: Source, workers: int, seconds: float) -> Rate:
    """Load for `seconds` after every worker has given its first batches; small sets are read several times."""
    torch.set_num_threads(1)
    set_start_method("fork", force=True)  # as in training; a spawned process would spawn its own
    loader = build(source, workers)
    streams = loader.dataset.streams
    drawn = sum(stream.batch_size for stream in streams)
    stored = sum(stream.batch_size * stream.index.bytes / stream.index.samples for stream in streams) / drawn
    images, begun, cpu, skipped = 0, 0.0, 0.0, 0
    while True:
        for batch in loader:
            if skipped <= 3 * workers:  # what was loaded ahead of the clock
                skipped += 1
                begun, cpu = time.perf_counter(), cpu_seconds()
                continue
            images += sum(len(part["image"]) for part in batch.values())
            if (wall := time.perf_counter() - begun) >= seconds:
                return Rate(workers=workers, images=images / wall, cpu=(cpu_seconds() - cpu) / images, bytes=stored)


def counts(cores: int) -> list[int]:
    """Return the numbers of workers to try: all up to four, then doubling, and one for each core."""
    return [*(n for n in range(cores + 1) if n <= 4 or n & (n - 1) == 0 or n == cores)]


def advise(rates: Sequence[Rate], target: float | None, cores: int) -> str:
    """Say in a sentence how many workers to take."""
    best = max(rates, key=lambda rate: rate.images)
    if target is None:
        near = next(rate for rate in rates if rate.images >= 0.95 * best.images)
        return (
            f"Advice: data.num_workers={near.workers} loads {near.images:.0f} images/s, and more workers at most "
            f"{best.images:.0f}; give --target IMAGES/S to be told what a device needs."
        )
    enough = next((rate for rate in rates if rate.images >= target), None)
    if enough is not None:
        return (
            f"Advice: data.num_workers={enough.workers} loads {enough.images:.0f} images/s where {target:.0f} are "
            "needed; take one or two more, for the machine has other work as well."
        )
    needed = math.ceil(target * best.cpu)
    return (
        f"Advice: {cores} cores load at most {best.images:.0f} images/s where {target:.0f} are needed, which takes "
        f"about {needed} cores without other work; prepare the photographs smaller (--size) or as pixels "
        "(--encoding raw), set data.decode=scaled where they are large, or take a machine with more cores."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="of train.py")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--shards", help="a folder of shards in place of a config")
    parser.add_argument("--batch", type=int, default=32, help="with --shards (%(default)s)")
    parser.add_argument("--target", type=float, help="images a second that one device takes")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement (%(default)s)")
    parser.add_argument("--images", type=int, default=512, help="to draw where nothing is given (%(default)s)")
    parser.add_argument("--size", type=int, default=512, help="of these, in pixels (%(default)s)")
    args = parser.parse_args()
    if args.config is not None and args.shards is not None:
        parser.error("give a config or --shards, not both")
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        shards = args.shards
        if args.config is None and shards is None:
            from loader_sets import draw, write_shards

            shards = str(Path(folder, "shards"))
            write_shards(draw(Path(folder, "photographs"), args.images, min(args.images, 64), args.size), Path(shards))
        source = Source(config=args.config, overrides=tuple(args.overrides), shards=shards, batch=args.batch)
        print(f"Workers: {machine()}, {args.seconds:g} s each\n")
        try:
            # A process of its own for each: Streaming opens a folder only once in a process.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
                rates = [pool.submit(measure, source, workers, args.seconds).result() for workers in counts(cores)]
        except UserError as error:
            return report(error, "benchmarks/workers.py")
    print_table(
        ["workers", "images/s (wall)", "CPU ms an image", "MiB/s read"],
        [
            [rate.workers, f"{rate.images:.0f}", f"{1000 * rate.cpu:.2f}", f"{rate.images * rate.bytes / 2**20:.0f}"]
            for rate in rates
        ],
    )
    print(advise(rates, args.target, cores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
