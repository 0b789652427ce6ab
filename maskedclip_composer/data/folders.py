"""Find photographs below a folder, in spite of mirrors that change case, add dots or leave litter."""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from maskedclip_composer.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".ppm", ".webp"})
_LITTER = frozenset({"thumbs.db", "desktop.ini"})


def require_folder(path: Path, role: str) -> Path:
    """Return `path` with links resolved; `role` names it in the UserError that is raised where it is no folder."""
    if re.match(r"[a-z0-9-]{2,}:/", str(path)):  # pathlib makes one slash of two
        raise UserError(
            f"{role} {path}: is an address in an object store, whose layout cannot be read from here; copy it first "
            "(aws s3 sync s3://BUCKET/PREFIX DIR, or your cloud's like) and give the folder"
        )
    if not path.is_dir():
        raise UserError(f"{role} {path}: {'is not a folder' if path.exists() else 'no such folder'}")
    return path.resolve()


def is_litter(name: str) -> bool:
    """Whether a file is left over from a file manager: Thumbs.db, desktop.ini, .DS_Store, ._x.jpg."""
    return name.startswith(".") or name.lower() in _LITTER


def walk_images(root: Path) -> Iterator[str]:
    """Yield the photographs below `root` in the order of their paths, relative to it, with forward slashes.

    System litter (Thumbs.db, desktop.ini, names that start with a dot such as .DS_Store and ._x.jpg) is passed over;
    links to folders are not followed.
    """
    yield from _walk(root, "")


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as scan:
        # `b.jpg` comes before `b/a.jpg`, as in a sorted list of all paths.
        entries = sorted((f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name) for entry in scan)
    for name in entries:
        if name.endswith("/"):
            if not name.startswith("."):
                yield from _walk(folder / name, prefix + name)
        elif Path(name).suffix.lower() in IMAGE_SUFFIXES and not is_litter(name):
            yield prefix + name


def path_below(root: Path, image: str) -> str:
    """Return `image` relative to the resolved folder `root`, with forward slashes; it need not exist.

    Raises:
        UserError: It lies outside `root`, by `..`, as an absolute path or through a link.
    """
    if "\0" in image:
        raise UserError(f"image {image!r} holds a NUL byte, which no path has; mend the cell")
    # Sheets made on Windows separate folders with backslashes (DeepDRiD).
    path = os.path.normpath(os.path.join(root, image.replace("\\", "/")))
    parent = _real_folder(os.path.dirname(path))
    real = os.path.join(parent, os.path.basename(path))
    if os.path.islink(real):
        real = os.path.realpath(real)
    if not Path(real).is_relative_to(root):
        raise UserError(
            f"image {image!r} lies outside the image root {root} (it leads to {real}); give a root above all images"
        )
    # An absolute path may name the root through a link: then only the resolved form is below it.
    return os.path.relpath(path if Path(path).is_relative_to(root) else real, root).replace(os.sep, "/")


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)
