"""Open the streams of MDS shards: checked before the first batch, fetched again a bounded number of times.

Leans on names of mosaicml-streaming 0.13.0.
"""

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streaming import Stream
from streaming.base.constant import TICK
from streaming.base.format import Reader
from streaming.base.util import wait_for_file_to_exist
from streaming.base.world import World

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.index import INDEX, Index, check_batch_size, check_columns, check_files, read_index
from maskedclip_composer.data.reading import QuickReader
from maskedclip_composer.errors import UserError


class GuardedStream(Stream):
    """A stream that fetches a shard again when it did not arrive intact, a bounded number of times, then raises.

    Stock Streaming retries only the transfer; a file with a wrong checksum stays in the cache and fails for ever.
    """

    def __init__(self, name: str, config: StreamConfig, data: DataConfig) -> None:
        remote, local = config.location()
        # The attempts are counted in `_attempt`, which also covers checksums and decompression.
        self.name = name
        self.key = f"data.{name}"
        try:
            super().__init__(
                remote=remote, local=local, split=config.split, download_retry=1, download_timeout=data.download_timeout
            )
        except ValueError as error:
            raise UserError(
                f"{self.key}.remote = {remote}: {error}; Streaming reads s3, gs, azure, oci, hf, ..."
            ) from error
        self.batch_size = config.batch_size
        self.folder = Path(self.local, self.split)
        self.source = os.path.join(remote, self.split) if remote else str(self.folder)
        self._attempts = 1 + data.download_retry if remote else 1
        self.index: Index = self._open_index()
        self.validate_hash = self.index.hash_name

    def get_shards(self, world: World, allow_unsafe_types: bool) -> list[Reader]:
        """Return the shards' readers, which give the columns that training uses."""
        return [QuickReader.of(reader) for reader in super().get_shards(world, allow_unsafe_types)]

    def prepare_shard(self, shard: Reader) -> int:
        """Fetch, verify and unpack a shard; return the change of the cache's size in bytes."""
        files = [self.folder / info.basename for pair in shard.file_pairs for info in pair if info is not None]
        return self._attempt(functools.partial(super().prepare_shard, shard), f"shard {files[0].name}", files)

    def _attempt(self, fetch: Callable[[], Any], what: str, files: Sequence[Path]) -> Any:
        last: Exception | None = None
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(2.0 ** (attempt - 1))
            try:
                return fetch()
            except Exception as error:
                last = error
                # Never delete what is read in place: it is the only copy.
                for file in files if self.remote else ():
                    file.unlink(missing_ok=True)
                    file.with_name(f"{file.name}.tmp").unlink(missing_ok=True)
        raise UserError(
            f"{self.key}: {what} of {self.source} could not be read intact in {self._attempts} attempts "
            f"({type(last).__name__}: {last}); check the source, the network and the disk, then start again to resume"
        ) from last

    def _open_index(self) -> Index:
        path = self.folder / INDEX
        if self.remote and World.detect().is_local_leader:
            self._fetch_index(path)
        elif self.remote:
            seconds = self._attempts * self.download_timeout
            wait_for_file_to_exist(str(path), TICK, seconds, f"{self.key}: {path} was not downloaded by local rank 0: ")
        return read_index(self.folder, key=self.key)

    def _fetch_index(self, path: Path) -> None:
        """Download index.json at every start, to notice a cache of another version of the set."""
        fresh = path.with_name(f"{INDEX}.new")
        fresh.unlink(missing_ok=True)
        self._attempt(functools.partial(self._download_file, INDEX, fresh.name), INDEX, [fresh])
        if path.exists() and path.read_bytes() != fresh.read_bytes():
            raise UserError(
                f"{self.key}: the cache {self.folder} holds another version of {self.source}; "
                f"delete that folder or set {self.key}.local to a new one"
            )
        fresh.replace(path)


def open_streams(data: DataConfig) -> list[GuardedStream]:
    """Open every stream of `data` and check that its records, sizes and files fit.

    Raises:
        UserError: Names the stream's key, what is wrong and the remedy.
    """
    world_size = World.detect().num_ranks
    streams = []
    for name, config in data.streams().items():
        stream = GuardedStream(name, config, data)
        check_columns(stream.index, name, key=stream.key)
        check_batch_size(stream.index, config.batch_size, world_size, key=stream.key)
        if stream.remote is None:
            check_files(stream.folder, key=stream.key)
        streams.append(stream)
    return streams
