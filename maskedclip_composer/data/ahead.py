"""Streaming's two threads that run ahead of an epoch, without asking anew about every sample.

Streaming 0.13.0 takes a file lock and looks for the shard's file for each sample, in one thread, and looks up its shard
in Python in the other: 0.1 to 0.2 ms of CPU time an image, as much as reading and cutting it. Where the cache has no
limit a shard stays once it is there, so that one visit to each shard is enough. Leans on `_Iterator`, `_ShardState`,
`_shard_states`, `_shard_access_times` and `spanner.shard_bounds`.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from streaming import StreamingDataset
from streaming.base.constant import TICK
from streaming.base.dataset import _Iterator, _ShardState

if TYPE_CHECKING:
    from maskedclip_composer.data.guarded import GuardedDataset

NOT_VERIFIED = 0
"""In the place of the time of the last use of a shard that was there when the run began: the first to be evicted."""

# Samples that are looked at in one go: bounds the work of a look while downloads are under way.
_WINDOW = 1 << 16


def prepare_each_shard(dataset: StreamingDataset, it: _Iterator, stopped: Callable[[], bool]) -> None:
    """Make the epoch's shards available in the order in which they are needed, each once; skips -1."""
    shards = _shards_of(dataset, it.sample_ids[it.sample_ids >= 0])
    found, first = np.unique(shards, return_index=True)
    for shard_id in found[np.argsort(first)]:
        if it.should_exit() or stopped():
            break
        dataset.prepare_shard(int(shard_id), False)
    it.prepare_index = it.total


def advance(dataset: "GuardedDataset", it: _Iterator, stopped: Callable[[], bool]) -> None:
    """Move `ready_index` over the samples whose shards are at hand, to the end of the epoch."""
    states: Any = dataset._shard_states
    times: Any = dataset._shard_access_times
    while not (it.should_exit() or it.ready_index == it.total or stopped()):
        window = it.sample_ids[it.ready_index : it.ready_index + _WINDOW]
        shards = _shards_of(dataset, np.maximum(window, 0))
        at_hand = (states.numpy()[shards] == _ShardState.LOCAL) & (times.numpy()[shards] != NOT_VERIFIED)
        absent = np.flatnonzero(~at_hand & (window >= 0))
        ready = int(absent[0]) if len(absent) else len(window)
        it.ready_index += ready
        if not ready:
            # Another rank of this machine has failed to fetch it: it would be waited for in vain.
            if it.prepare_index == it.total and dataset.is_absent(int(shards[0])):
                dataset.prepare_shard(int(shards[0]), False)
            time.sleep(TICK)


def _shards_of(dataset: StreamingDataset, sample_ids: Int[np.ndarray, " samples"]) -> Int[np.ndarray, " samples"]:
    return np.searchsorted(dataset.spanner.shard_bounds, sample_ids, side="right") - 1
