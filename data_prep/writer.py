"""Write shards in parts beside their destination, so that a killed run continues and readers see all or nothing."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_prep.ledger import Ledger, Part, Rejected
from data_prep.manifest import Row
from data_prep.remote import connect, explain, is_remote, list_objects
from maskedclip_composer.data.photograph import REPORT
from maskedclip_composer.errors import UserError


def check_destination(out: str, overwrite: bool, begun: frozenset[str] = frozenset()) -> None:
    """Refuse a destination that holds something, unless it is a result of ours and may be replaced.

    Args:
        out: Folder or URL.
        overwrite: Whether an earlier result in a folder may be replaced.
        begun: Files that an upload to `out` was sending when it broke off, see `Workplace.begun`.

    Raises:
        UserError: It is not empty, or cannot be reached.
    """
    if is_remote(out):
        if overwrite:
            raise UserError(f"--overwrite replaces folders only; delete {out} yourself, or choose another --out")
        foreign = sorted(set(list_objects(out, "--out")) - begun)
        if foreign:
            raise UserError(
                f"--out {out}: holds objects already ({', '.join(foreign[:3])}); delete them, or choose another prefix"
            )
        return
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {out}: is a file; give a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise UserError(f"--out {out}: is not empty; choose another folder, or replace it with --overwrite")
    if not (folder / REPORT).is_file():
        raise UserError(f"--out {out}: holds no {REPORT}, so it is no earlier result; remove it yourself")


class Workplace:
    """The folder of an unfinished run: the ledger, the parts' shards, and at the end the tree to be published."""

    def __init__(self, out: str, work: Path | None) -> None:
        if work is None and is_remote(out):
            work = Path(tempfile.gettempdir(), f"data_prep-{hashlib.sha256(out.encode()).hexdigest()[:16]}.partial")
        # On the file system of the destination: only there is a rename atomic.
        self.folder = work or Path(out).absolute().with_name(Path(out).absolute().name + ".partial")
        self.parts = self.folder / "parts"
        self.tree = self.folder / "tree"
        self._upload = self.folder / "upload.json"

    def open(self) -> None:
        """Make the folder and lock it for this process.

        Raises:
            UserError: Another run works there, or the folder holds something else.
        """
        lock = self.folder / "lock"
        try:
            if self.folder.exists() and not lock.is_file() and any(self.folder.iterdir()):
                raise UserError(f"work folder {self.folder}: is not of this program; remove it, or give another --work")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"work folder {self.folder}: cannot be written: {error.strerror}; it lies beside --out unless --work "
                "names another place"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"work folder {self.folder}: another run is working there; wait for it to end") from None

    def plan(
        self, rows: Iterable[Row | Rejected], options: Mapping[str, Any], *, part_rows: int, by_split: bool
    ) -> tuple[Ledger, bool]:
        """Write down the rows; parts of an earlier plan stay where it is the same one, which the second value says."""
        text = json.dumps(dict(options), sort_keys=True)
        ledger, same = Ledger.plan(self.folder / "ledger.sqlite", rows, text, part_rows=part_rows, by_split=by_split)
        if not same:
            shutil.rmtree(self.parts, ignore_errors=True)
            if self._upload.is_file():
                url = json.loads(self._upload.read_bytes())["out"]
                self._upload.unlink()
                raise UserError(
                    f"--out {url}: holds the unfinished upload of other rows or options; delete its objects, or choose "
                    "another prefix"
                )
        self.parts.mkdir(exist_ok=True)
        return ledger, same

    def assemble(self, parts: Iterable[Part]) -> Path:
        """Join the shards of finished parts into one tree, in their order, a folder per folder of the parts.

        Streaming's merge_index leaves one sub-folder per part (see `merge`); numbering the shards through gives the
        tree that a single writer gives. The parts stay as they are, so that a kill in here costs nothing.
        """
        shutil.rmtree(self.tree, ignore_errors=True)
        self.tree.mkdir()
        shards: dict[str, list[dict[str, Any]]] = {}
        for part in parts:
            of_part = json.loads((self.parts / part.name / "index.json").read_bytes())["shards"]
            if not of_part:
                continue
            folder = self.tree / part.folder
            folder.mkdir(parents=True, exist_ok=True)
            joined = shards.setdefault(part.folder, [])
            for shard in of_part:
                source = self.parts / part.name / shard["raw_data"]["basename"]
                shard["raw_data"]["basename"] = f"shard.{len(joined):05}.mds"
                link(source, folder / shard["raw_data"]["basename"])
                joined.append(shard)
        for folder, joined in shards.items():
            index = json.dumps({"version": 2, "shards": joined}, sort_keys=True)
            (self.tree / folder / "index.json").write_text(index, encoding="utf-8")
        return self.tree

    def begun(self, out: str) -> frozenset[str]:
        """Return the names of the files that an upload from here to `out` may have left there when it broke off."""
        try:
            upload = json.loads(self._upload.read_bytes())
        except (OSError, ValueError):
            return frozenset()
        return frozenset(upload["files"]) if upload["out"] == out else frozenset()

    def merge(self, parts: Iterable[Part]) -> Path:
        """Join finished parts as clusters do: a sub-folder per part, and one index by Streaming's merge_index."""
        from streaming.base.util import merge_index

        shutil.rmtree(self.tree, ignore_errors=True)
        self.tree.mkdir()
        indexes: dict[str, list[str]] = {}
        for part in parts:
            source = (self.parts / part.name).resolve()
            shards = json.loads((source / "index.json").read_bytes())["shards"]
            if not shards:
                continue
            folder = self.tree / part.folder / part.name
            folder.mkdir(parents=True)
            for shard in shards:
                link(source / shard["raw_data"]["basename"], folder / shard["raw_data"]["basename"])
            # merge_index takes the name of the index's folder for the sub-folder.
            indexes.setdefault(part.folder, []).append(str(source / "index.json"))
        logging.disable(logging.WARNING)  # of its temporary folder
        try:
            for name, files in indexes.items():
                merge_index(files, str(self.tree / name), keep_local=True)
        finally:
            logging.disable(logging.NOTSET)
        return self.tree

    def publish(self, out: str) -> None:
        """Put the tree at `out` whole, by rename or by upload, and remove the work folder."""
        if is_remote(out):
            # What an earlier upload left may be more: a file that was mended since changes the shards.
            files = sorted({*_files(self.tree), *self.begun(out)})
            aside = self._upload.with_suffix(".new")
            aside.write_text(json.dumps({"out": out, "files": files}), encoding="utf-8")
            os.replace(aside, self._upload)
            upload(self.tree, out)
        else:
            replace_folder(self.tree, Path(out))
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Give up the lock; what is unfinished stays for the next run."""
        self._lock.close()


def replace_folder(new: Path, out: Path) -> None:
    """Rename the folder `new` to `out`; an earlier result there is removed once the new one is in place."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if new.stat().st_dev != out.parent.stat().st_dev:  # --work on another disk
        aside = out.with_name(out.name + ".new")
        shutil.rmtree(aside, ignore_errors=True)
        new = shutil.copytree(new, aside)
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.is_dir() and any(out.iterdir()):
        os.rename(out, old)
    # A rename on to an empty folder replaces it.
    os.rename(new, out)
    shutil.rmtree(old, ignore_errors=True)


def link(source: str | Path, target: str | Path) -> None:
    """Make `target` the same file as `source`, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def upload(tree: Path, out: str) -> None:
    """Upload a tree, its indexes last: a reader that finds an index must find all that it names."""
    files = _files(tree)
    indexes = [name for name in files if name.endswith("index.json")]
    uploader = connect(out, "--out", tree)
    with ThreadPoolExecutor(max_workers=8) as pool:
        for names in (sorted(set(files) - set(indexes)), indexes):
            try:
                list(pool.map(uploader.upload_file, names))
            except Exception as error:  # each cloud's client has its own
                raise UserError(
                    f"--out {out}: upload failed: {explain(error)}; run the same command again, only the upload is "
                    "repeated"
                ) from error


def _files(tree: Path) -> list[str]:
    return [path.relative_to(tree).as_posix() for path in sorted(tree.rglob("*")) if path.is_file()]
