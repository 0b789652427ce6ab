"""One epoch of a small set, read through the loader of training, interrupted and resumed."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, _utils

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.joint import JointDataset
from maskedclip_composer.data.schema import COLUMNS, Kind
from maskedclip_composer.data.streams import open_streams
from maskedclip_composer.errors import UserError
from tests.data.conftest import record

BATCH = 4
SAMPLES = 33
PLANNED = SAMPLES // BATCH * BATCH
SLACK = 10.0  # seconds beyond the stated ones, for two busy cores
REMOTE = "s3://shards/set"

# Torch 2.7 waits this long, by default 5 s, for each loader process that has raised: after the message was shown.
_utils.MP_STATUS_CHECK_INTERVAL = 0.2  # pyright: ignore


def write_shards(folder: Path, kind: Kind = "unpaired", samples: int = SAMPLES, **options: Any) -> Path:
    """Write records as data_prep does, some to a shard."""
    from streaming import MDSWriter

    settings: dict[str, Any] = {"columns": COLUMNS[kind], "hashes": ["xxh64"], "size_limit": 8_000} | options
    with MDSWriter(out=str(folder), **settings) as writer:
        for number in range(samples):
            full = record(kind, number)
            writer.write({column: full.get(column, {"a": 1}) for column in settings["columns"]})
    return folder


def config(cache: Path | None, remote: str = REMOTE, **keys: Any) -> DataConfig:
    """A stream with a cache of its own; one retry, generous for busy cores."""
    stream = StreamConfig(remote=remote, local=None if cache is None else str(cache), batch_size=BATCH)
    return DataConfig(unpaired=stream, **{"download_retry": 1, "download_timeout": 20.0} | keys)


@dataclass(kw_only=True)
class Epoch:
    """Reads on where it was interrupted, as training does after the same command.

    Attributes:
        data: The stream.
        workers: Loader processes.
        each: Is called with the number of batches read so far, after each.
        read: The sources of the samples in the order in which they came.
        seconds: That the last reading took.
    """

    data: DataConfig
    workers: int
    each: Callable[[int], None] = lambda count: None
    read: list[str] = field(default_factory=list)
    seconds: float = 0.0
    batches: int = 0
    state: dict[str, Any] | None = None

    def go_on(self) -> str | None:
        """Read to the end of the epoch; return the message that a user would see where that fails."""
        start = time.monotonic()
        try:
            self._read()
        except (UserError, RuntimeError) as error:
            return f"{'' if isinstance(error, UserError) else 'RuntimeError: '}{error}".rsplit("UserError: ", 1)[
                -1
            ].strip()
        finally:
            self.seconds = time.monotonic() - start
            gc.collect()
        return None

    def _read(self) -> None:
        dataset = JointDataset(
            open_streams(self.data), transform=lambda record, *_: record["source"], data=self.data, seed=0
        )
        if self.state is not None:
            dataset.load_state_dict(self.state)
        timeout = self.data.patience + 60 if self.workers else 0
        loader = DataLoader(dataset, dataset.batch_size, num_workers=self.workers, collate_fn=list, timeout=timeout)
        try:
            for batch in loader:
                self.read += batch
                self.batches += 1
                self.each(self.batches)
        finally:
            # Composer asks for the same at every checkpoint.
            self.state = dataset.state_dict(self.batches * BATCH, True)

    @property
    def lost(self) -> int:
        """Samples of the epoch that were not read."""
        return PLANNED - len(set(self.read))

    @property
    def is_whole(self) -> bool:
        """Whether every sample of the epoch came, and came once."""
        return not self.lost and len(self.read) == PLANNED

    @property
    def was_in_time(self) -> bool:
        """Whether the last reading ended within the stated seconds."""
        return self.seconds <= self.data.patience + SLACK
