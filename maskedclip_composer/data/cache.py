"""One run at a time in a cache folder, and nothing in it that a killed run left half done."""

import fcntl
import json
import logging
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from maskedclip_composer.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".in_use"
FETCHING = ".fetching"
"""Files that are being downloaded lie in a folder of this name until they are whole and verified."""
# The loader processes of a killed run notice its end, and let go of the folder, within a few seconds.
PATIENCE = 30.0


class HeldCache:
    """The lock of a cache folder, until this object and every process that was forked meanwhile are gone.

    So a killed run keeps its cache until its last loader process has ended. The file keeps the holder's process and the
    number of its shared memory, by which the next run removes what a killed one left.
    """

    def __init__(self, folder: Path, key: str, *, patience: float | None = None) -> None:
        """Take the lock and remove half-done files.

        Args:
            folder: The cache, split included.
            key: The stream's config key, for the message.
            patience: Seconds to wait for another run to end.

        Raises:
            UserError: Another run holds it, or the folder cannot be written.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: int | None = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{key}.local = {folder}: cannot be written ({error}); set it to another folder") from error
        self._wait(key, PATIENCE if patience is None else patience)
        self.previous: int | None = self._record().get("memory")
        shutil.rmtree(folder / FETCHING, ignore_errors=True)

    def _wait(self, key: str, patience: float) -> None:
        deadline = time.monotonic() + patience
        warned = False
        assert self._file is not None
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                owner = self._record()
            except OSError as error:  # a file system without locks
                log.warning("%s: the cache %s cannot be locked (%s); let no other run use it", key, self.folder, error)
                return
            if not warned:
                log.warning("%s: another run uses the cache %s; waiting %g s for its end", key, self.folder, patience)
                warned = True
            if time.monotonic() > deadline:
                raise UserError(
                    f"{key}: another run uses the same cache folder {self.folder} "
                    f"(process {owner.get('process', '?')} on {owner.get('host', '?')}); "
                    f"set {key}.local to a folder of this run and this machine, or wait for the other to end"
                )
            time.sleep(0.1)

    def _record(self) -> dict[str, Any]:
        assert self._file is not None
        try:
            return dict(json.loads(os.pread(self._file, 4096, 0)))
        except (ValueError, TypeError):  # new, or from a kill between both writes
            return {}

    def write(self, memory: int) -> None:
        """Note who holds the cache, and with which number of Streaming's shared memory."""
        assert self._file is not None
        record = {"process": os.getpid(), "host": socket.gethostname(), "memory": memory}
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(record).encode(), 0)

    def __getstate__(self) -> dict[str, Any]:
        """A loader process that is started, not forked, gets no hold of it."""
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # pyright: ignore
            self._file = None
