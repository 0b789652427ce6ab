"""Decoded photographs in memory, each checked before anything is trained."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from maskedclip_composer.data.transforms import decode
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.data import SPLITS, LabelledData, LabelledSplit
from maskedclip_composer.evaluation.ranks import gather_objects, rank

_MAX_NAMED = 10


class DecodedSplit:
    """A split's photographs as RGB pixels, those that were kept from memory."""

    def __init__(self, split: LabelledSplit):
        self.split = split
        self.kept: dict[int, UInt8[np.ndarray, "height width 3"]] = {}

    def __len__(self) -> int:
        return len(self.split)

    def pixels(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return one photograph; it must not be written to."""
        kept = self.kept.get(row)
        if kept is not None:
            return kept
        photographs = self.split.photographs
        return decode(photographs.image(row), name=photographs.describe(row))


def decode_all(data: LabelledData, *, memory: float, workers: int) -> dict[str, DecodedSplit]:
    """Decode every photograph once and keep what `memory` allows, train first.

    Epochs over a small set then cost no decoding: processes that load share these pages.

    Args:
        data: The three splits.
        memory: GiB to fill on this machine, over all of its processes.
        workers: Threads that decode.

    Raises:
        UserError: Names the photographs that cannot be decoded.
    """
    budget = memory * 2**30 / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    splits = {name: DecodedSplit(getattr(data, name)) for name in SPLITS}
    failures: list[str] = []
    for name, split in splits.items():
        decoded = _decoded(split, max(1, workers))
        for row, found in enumerate(tqdm(decoded, f"decode {name}", len(split), disable=rank() > 0, leave=False)):
            if isinstance(found, str):
                failures.append(found)
            elif found.nbytes <= budget:
                split.kept[row] = found
                budget -= found.nbytes
    failures = list(dict.fromkeys(text for part in gather_objects(failures) for text in part))
    if failures:
        more = f"\n... and {len(failures) - _MAX_NAMED} more" if len(failures) > _MAX_NAMED else ""
        raise UserError(f"{len(failures)} photographs cannot be decoded:\n" + "\n".join(failures[:_MAX_NAMED]) + more)
    return splits


def _decoded(split: DecodedSplit, threads: int) -> Iterator[UInt8[np.ndarray, "height width 3"] | str]:
    """Yield each photograph, or why it cannot be decoded; a few at a time, lest what is not kept pile up."""

    def one(row: int) -> UInt8[np.ndarray, "height width 3"] | str:
        try:
            return split.pixels(row)
        except UserError as error:
            return str(error)

    rows = iter(range(len(split)))
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(rows, 8 * threads)):
            yield from pool.map(one, batch)
