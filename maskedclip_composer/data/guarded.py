"""A StreamingDataset whose shards are verified before their use, and in which nothing waits for what does not come.

Leans on names of mosaicml-streaming 0.13.0 (`_event`, `_executor`, `_ShardState`, `_shard_access_times`, ...).
"""

import logging
import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np
from filelock import FileLock
from streaming import StreamingDataset
from streaming.base.constant import TICK
from streaming.base.dataset import _Iterator, _ShardState
from streaming.base.world import World

from maskedclip_composer.data.ahead import NOT_VERIFIED, advance, prepare_each_shard
from maskedclip_composer.data.cache import FETCHING, HeldCache
from maskedclip_composer.data.config import DataConfig
from maskedclip_composer.data.shared_failure import SharedFailure
from maskedclip_composer.data.shared_names import naming_alone, remove_leftovers
from maskedclip_composer.data.streams import GuardedStream
from maskedclip_composer.data.threads import DaemonThreads
from maskedclip_composer.errors import UserError

log = logging.getLogger(__name__)

# Bytes that are read so fast that nobody wonders what is going on.
_SOON_READ = 4 << 30


class GuardedDataset(StreamingDataset):
    """Holds the caches of its streams while it lives; a failure in any loader process of the rank is known to all."""

    def __init__(self, streams: Sequence[GuardedStream], *, data: DataConfig, **options: Any) -> None:
        is_leader = World.detect().is_local_leader
        # In one order, whichever stream is which: two runs that want both would each hold one, and both be refused.
        cached = sorted((stream for stream in streams if stream.remote), key=lambda stream: stream.folder.resolve())
        self._held = [HeldCache(stream.folder, stream.key) for stream in cached] if is_leader else []
        try:
            with naming_alone():
                for held in self._held:
                    remove_leftovers(held.previous, held.folder)
                super().__init__(streams=streams, cache_limit=data.cache_limit, **options)
        except ValueError as error:
            raise _streaming_error(error, data) from error
        self._bounds: list[int] = self.spanner.shard_bounds.tolist()
        # `on_exception`, the threads and `get_item` of Streaming use only `set` and `is_set`.
        self._failure = SharedFailure()
        self._event = cast(Any, self._failure)
        self._executor = cast(Any, DaemonThreads())
        for stream in streams:
            stream.stop_when(self._failure.is_set)
        for held in self._held:
            held.write(self._shm_prefix_int)
        if is_leader:
            self._distrust_what_is_there(data.verify)

    def stream_of(self, shard_id: int) -> GuardedStream:
        """Return the stream that a shard belongs to."""
        return cast(GuardedStream, self.streams[self.stream_per_shard[shard_id]])

    def _distrust_what_is_there(self, verify: str) -> None:
        """Have every shard verified before its first use in this run, by whoever of this machine comes to it first."""
        for stream in cast(Sequence[GuardedStream], self.streams):
            if stream.index.hash_name is None:
                log.warning(
                    "%s: the index of %s lists no hash, so that a damaged shard is noticed only by its size; "
                    "prepare the set again, or write it with hashes=['xxh64']",
                    stream.key,
                    stream.source,
                )
        if verify == "always":
            times: Any = self._shard_access_times
            states: Any = self._shard_states
            present = np.flatnonzero(states.numpy() == _ShardState.LOCAL)
            times.numpy()[present] = NOT_VERIFIED
            if (size := sum(self.shards[shard_id].get_raw_size() for shard_id in present)) > _SOON_READ:
                log.warning(
                    "data: %d shards of %.1f GB that are already here are verified as they are needed, those of the "
                    "first shuffle block before or soon after the first batch; data.verify=downloads leaves this out",
                    len(present),
                    size / 1e9,
                )

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        """Return a record; where the cache has no limit, without noting when its shard was last used."""
        if not self.cache_limit:
            sample_id = int(sample_id)  # NumPy's integers are slow to compare and subtract
            shard_id = bisect_right(self._bounds, sample_id) - 1
            try:
                return self.shards[shard_id].get_item(sample_id - self._bounds[shard_id])
            except FileNotFoundError:  # Streaming fetches it
                pass
        return super().get_item(sample_id, retry)

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """Make a shard available; on failure free whoever waits for it."""
        try:
            if not hasattr(self, "_cache_filelock"):  # not earlier: it cannot be pickled
                self._cache_filelock = FileLock(self._cache_filelock_path)
            with self._cache_filelock:
                distrusted = self._is_distrusted(shard_id)
                if distrusted:
                    self._shard_states[shard_id] = _ShardState.PREPARING
            if distrusted:
                self._verify_shard(shard_id)
            else:
                super().prepare_shard(shard_id, blocking)
        except Exception as error:
            # Streaming leaves the shard in preparation, and the lock taken when the eviction fails.
            if self._cache_filelock.is_locked:
                self._cache_filelock.release(force=True)
            if self._shard_states[shard_id] == _ShardState.PREPARING:
                self._shard_states[shard_id] = _ShardState.REMOTE
            if not isinstance(error, UserError):
                limit = f"; raise data.cache_limit = {self.cache_limit}" if self.cache_limit else ""
                error = UserError(
                    f"{self.stream_of(shard_id).key}: shard {shard_id} cannot be made available ({error}){limit}"
                )
            self._failure.record(error)
            raise error from error.__cause__

    def _verify_shard(self, shard_id: int) -> None:
        """Verify a shard where it lies, as it is being prepared: its bytes are counted, and need no room made."""
        shard = self.shards[shard_id]
        raw, packed = shard.file_pairs[0]
        if self.cache_limit and packed is not None and not (self.stream_of(shard_id).folder / raw.basename).is_file():
            with self._cache_filelock:  # it grows as it is unpacked
                while self.cache_limit < self.cache_usage + raw.bytes:
                    self._evict_coldest_shard()
        change = self.stream_of(shard_id).prepare_shard(shard)
        with self._cache_filelock:
            self.cache_usage += change
            self._shard_access_times[shard_id] = time.time_ns()
            self._shard_states[shard_id] = _ShardState.LOCAL

    def is_absent(self, shard_id: int) -> bool:
        """Whether nobody has made a shard available, nor is about to."""
        return self._shard_states[shard_id] == _ShardState.REMOTE or self._is_distrusted(shard_id)

    def _is_distrusted(self, shard_id: int) -> bool:
        is_there = self._shard_states[shard_id] == _ShardState.LOCAL
        return bool(is_there and self._shard_access_times[shard_id] == NOT_VERIFIED)

    def _evict_coldest_shard(self) -> None:
        """Make room. Where the cache was emptied from outside, Streaming's count of it is too high: count anew."""
        states: Any = self._shard_states
        if (states.numpy() == _ShardState.LOCAL).any():
            super()._evict_coldest_shard()
        elif (used := self._used()) < self.cache_usage:
            self.cache_usage = used
        else:
            super()._evict_coldest_shard()  # says that there is nothing to evict

    def _used(self) -> int:
        """Return the bytes of the files in the caches."""
        used = 0
        for stream in cast(Sequence[GuardedStream], self.streams):
            for folder, inner, names in os.walk(stream.folder):
                if FETCHING in inner:
                    inner.remove(FETCHING)
                for name in names:
                    with suppress(FileNotFoundError):
                        used += os.stat(os.path.join(folder, name)).st_size
        return used

    def _prepare_thread(self, it: _Iterator) -> None:
        try:
            if self.cache_limit:
                super()._prepare_thread(it)
            else:
                prepare_each_shard(self, it, self._failure.is_set)
                it.on_exit()
        except Exception:
            it.on_exit()  # or the end of the iteration waits for a thread that is gone
            raise

    def _ready_thread(self, it: _Iterator) -> None:
        """Advance over the samples whose shards are at hand.

        Streaming 0.13.0 waits for ever where a limited cache evicts the shard between its arrival and this look at it.
        """
        try:
            if not self.cache_limit:
                advance(self, it, self._failure.is_set)
            while not (it.should_exit() or it.ready_index == it.total or self._failure.is_set()):
                sample_id = it.sample_ids[it.ready_index]
                if sample_id != -1:
                    shard_id, _ = self.spanner[sample_id]
                    is_ahead = it.ready_index - it.yield_index > cast(int, self.predownload)
                    if not is_ahead and self.is_absent(shard_id):
                        self.prepare_shard(shard_id, False)
                    if is_ahead or self._shard_states[shard_id] != _ShardState.LOCAL:
                        time.sleep(TICK)
                        continue
                it.ready_index += 1
        finally:
            it.on_exit()

    def on_exception(self, future: Any) -> None:
        """Note a background thread's failure; the iteration raises it."""
        if error := future.exception():
            self._failure.record(error)


def _streaming_error(error: ValueError, data: DataConfig) -> UserError:
    """Translate the complaints of StreamingDataset's constructor that a config can cause."""
    if isinstance(error, UserError):
        return error
    if "Reused local directory" in str(error):
        return UserError(
            "data: another run on this machine uses the same cache folder; set data.paired.local and "
            f"data.unpaired.local to folders of this run, or wait for the other to end ({error})"
        )
    return UserError(f"data.cache_limit = {data.cache_limit}: {error}")
