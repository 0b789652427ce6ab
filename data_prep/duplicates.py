"""Find byte-identical files among many without reading most of them."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def find_duplicates(files: Iterable[Path]) -> dict[int, int]:
    """Map the position of every file that repeats an earlier one to the position of the first of its kind.

    Only files of equal size are read. Files that are missing or cannot be read repeat nothing.
    """
    paths = list(files)
    by_size: dict[int, list[int]] = defaultdict(list)
    for position, path in enumerate(paths):
        try:
            by_size[os.stat(path).st_size].append(position)
        except OSError:
            continue
    repeats: dict[int, int] = {}
    for positions in by_size.values():
        if len(positions) == 1:
            continue
        first: dict[bytes, int] = {}
        for position in positions:
            try:
                with paths[position].open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").digest()
            except OSError:
                continue
            if first.setdefault(digest, position) != position:
                repeats[position] = first[digest]
    return repeats
