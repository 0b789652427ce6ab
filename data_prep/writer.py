"""Write shards in parts beside their destination, so that a killed run continues and readers see all or nothing."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from maskedclip_composer.errors import UserError

REPORT = "report.json"
SHARD_BYTES = 1 << 26


def is_remote(out: str) -> bool:
    """Whether `out` is a URL such as s3://bucket/path rather than a folder."""
    return urlparse(out).scheme != ""


def check_destination(out: str, overwrite: bool) -> None:
    """Refuse a destination that holds something, unless it is a result of ours and may be replaced.

    Raises:
        UserError: It is not empty, or cannot be reached.
    """
    if is_remote(out):
        if overwrite:
            raise UserError(f"--overwrite replaces folders only; delete {out} yourself, or choose another --out")
        prefix = urlparse(out).path.strip("/") + "/"
        names = _uploader(out, Path(tempfile.gettempdir())).list_objects() or []
        if any(name.startswith(prefix) for name in names):
            raise UserError(f"--out {out}: holds objects already; delete them, or choose another prefix")
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
    """The folder of an unfinished run: `plan.json`, finished parts, and at the end the published tree.

    A part is finished when its record exists. The plan names all that decides the result: parts of another plan are
    thrown away.
    """

    def __init__(self, out: str, work: Path | None) -> None:
        if work is None and is_remote(out):
            work = Path(tempfile.gettempdir(), f"data_prep-{hashlib.sha256(out.encode()).hexdigest()[:16]}.partial")
        # On the file system of the destination: only there is a rename atomic.
        self.folder = work or Path(out).absolute().with_name(Path(out).absolute().name + ".partial")
        self._parts = self.folder / "parts"

    def open(self, plan: dict[str, Any]) -> bool:
        """Lock the folder for this process and keep the finished parts of the same plan.

        Returns:
            Whether an earlier run of the same plan is continued.

        Raises:
            UserError: Another run works there, or the folder holds something else.
        """
        plan_file = self.folder / "plan.json"
        if self.folder.exists() and not plan_file.is_file() and any(self.folder.iterdir()):
            raise UserError(f"work folder {self.folder}: is not of this program; remove it, or give another --work")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / "plan.json", "a+", encoding="utf-8")  # noqa: SIM115 (held until `close`)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"work folder {self.folder}: another run is working there; wait for it to end") from None
        text = json.dumps(plan, sort_keys=True)
        self._lock.seek(0)
        same = self._lock.read() == text
        if not same:
            shutil.rmtree(self._parts, ignore_errors=True)
            self._lock.truncate(0)
            self._lock.write(text)
            self._lock.flush()
        self._parts.mkdir(exist_ok=True)
        return same and any(self._parts.iterdir())

    def record(self, part: str) -> Any:
        """Return the record of a finished part, None where it is still to be done."""
        file = self._parts / f"{part}.json"
        return json.loads(file.read_bytes()) if file.is_file() else None

    def finish_part(
        self,
        part: str,
        columns: dict[str, str],
        samples: Iterable[dict[str, Any]],
        record: Callable[[], Any],
    ) -> None:
        """Write the shards of one part, then its record, which makes it finished.

        Args:
            part: Its name.
            columns: MDS encoding of each column.
            samples: Its records; may be lazy.
            record: Called once all samples are written; what it returns is kept as JSON.
        """
        from streaming import MDSWriter

        folder = self._parts / part
        file = self._parts / f"{part}.json"
        file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        with MDSWriter(columns=columns, out=str(folder), hashes=["xxh64"], size_limit=SHARD_BYTES) as writer:
            for sample in samples:
                writer.write(sample)
        _write_aside(file, json.dumps(record()))

    def assemble(self, splits: dict[str, list[str]]) -> Path:
        """Join finished parts into one tree, a folder per split (at the top where the split is '').

        Streaming's merge_index would leave one sub-folder per part; numbering the shards through gives the tree that
        a single writer gives. The parts stay as they are, so that a kill in here costs nothing.
        """
        tree = self.folder / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        for split, parts in splits.items():
            folder = tree / split
            folder.mkdir(parents=True)
            shards = []
            for part in parts:
                for shard in json.loads((self._parts / part / "index.json").read_bytes())["shards"]:
                    source = self._parts / part / shard["raw_data"]["basename"]
                    shard["raw_data"]["basename"] = f"shard.{len(shards):05}.mds"
                    _link(source, folder / shard["raw_data"]["basename"])
                    shards.append(shard)
            (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}, sort_keys=True))
        return tree

    def publish(self, tree: Path, out: str) -> None:
        """Put `tree` at `out` whole, by rename or by upload, and remove the work folder."""
        if is_remote(out):
            _upload(tree, out)
        else:
            replace_folder(tree, Path(out))
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Give up the lock; what is unfinished stays for the next run."""
        self._lock.close()


def replace_folder(new: Path, out: Path) -> None:
    """Rename the folder `new` to `out`; an earlier result there is removed once the new one is in place."""
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.is_dir() and any(out.iterdir()):
        os.rename(out, old)
    # A rename on to an empty folder replaces it.
    os.rename(new, out)
    shutil.rmtree(old, ignore_errors=True)


def _write_aside(file: Path, text: str) -> None:
    aside = file.with_suffix(".tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, file)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # file systems without hard links
        shutil.copyfile(source, target)


def _upload(tree: Path, out: str) -> None:
    files = [path.relative_to(tree).as_posix() for path in sorted(tree.rglob("*")) if path.is_file()]
    # A reader that finds an index must find all that it names.
    indexes = [name for name in files if name.endswith("index.json")]
    uploader = _uploader(out, tree)
    with ThreadPoolExecutor(max_workers=8) as pool:
        for names in (sorted(set(files) - set(indexes)), indexes):
            try:
                list(pool.map(uploader.upload_file, names))
            except Exception as error:  # each cloud's client has its own
                raise UserError(
                    f"--out {out}: upload failed: {error}; run the same command again, only the upload is repeated"
                ) from error


def _uploader(out: str, local: Path) -> Any:
    from streaming.base.storage import CloudUploader

    try:
        return CloudUploader.get((str(local), out), keep_local=True, exist_ok=True)
    except Exception as error:  # each cloud's client has its own
        raise UserError(f"--out {out}: cannot be reached: {error}; check address, bucket and credentials") from error
