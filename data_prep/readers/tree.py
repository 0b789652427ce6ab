"""A released folder, walked once: find its files in spite of mirrors that change case, add folders or leave litter."""

import os
import re
from collections import defaultdict
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from maskedclip_composer.data.folders import IMAGE_SUFFIXES, is_litter


class Tree:
    """Paths below `root`, relative to it, with forward slashes.

    Attributes:
        root: The folder.
        files: Sorted, without litter.
        folders: The root itself, `.`, among them.
        linked: Links to folders, which are not followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[str] = []
        self.folders: list[str] = ["."]
        self.linked: list[str] = []
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            here = Path(folder).relative_to(root)
            for name in folders:
                path = (here / name).as_posix()
                (self.linked if os.path.islink(root / path) else self.folders).append(path)
            self.files += [(here / name).as_posix() for name in files if not is_litter(name)]
        self.files.sort()

    def file(self, patterns: tuple[str, ...]) -> str | None:
        """Return the first file that fits a pattern, the patterns in order, the least deep of each first."""
        return _first(self.files, patterns)

    def folder(self, patterns: tuple[str, ...]) -> str | None:
        """Return the first folder that fits a pattern; see `file`."""
        return _first(self.folders, patterns)

    @cached_property
    def _photographs(self) -> list[str]:
        return [path for path in self.files if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES]

    def photographs(self, folder: str, ignore: str = "") -> dict[str, str]:
        """Return the photographs below `folder`: path below it -> path below the root.

        Args:
            folder: As `folder` returned it.
            ignore: Regular expression for paths below the folder that are passed over.
        """
        prefix = "" if folder == "." else f"{folder}/"
        found = {path.removeprefix(prefix): path for path in self._photographs if path.startswith(prefix)}
        return {path: full for path, full in found.items() if not ignore or not re.search(ignore, path, re.IGNORECASE)}


def _first(paths: list[str], patterns: tuple[str, ...]) -> str | None:
    for pattern in patterns:
        if pattern == ".":
            return "." if "." in paths else None
        parts = [re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split("/")]
        expression = re.compile(f"(?:.*/)?{'/'.join(parts)}", re.IGNORECASE)
        # Downloaded with a browser, IDRiD's folders come as `B.%20Disease%20Grading`.
        fitting = [path for path in paths if expression.fullmatch(unquote(path))]
        if fitting:
            return min(fitting, key=lambda path: (path.count("/"), path))
    return None


class Lookup:
    """Photographs by name: blind to case, to the suffix (`a.jpg` finds `A.JPG` and `a..JPG`) and to leading folders."""

    def __init__(self, photographs: dict[str, str]) -> None:
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in photographs:
            self._by_stem[_stem(PurePosixPath(path).name)].append(path)

    def find(self, name: str) -> list[str]:
        """Return the photographs that `name` may mean, best first; more than one are equally good."""
        path = PurePosixPath(name.replace("\\", "/"))  # DeepDRiD's sheets were written on Windows
        found = self._by_stem.get(_stem(path.name), [])
        found = [other for other in found if PurePosixPath(other).name.lower() == path.name.lower()] or found
        shared = [_shared_folders(path, PurePosixPath(other)) for other in found]
        return [other for other, number in zip(found, shared, strict=True) if number == max(shared)]


def _shared_folders(path: PurePosixPath, other: PurePosixPath) -> int:
    """Count the folders right above the two files that have the same names."""
    pairs = zip(path.parts[-2::-1], other.parts[-2::-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0].lower() == pair[1].lower(), pairs))


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return (path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name).rstrip(".").lower()
