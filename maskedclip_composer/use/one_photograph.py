"""What is known of one photograph that a command works on, and what it wants of a collection of them."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from maskedclip_composer.data.cells import cell_text
from maskedclip_composer.use.transform import PhotographTransform


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """One photograph, read or not.

    Attributes:
        name: As the table writes it, else below the folder; of a record the original's.
        columns: What the table or the record says of it, as text.
        reason: Why it cannot be read; empty where it was.
        crop: Whether the retina was found: cropped, full, failed or off; empty where it was not read.
        width: Of the original, upright, in pixels; None where not known (a record does not say).
        height: Likewise.
        sha256: Of the original file; empty where not known.
    """

    name: str
    columns: Mapping[str, str]
    reason: str = ""
    crop: str = ""
    width: int | None = None
    height: int | None = None
    sha256: str = ""


class Photographs(Protocol):
    """Photographs in a fixed order.

    Attributes:
        columns: Names of what is carried along of each.
        fingerprint: Differs where the folder, a name, or the size or time of a file does.
    """

    columns: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int: ...

    def read(
        self, index: int, transform: PhotographTransform
    ) -> tuple[Photograph, UInt8[Tensor, "3 size size"] | None]:
        """Return a photograph and the model's input; None where it cannot be read, for the reason that it carries."""
        ...

    def picture(self, index: int, transform: PhotographTransform) -> UInt8[np.ndarray, "height width 3"] | str:
        """Return the prepared photograph to look at, or say why it cannot be read."""
        ...


def as_text(value: Any) -> str:
    """Write what is carried along as text that every file can hold: lists with `|` between, bytes as digits."""
    if isinstance(value, list | tuple):
        return "|".join(map(as_text, value))
    if isinstance(value, bytes):
        return value.hex()
    text = value if isinstance(value, str) else cell_text(value)
    return text.encode(errors="replace").decode()


def files_digest(root: Path, paths: Iterable[str]) -> str:
    """Return the SHA-256 over a folder's place, and name, size and time of change of files below; none is opened."""
    root = root.resolve()
    digest = hashlib.sha256(os.fsencode(root))
    for path in paths:
        try:
            found = os.stat(root / path)
            about = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:
            about = "absent"
        digest.update(b"\0" + os.fsencode(path) + b"\0" + about.encode())
    return digest.hexdigest()


def shown(name: str) -> str:
    """Return a file's name as text: a byte that is not UTF-8 becomes a question mark in a lozenge."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
