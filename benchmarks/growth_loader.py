"""What the loader computes up to its first batch, against the size of the data set and the steps already done."""

import io
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from streaming import MDSWriter
from streaming.base.shuffle import get_shuffle

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.loader import build_loader
from maskedclip_composer.data.schema import COLUMNS

SIDE = 16  # pixels: an image costs next to nothing, so that what is left is the loader's own
ORDER = "py1e"  # the order that `data/joint.py` draws
SHARES = (0.0, 0.5, 0.99)  # of the epoch that is done when a run resumes


@dataclass(frozen=True, kw_only=True)
class Start:
    """CPU seconds of one data set: to open it, and to the first batch at each of SHARES."""

    samples: int
    shards: int
    open: float
    first_batch: tuple[float, ...]


def measure(folder: Path, shards: int, per_shard: int, *, batch: int, rounds: int) -> Start:
    """Open a set of `shards` shards and measure the first batch; the least of `rounds`."""
    write(folder, shards, per_shard)
    begin = time.process_time()
    config = DataConfig(unpaired=StreamConfig(remote=str(folder), batch_size=batch), image_size=SIDE, num_workers=0)
    loader: Any = build_loader(config, tokenizer=None, grid=(1, 1), seed=0).dataloader
    opened = time.process_time() - begin
    dataset = loader.dataset
    first = []
    for share in SHARES:
        times = []
        for _ in range(rounds):
            done = int(share * dataset.steps) * dataset.global_batch
            state = {"epoch": dataset.next_epoch, "sample_in_epoch": done}
            dataset.load_state_dict(dataset.state_dict(0, True) | state)
            begin = time.process_time()
            images = next(iter(loader))["unpaired"]["sample_id"]
            times.append(time.process_time() - begin)
            assert len(images) == batch
            assert dataset._first_step == done // dataset.global_batch
        first.append(min(times))
    return Start(samples=shards * per_shard, shards=shards, open=opened, first_batch=tuple(first))


def order_seconds(samples: int, per_shard: int) -> float:
    """Return the CPU seconds in which Streaming draws the order of an epoch of so many samples, once."""
    block = DataConfig.shuffle_block_size
    begin = time.process_time()
    order = get_shuffle(ORDER, np.full(samples // per_shard, per_shard), 1, seed=0, epoch=0, block_size=block)
    assert len(order) == samples
    return time.process_time() - begin


def write(folder: Path, shards: int, per_shard: int) -> None:
    """Write one shard, give it as many names as are wanted, and an index of them all.

    200,000 samples would otherwise take longer to write than all that is measured; to the reader the files are what any
    others are.
    """
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=90)
    record = {"dataset": "noise", "patient": "", "eye": "", "split": "train", "sha256": "", "source": "noise.jpg"}
    record |= {"image": stored.getvalue(), "width": SIDE, "height": SIDE, "crop": {"status": "none", "box": None}}
    with MDSWriter(out=str(folder), columns=COLUMNS["unpaired"], hashes=["xxh64"], size_limit=None) as writer:
        for _ in range(per_shard):
            writer.write(record)
    index = json.loads((folder / "index.json").read_text())
    (shard,) = index["shards"]
    name = shard["raw_data"]["basename"]
    index["shards"] = []
    for number in range(shards):
        basename = f"shard.{number:05d}.mds"
        if basename != name:
            os.link(folder / name, folder / basename)
        index["shards"].append(shard | {"raw_data": shard["raw_data"] | {"basename": basename}})
    (folder / "index.json").write_text(json.dumps(index))


def measure_all(
    folder: Path, sizes: Sequence[tuple[int, int]], *, batch: int = 16, rounds: int = 3
) -> dict[tuple[int, int], Start]:
    """Measure sets of (shards, samples of each)."""
    return {
        size: measure(folder / f"{size[0]}x{size[1]}", *size, batch=batch, rounds=rounds)
        for size in dict.fromkeys(sizes)
    }
