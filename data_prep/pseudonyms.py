"""`--hash-patients`: keyed hashes in place of whatever tells who a photograph is of, the file's name included."""

import argparse
import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.ledger import Rejected
from data_prep.manifest import Row
from maskedclip_composer.errors import UserError

_SHORTEST = 32  # characters of a key
_HOW = "make one with `openssl rand -hex 32`, keep it secret, and use it for all sets whose patients may be the same"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option to a command."""
    parser.add_argument(
        "--hash-patients",
        metavar="KEYFILE|env:NAME",
        help="write keyed hashes in place of patients, visits and names of files; the key is read from a file or an "
        "environment variable and written nowhere; free texts stay as they are",
    )


class Pseudonyms:
    """Replaces patients, visits and image names by HMAC-SHA256 under one key: the same name has always the same one.

    Which image a pseudonym stands for is kept for the time of the run, in a file without a name that ends with the
    process however it ends.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._database = sqlite3.connect("")  # SQLite's temporary database: on disk where large, deleted when opened
        self._database.execute("CREATE TABLE original (pseudonym TEXT PRIMARY KEY, image TEXT)")

    @classmethod
    def of(cls, given: str) -> "Pseudonyms":
        """Read the key from where `--hash-patients` says.

        Raises:
            UserError: There is none, or it is short enough to be guessed.
        """
        if given.startswith("env:"):
            key = os.environ.get(given.removeprefix("env:"), "").strip().encode()
        else:
            try:
                key = Path(given).read_bytes().strip()
            except OSError as error:
                raise UserError(f"--hash-patients {given}: cannot be read ({error.strerror}); {_HOW}") from error
        if len(key) < _SHORTEST:
            raise UserError(f"--hash-patients {given}: has {len(key)} characters of at least {_SHORTEST}; {_HOW}")
        return cls(key)

    def options(self) -> dict[str, Any]:
        """Return what report and card say of it; sets with the same words were made with the same key."""
        return {"hash_patients": f"key {self._hash('key', '')[:8]}"}

    def of_rows(self, rows: Iterable[Row]) -> Iterator[Row | Rejected]:
        """Yield the rows under pseudonyms, and note what they stand for."""
        for row in rows:
            name = self._hash("image", row.image) + PurePosixPath(row.image).suffix.lower()
            self._database.execute("INSERT OR IGNORE INTO original VALUES (?, ?)", (name, os.fsencode(row.image)))
            yield replace(
                row,
                image=name,
                patient=self._hash("patient", row.patient) if row.patient else "",
                visit=self._hash("visit", f"{row.patient}\0{row.visit}") if row.visit else "",
            )

    def original(self, name: str) -> str:
        """Return the image, below its root, that was given this pseudonym."""
        (image,) = self._database.execute("SELECT image FROM original WHERE pseudonym = ?", (name,)).fetchone()
        return os.fsdecode(image)

    def _hash(self, what: str, name: str) -> str:
        """Hash a name to 128 bits; a patient and a file of the same name have nothing in common."""
        message = f"{what}\0{name}".encode("utf-8", "surrogateescape")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:32]
