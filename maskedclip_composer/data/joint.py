"""Both streams as one data set: an exact mix on every rank, exact resume, no silent end.

Leans on names of mosaicml-streaming 0.13.0 (`_get_work`, `_resume`, `batching_methods`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from streaming import StreamingDataset
from streaming.base.batching import batching_methods
from streaming.base.shuffle import get_shuffle
from streaming.base.world import World

from maskedclip_composer.data.config import DataConfig
from maskedclip_composer.data.guarded import GuardedDataset
from maskedclip_composer.data.streams import GuardedStream
from maskedclip_composer.errors import UserError

# (record, stream name, sample id, generator of this access) -> what the loader collates.
Transform = Callable[[dict[str, Any], str, int, np.random.Generator], Any]

METHOD = "device_stratified"


class JointDataset(GuardedDataset):
    """Every step holds `batch_size` images of each stream, dealt evenly over the ranks; see `device_stratified`.

    Yields `transform(record, stream name, sample id, generator)`, with a generator keyed by (seed, epoch, step, sample
    id), so that the draws do not depend on the number of workers or ranks or on where a run was resumed.
    """

    def __init__(self, streams: Sequence[GuardedStream], *, transform: Transform, data: DataConfig, seed: int) -> None:
        self.global_batch = sum(stream.batch_size for stream in streams)
        self.steps = max(stream.index.samples // stream.batch_size for stream in streams)
        for stream in streams:
            stream.choose = self.steps * stream.batch_size
        super().__init__(
            streams,
            data=data,
            batch_size=self.global_batch // World.detect().num_ranks,
            shuffle=True,
            shuffle_seed=seed,
            shuffle_block_size=data.shuffle_block_size,
            # Streaming's threads poll while they are this far ahead; a whole epoch leaves them nothing to wait for.
            # With a limited cache they must not run ahead, or they evict what is still to be used.
            predownload=None if data.cache_limit else self.steps * self.global_batch,
        )
        self.batching_method = METHOD  # the constructor accepts only Streaming's own names
        self._transform = transform
        self._epoch = self._first_step = 0
        self._ids = self._stream_ids = np.empty(0, np.int64)

    def __iter__(self) -> Iterator[Any]:
        """Yield this loader process's share of the epoch.

        Raises:
            UserError: A shard could not be read, here or in another process of this rank. Stock Streaming would end
                the epoch early without a word, or wait for ever.
        """
        position = 0
        records = super().__iter__()
        while True:
            if self._failure.is_set():
                raise self._failure.error()
            try:
                record = next(records)
            except StopIteration:
                break
            except Exception as error:
                self._failure.record(self._unreadable(position, error))
                raise self._failure.error() from error
            yield self._transform(record, *self._access(position))
            position += 1
        if position != np.count_nonzero(self._ids >= 0):
            raise self._failure.error()

    def _access(self, position: int) -> tuple[str, int, np.random.Generator]:
        """Return stream name, sample id and generator of the item at `position` of this process's list."""
        world = self._parallel_worker_world
        sample_id = int(self._ids[position])
        local_batch = position // (self.global_batch // world.num_ranks)
        step = self._first_step + local_batch * world.workers_per_rank + world.worker_of_rank
        return (
            self._stream(position).name,
            sample_id,
            _generator(self.shuffle_seed, self._epoch, step, sample_id),
        )

    def _stream(self, position: int) -> GuardedStream:
        stream = self.streams[self._stream_ids[position]]
        assert isinstance(stream, GuardedStream)
        return stream

    def _unreadable(self, position: int, error: Exception) -> UserError:
        if isinstance(error, UserError):
            return error
        if position >= len(self._ids):
            return UserError(f"data: the epoch's order could not be made ({type(error).__name__}: {error})")
        sample_id = int(self._ids[position])
        shard = self.shards[self.spanner[sample_id][0]].file_pairs[0][0].basename
        stream = self._stream(position)
        remedy = "copy the shard again from its source or prepare the set again"
        if isinstance(error, RuntimeError) and self.cache_limit:  # evicted again and again before it was read
            remedy = f"raise data.cache_limit = {self.cache_limit} bytes"
        return UserError(
            f"{stream.key}: sample {sample_id} in shard {shard} of {stream.folder} cannot be read "
            f"({type(error).__name__}: {error}); {remedy}"
        )

    def _get_work(self, epoch: int, sample_in_epoch: int) -> np.ndarray:
        self._failure.watch_parent()
        self._epoch, self._first_step = epoch, sample_in_epoch // self.global_batch
        self._ids = super()._get_work(epoch, sample_in_epoch)
        self._stream_ids = np.searchsorted(self.sample_offset_per_stream, self._ids, side="right") - 1
        return self._ids

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """Return the position as Streaming does, with what it is a position in."""
        state = super().state_dict(num_samples, from_beginning)
        if from_beginning and num_samples == 0:
            # Composer 0.32.1 saves an epoch's last checkpoint after its clock moved on, while Streaming still names the
            # finished epoch: a resume would train on that epoch's data again.
            state["epoch"], _ = self._resume(self._parallel_rank_world, self.next_epoch)
        return state | {"streams": self._signature()}

    def load_state_dict(self, obj: dict[str, Any]) -> None:
        """Resume at a position of the same streams.

        Raises:
            UserError: The streams or batch sizes are not those of the run that saved the state.
        """
        if obj["streams"] != self._signature():
            raise UserError(
                f"data: the checkpoint was saved with streams {obj['streams']}, this run has {self._signature()}; "
                "resume with the data and batch sizes of the interrupted run, or start a new run from its weights"
            )
        # Streaming would keep the saved seed only in processes that live through the resumed epoch.
        self.shuffle_seed = obj["shuffle_seed"]
        super().load_state_dict(obj)

    def _signature(self) -> dict[str, dict[str, int]]:
        return {
            stream.name: {"samples": stream.index.samples, "batch_size": stream.batch_size}
            for stream in self.streams
            if isinstance(stream, GuardedStream)
        }


