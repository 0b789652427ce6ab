"""Open the streams of MDS shards: checked before the first batch, every shard verified before its use.

Leans on names of mosaicml-streaming 0.13.0 (`safe_keep_zip`).
"""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from streaming import Stream
from streaming.base.constant import TICK
from streaming.base.format import FileInfo, Reader
from streaming.base.util import wait_for_file_to_exist
from streaming.base.world import World

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.index import (
    INDEX,
    Index,
    check_batch_size,
    check_columns,
    check_files,
    parse_index,
    read_index,
)
from maskedclip_composer.data.keys import StreamKeys
from maskedclip_composer.data.leaders import leaders_first
from maskedclip_composer.data.reading import QuickReader
from maskedclip_composer.data.source import Source, find_damage, is_answer
from maskedclip_composer.data.unpack import unpack
from maskedclip_composer.errors import UserError

log = logging.getLogger(__name__)


class GuardedStream(Stream):
    """A stream that gives a shard only whole and verified, or raises in bounded time; see `DataConfig`.

    Stock Streaming retries only the transfer; a file with a wrong checksum stays in the cache and fails for ever, and
    what is in the cache or read in place when a run begins is never verified.
    """

    def __init__(self, name: str, config: StreamConfig, data: DataConfig, *, keys: StreamKeys | None = None) -> None:
        remote, local = config.location()
        self.name = name
        self._keys = keys or StreamKeys.of_training(name)
        self.key = self._keys.stream
        try:
            super().__init__(remote=remote, local=local, split=config.split, download_retry=1, keep_zip=False)
        except ValueError as error:
            raise UserError(
                f"{self._keys.remote} = {remote}: {error}; Streaming reads s3, gs, azure, oci, hf, ..."
            ) from error
        self.batch_size = config.batch_size
        self.folder = Path(self.local, self.split)
        self._files = Source(self._keys, remote, self.split, self.folder, data)
        self.source = self._files.place
        self._patience = data.patience
        self.index: Index = self._open_index()

    def stop_when(self, is_stopped: Callable[[], bool]) -> None:
        """Wait for no download any more once this holds."""
        self._files.is_stopped = is_stopped

    def get_shards(self, world: World, allow_unsafe_types: bool) -> list[Reader]:
        """Return the shards' readers, which give the columns that training uses."""
        return [QuickReader.of(reader) for reader in super().get_shards(world, allow_unsafe_types)]

    def prepare_shard(self, shard: Reader) -> int:
        """Verify what there is of a shard, fetch and unpack what there is not.

        Returns:
            Change of the cache's size in bytes.

        Raises:
            UserError: Names the shard and the cause.
        """
        ((raw, packed),) = shard.file_pairs
        target = self.folder / raw.basename
        counted = 0
        if target.is_file():
            if self._is_intact(target, raw):
                return 0
            counted = raw.bytes
        stored = None if packed is None else self.folder / packed.basename
        if packed is not None and stored is not None and stored.is_file() and self._is_intact(stored, packed):
            counted += packed.bytes

        def make() -> None:
            if packed is None or stored is None:
                self._files.fetch(raw, target, self.index.hash_name)
            elif stored.is_file():
                self._files.place_content(self._unpack(stored.read_bytes(), shard), target)
            else:
                self._files.fetch(packed, target, self.index.hash_name, lambda data: self._unpack(data, shard))

        self._files.attempt(make, f"shard {(packed or raw).basename}")
        if self.safe_keep_zip:
            return raw.bytes
        if stored is not None:
            stored.unlink(missing_ok=True)
        return raw.bytes - counted

    def _unpack(self, data: bytes, shard: Reader) -> bytes:
        return unpack(str(shard.compression), data, shard.get_raw_size())

    def _is_intact(self, path: Path, file: FileInfo) -> bool:
        """Whether a file is what the index lists. If not, it goes, or where it is read in place UserError is raised."""
        damage = find_damage(path, file, self.index.hash_name)
        if damage is None:
            return True
        if not self.remote:  # never delete what may be the only copy
            raise UserError(
                f"{self.key}: shard {file.basename} of {self.folder} is damaged ({damage}); copy it again from its "
                f"source or prepare the set again; `python -m data_prep check {self.folder}` lists all that are damaged"
            )
        log.warning("%s: %s in the cache is damaged (%s) and is fetched again", self.key, path, damage)
        path.unlink(missing_ok=True)
        return False

    def _open_index(self) -> Index:
        path = self.folder / INDEX
        if self.remote and World.detect().is_local_leader:
            return self._fetch_index(path)
        if self.remote:
            try:
                wait_for_file_to_exist(str(path), TICK, self._patience + 60, "")
            except RuntimeError as error:
                raise UserError(f"{self.key}: {path} was not downloaded by local rank 0; see its message") from error
        return read_index(self.folder, key=self.key)

    def _fetch_index(self, path: Path) -> Index:
        """Download index.json at every start, to notice a cache of another version of the set."""
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder, INDEX)
            self._files.attempt(lambda: self._files.download(INDEX, fresh), INDEX, is_answer)
            content = fresh.read_bytes()
        index = parse_index(content, os.path.join(self.source, INDEX), key=self.key)
        if path.exists() and path.read_bytes() != content and self._is_index(path):
            raise UserError(
                f"{self.key}: the cache {self.folder} holds another version of {self.source}; "
                f"delete that folder or set {self._keys.local} to a new one"
            )
        try:
            self._files.place_content(content, path)
        except OSError as error:
            raise UserError(
                f"{self._keys.local} = {self.folder}: cannot be written ({error}); set it to another folder"
            ) from error
        return index

    def _is_index(self, path: Path) -> bool:
        try:
            read_index(path.parent, key=self.key)
        except UserError:
            return False
        return True


def open_streams(data: DataConfig, *, together: bool = False) -> list[GuardedStream]:
    """Open every stream of `data` and check that its records, sizes and files fit.

    Args:
        data: The streams.
        together: Every rank calls: none reads an index in a cache before this start has fetched it.

    Raises:
        UserError: Names the stream's key, what is wrong and the remedy.
    """
    world_size = World.detect().num_ranks

    def open_all() -> list[GuardedStream]:
        return [GuardedStream(name, config, data) for name, config in data.streams().items()]

    streams = leaders_first(open_all) if together else open_all()
    for stream, (name, config) in zip(streams, data.streams().items(), strict=True):
        check_columns(stream.index, name, key=stream.key)
        check_batch_size(stream.index, config.batch_size, world_size, key=stream.key)
        if stream.remote is None:
            check_files(stream.folder, key=stream.key)
    return streams
