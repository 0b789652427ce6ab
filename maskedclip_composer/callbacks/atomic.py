"""Change files so that a reader never sees half of it, and a machine that loses power keeps one or the other."""

import errno
import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` beside `path`, wait until it is on the disk, then rename; the folder is created when absent.

    After a loss of power the name has the old content or the new, never an empty file. The rename itself is not waited
    for: this is called for pictures and metrics at intervals, and one wait is what the next picture is worth.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    sync(aside)
    os.replace(aside, path)


def publish(written: Path, path: Path) -> None:
    """Give a file, or a folder of files that are on the disk, the name under which others look for it.

    Args:
        written: What was written, on the same file system.
        path: Its name from now on.
    """
    sync(written)
    os.replace(written, path)
    sync(path.parent)


def link_whole(link: Path, target: str) -> None:
    """Point the symbolic link at `target`, a path from the link's folder; there is no moment without a link."""
    aside = link.with_name(f"{link.name}.partial")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    os.replace(aside, link)
    sync(link.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # mounted object stores synchronise no folders
            raise
    finally:
        os.close(descriptor)
