"""An exported folder: it gets its name when it is whole, and says of each of its files what it should be."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from maskedclip_composer.callbacks.atomic import publish, sync
from maskedclip_composer.errors import UserError
from maskedclip_composer.export.golden import DESCRIPTION, FORMAT

SUMS = "SHA256SUMS"
README = "README.md"  # for people, who may edit it: it has no checksum


@contextmanager
def whole_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to write into; at the end its files are summed and it becomes `folder`.

    Nothing is at `folder` before, or what was there stays until then. What an export that was killed has left beside it
    is removed.

    Args:
        folder: The name to publish under; its parents are created.
        overwrite: Whether an earlier export may be there, which is replaced.

    Raises:
        UserError: Something is there, and it is no export, or may not be replaced; or it cannot be written.
    """
    folder = folder.resolve()
    aside, old = (folder.with_name(f".{folder.name}.{word}") for word in ("partial", "old"))
    if old.exists() and not folder.exists():  # killed between the two renames below
        os.replace(old, folder)
    check_place(folder, overwrite=overwrite)
    for left in (aside, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        write_sums(aside)
        mode = (aside / SUMS).stat().st_mode
        for path in [*aside.rglob("*")]:
            if path.is_file():
                path.chmod(mode)  # safetensors' own, for one, are for nobody but their owner
            sync(path)
        if folder.exists():
            os.replace(folder, old)  # a folder cannot be replaced by another in one step
        publish(aside, folder)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        raise UserError(f"--out {folder} cannot be written: {error}\nMake room, or choose another folder.") from error
    finally:
        for left in (aside, old):
            shutil.rmtree(left, ignore_errors=True)


def check_place(folder: Path, *, overwrite: bool) -> None:
    """Refuse a place where something is that would be lost.

    Raises:
        UserError: See `whole_folder`.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not _is_export(folder):
        raise UserError(f"--out {folder} is there already and is no export.\nChoose a folder that does not exist yet.")
    if not overwrite:
        raise UserError(f"--out {folder} holds an export already.\nChoose another folder, or add --overwrite.")
    known = {*read_sums(folder), SUMS, README}
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    if others := sorted({path.relative_to(folder).as_posix() for path in found} - known):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserError(
            f"--out {folder} holds {others[0]}{more}, which the export did not write and --overwrite would delete.\n"
            "Move it away, or choose another folder."
        )


def _is_export(folder: Path) -> bool:
    try:
        said = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("format") == FORMAT and (folder / SUMS).is_file()


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS of all files below `folder`, as `sha256sum --check` reads it."""
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in summed_files(folder)]
    (folder / SUMS).write_text("".join(lines))


def read_sums(folder: Path) -> dict[str, str]:
    """Read SHA256SUMS: the digest of each file by its path from `folder`.

    Raises:
        UserError: It is absent, or is none, or names a file outside of the folder.
    """
    path = folder / SUMS
    try:
        lines = path.read_text().splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}).\nGive a folder that `python -m maskedclip_composer export` wrote."
        ) from error
    for name in sums:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path} names {name}, which is not in the folder.\nExport the model again.")
    return sums


def summed_files(folder: Path) -> list[Path]:
    """Return the files that have a checksum: all but their list, README.md and what hubs hide (`.gitattributes`)."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).as_posix() not in (SUMS, README)
        and not path.relative_to(folder).parts[0].startswith(".")
    )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
