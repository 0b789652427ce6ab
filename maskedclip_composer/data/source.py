"""Fetch files from a stream's source: each attempt bounded in time, a bounded number of them, whole or not at all.

Leans on the downloaders of mosaicml-streaming 0.13.0.
"""

import errno
import glob
import hashlib
import logging
import os
import re
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash
from streaming.base.format import FileInfo
from streaming.base.storage import CloudDownloader

from maskedclip_composer.data.cache import FETCHING
from maskedclip_composer.data.config import DataConfig, wait_before
from maskedclip_composer.data.keys import StreamKeys
from maskedclip_composer.data.threads import Stopped, call_within, wait_until
from maskedclip_composer.errors import UserError

log = logging.getLogger(__name__)


class Source:
    """Where a stream's files come from, and the folder that they go to.

    Stock Streaming bounds only a source's silence, and each wait of several: one byte a minute is waited for.
    """

    def __init__(self, keys: StreamKeys, remote: str | None, split: str, folder: Path, data: DataConfig) -> None:
        """Choose the downloader; raises ValueError where `remote` has a scheme that Streaming does not know."""
        self.key = keys.stream
        self._keys = keys
        self._url = os.path.join(remote, split) if remote else str(folder)
        self.place = re.sub(r"://[^/@]*@", "://...@", self._url)
        """The same, for people: without a password."""
        self.folder = folder
        self._remote = remote
        self._attempts = 1 + data.download_retry if remote else 1
        self._timeout = data.download_timeout
        self._downloader = CloudDownloader.get(remote)
        self._owner = os.getpid()
        self.is_stopped: Callable[[], bool] = _never
        """Whether the run has failed elsewhere: then no download is waited for."""

    def fetch(
        self, file: FileInfo, target: Path, hash_name: str | None, change: Callable[[bytes], bytes] | None = None
    ) -> None:
        """Download a file aside, verify it, and only then put it, or what `change` makes of it, at `target`."""
        if not self._remote:
            raise FileNotFoundError(f"{self.folder / file.basename} is gone")
        aside = self._aside(target)
        try:
            self.download(file.basename, aside)
            if (damage := find_damage(aside, file, hash_name)) is not None:
                raise ValueError(damage)
            if change is not None:
                aside.write_bytes(change(aside.read_bytes()))
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)

    def place_content(self, data: bytes, target: Path) -> None:
        """Write a file of the folder so that nobody sees a part of it."""
        aside = self._aside(target)
        try:
            aside.write_bytes(data)
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)

    def _aside(self, target: Path) -> Path:
        folder = self.folder / FETCHING
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{uuid.uuid4().hex}.{target.name}"

    def download(self, name: str, target: Path) -> None:
        """Download a file within `data.download_timeout` seconds; raises what the downloader does, or TimeoutError."""
        if self._owner != os.getpid():
            # A forked loader process: a kept connection would be its parent's and its siblings' too, and each would
            # get the others' bytes.
            self._downloader, self._owner = CloudDownloader.get(self._remote), os.getpid()
        source = os.path.join(self._url, name)
        downloader = self._downloader
        left = threading.Event()

        def download() -> None:
            try:
                downloader.download(source, str(target), timeout=self._timeout)
            finally:
                if left.is_set():  # nobody is going to fetch it
                    _remove(target)

        try:
            call_within(self._timeout, download, self.is_stopped)
        except BaseException:
            left.set()
            _remove(target)
            # A new connection, and new credentials where they are kept in a file. What still runs has the old one.
            self._downloader = CloudDownloader.get(self._remote)
            raise

    def attempt(
        self, fetch: Callable[[], Any], what: str, is_final: Callable[[Exception], bool] = lambda error: False
    ) -> Any:
        """Return `fetch()`, which is called again after a failure unless that is final.

        Raises:
            UserError: Names `what`, the source, the last cause and the remedy.
            Stopped: The run has failed elsewhere.
        """
        last: Exception | None = None
        tried = 0
        while tried < self._attempts:
            if tried:
                wait = wait_before(tried)
                at = f"attempt {tried} of {self._attempts}, the next in {wait:g} s"
                log.warning("%s: %s of %s: %s (%s)", self.key, what, self.place, describe(last), at)
                wait_until(lambda: False, wait, self.is_stopped)
            tried += 1
            try:
                return fetch()
            except Stopped:
                raise
            except Exception as error:
                last = error
                if is_final(error):
                    break
        attempts = "1 attempt" if tried == 1 else f"{tried} attempts"
        raise UserError(
            f"{self.key}: {what} of {self.place} could not be read intact in {attempts} ({describe(last)}); "
            f"{self._remedy(last)}, then {self._keys.again}"
        ) from last

    def _remedy(self, error: Exception | None) -> str:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            limit = f", or set {self._keys.limit} below what is free" if self._keys.limit else ""
            return f"free space in {self.folder}, or move {self._keys.local}{limit}"
        is_slow = isinstance(error, TimeoutError) and self._keys.timeout
        slow = f"; raise {self._keys.timeout} where the network is slow" if is_slow else ""
        return f"check the source, the network and the disk{slow}"


def _remove(target: Path) -> None:
    """Remove what there is of a file, also under the longer name that boto3 gives it until it is whole."""
    for part in target.parent.glob(f"{glob.escape(target.name)}*"):
        part.unlink(missing_ok=True)


def _never() -> bool:
    return False


def find_damage(path: Path, file: FileInfo, hash_name: str | None) -> str | None:
    """Say what is wrong with a file; None where it is what the index lists, by its hash if there is one."""
    size = path.stat().st_size
    if size != file.bytes:
        return f"Checksum failure: {size} bytes in place of {file.bytes}"
    if hash_name is not None and _digest(path, hash_name) != file.hashes[hash_name]:
        return f"Checksum failure: {hash_name}"
    return None


def _digest(path: Path, hash_name: str) -> str:
    """Hash a file piece by piece, so that no memory is claimed."""
    kind = getattr(xxhash, hash_name) if hash_name in xxhash.algorithms_available else hash_name
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, kind).hexdigest()


def describe(error: Exception | None) -> str:
    """Describe why a file did not arrive: of a store's refusal also its status, which Streaming leaves out."""
    status = _status(error)
    return f"{type(error).__name__}: {error}" if status is None else f"the store answers {status}: {error}"


def is_answer(error: Exception) -> bool:
    """Whether the source says that it has no such file, or not for us: nothing that passes within a minute."""
    return isinstance(error, FileNotFoundError) or _status(error) in (401, 403, 404)


def _status(error: Exception | None) -> int | None:
    """Return the HTTP status of one of botocore's ClientErrors."""
    response = getattr(error, "response", None)
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