def device_stratified(dataset: StreamingDataset, world: World, epoch: int, sample_in_epoch: int) -> np.ndarray:
    """Arrange an epoch so that every rank gets the same number of images of each stream in every step.

    Streaming's own `stratified` deals out a step as a whole: with two ranks one gets all the paired images. A step's
    images do not depend on the number of ranks and workers, only who reads them does.

    Returns:
        Sample ids of shape (nodes, ranks per node, workers per rank, batches per worker, device batch), -1 in the rows
        that fill up the last round of workers.
    """
    assert isinstance(dataset, JointDataset)
    first_step = sample_in_epoch // dataset.global_batch
    columns = [
        _stream_order(dataset, stream_id, epoch).reshape(dataset.steps, world.num_ranks, -1)
        for stream_id in range(dataset.num_streams)
    ]
    work = np.concatenate(columns, axis=2)[first_step:]
    missing_rows = -len(work) % world.workers_per_rank
    work = np.pad(work, ((0, missing_rows), (0, 0), (0, 0)), constant_values=-1)
    work = work.reshape(-1, world.workers_per_rank, world.num_nodes, world.ranks_per_node, work.shape[2])
    return work.transpose(2, 3, 1, 0, 4)


batching_methods[METHOD] = device_stratified


def _stream_order(dataset: JointDataset, stream_id: int, epoch: int) -> np.ndarray:
    """Return a stream's sample ids of one epoch: whole passes, each shuffled anew, the last one cut."""
    begin = dataset.shard_offset_per_stream[stream_id]
    shard_sizes = dataset.samples_per_shard[begin : begin + dataset.shards_per_stream[stream_id]]
    draws = dataset.streams[stream_id].choose
    passes = [
        get_shuffle(
            "py1e",
            shard_sizes,
            num_canonical_nodes=1,
            seed=int(np.random.SeedSequence([dataset.shuffle_seed, stream_id, epoch, turn]).generate_state(1)[0]),
            epoch=0,
            block_size=cast(int, dataset.shuffle_block_size),
        )
        for turn in range(-(-draws // shard_sizes.sum()))
    ]
    return dataset.sample_offset_per_stream[stream_id] + np.concatenate(passes)[:draws]


def _generator(*key: int) -> np.random.Generator:
    """Return `np.random.default_rng(key)`, in less time where every number has at most 32 bits, which is common."""
    words = np.array(key, np.uint32) if max(key) < 1 << 32 else list(key)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
