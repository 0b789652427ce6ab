"""The command `check`: whether a prepared set is whole, shard by shard and count by count."""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.remote import fetch, is_remote, join, list_objects
from data_prep.shards import open_picture
from maskedclip_composer.data.folders import require_folder
from maskedclip_composer.data.photograph import REPORT
from maskedclip_composer.data.records import (
    BUILD_SCHEMA,
    CONTAMINATED,
    DUPLICATE,
    NAME,
    SCHEMA,
    STATUSES,
    STORED,
    labels_of,
)
from maskedclip_composer.errors import UserError

INDEX = "index.json"
_ABOUT = frozenset({".json", ".csv", ".parquet", ".md", ".txt", ".html", ".jpg"})  # what may lie beside the shards


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "check",
        help="check that a prepared set is whole: sizes, hashes, counts, records",
        description="Read every shard once and hold it against its index, the report and the manifest.",
        epilog="Exit status: 0 whole; 1 something is wrong, a line for each; 2 there is no prepared set.",
    )
    parser.add_argument("out", metavar="OUT", help="folder or URL of the set")
    parser.add_argument("--decode", action="store_true", help="decode every record and photograph too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check as the command line says; return the exit status."""
    place = _Place(args.out)
    indexes = sorted(name for name in place.names if name.rsplit("/", 1)[-1] == INDEX)
    if not indexes:
        raise UserError(f"{args.out}: holds no {INDEX}; give a set that `manifest` or `prepare` wrote")
    shards, counts, findings = _read_indexes(place, indexes)
    records: dict[str, list[str]] = {}
    for name in sorted(place.names):
        if name.rsplit("/", 1)[-1] == REPORT:
            findings += _check_counts(place, name.removesuffix(REPORT), counts, records)
    with tqdm(total=len(shards), unit="shard", disable=None) as progress:
        for name, (folder, start, shard) in sorted(shards.items()):
            hashes = records.get(folder) if args.decode else None
            findings += _check_shard(place, name, folder, shard, args.decode, hashes and hashes[start:])
            progress.update()
    named = {file for name, (folder, _, shard) in shards.items() for file in _files(folder, shard)}
    unread = tuple({name.removesuffix(INDEX) for name in indexes} - counts.keys())
    findings += [
        f"{name}: no index names it; remove it"
        for name in sorted(place.names - named)
        if Path(name).suffix not in _ABOUT and not name.startswith(unread)
    ]
    for finding in findings:
        print(finding, file=sys.stderr)
    for name in sorted(place.names):
        if name.rsplit("/", 1)[-1] == REPORT:
            print(_said(name.removesuffix(REPORT), place.json(name)))
    total = sum(shard["samples"] for _, _, shard in shards.values())
    print(f"{args.out}: {total} records in {len(shards)} shards, {len(findings) or 'nothing'} wrong")
    return 1 if findings else 0


def _said(below: str, report: Any) -> str:
    """Say in a line what a report says of its set: terms and what was not stored."""
    parts = list(report["sets"].values()) if isinstance(report, dict) and "sets" in report else [report]
    parts = [part for part in parts if isinstance(part, dict)]
    licences = sorted({licence or "none given" for part in parts for licence in part.get("licences", {})})
    counts = {name: sum(part.get(name, 0) for part in parts) for name in STATUSES}
    # The last two can only occur in a build.
    shown = {name: count for name, count in counts.items() if count or name not in (CONTAMINATED, DUPLICATE)}
    numbers = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in shown.items())
    return f"{below or './'}: {numbers}; licence: {'; '.join(licences)}"


class _Place:
    """A set in a folder or an object store, of which one file at a time is on this disk."""

    def __init__(self, out: str) -> None:
        self._url = out.rstrip("/") if is_remote(out) else ""
        if self._url:
            self.names = set(list_objects(self._url, "OUT"))
        else:
            self._folder = require_folder(Path(out), "OUT")
            files = (path for path in self._folder.rglob("*") if path.is_file())
            self.names = {path.relative_to(self._folder).as_posix() for path in files}

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Give the file `name`, fetched where it must be."""
        if not self._url:
            yield self._folder / name
            return
        with tempfile.TemporaryDirectory(prefix="data_prep-") as folder:
            to = Path(folder, name.rsplit("/", 1)[-1])
            if reason := fetch(join(self._url, name), to):
                raise UserError(f"{name}: {reason}; the set changed while it was checked")
            yield to

    def json(self, name: str) -> Any:
        """Read a JSON file; None where it is not JSON."""
        with self.file(name) as path:
            try:
                return json.loads(path.read_bytes())
            except ValueError:
                return None


_Shards = dict[str, tuple[str, int, dict[str, Any]]]
"""Name of a shard -> its index's folder, the place of its first record there, and what the index says of it."""


def _read_indexes(place: _Place, indexes: list[str]) -> tuple[_Shards, dict[str, int], list[str]]:
    """Read the indexes, the inner ones first: a merged one repeats the shards of those below it."""
    from maskedclip_composer.data.index import listed_shards

    shards: _Shards = {}
    counts: dict[str, int] = {}
    findings = []
    for name in sorted(indexes, key=lambda name: -name.count("/")):
        folder = name.removesuffix(INDEX)
        with place.file(name) as file:
            raw = file.read_bytes()
        try:
            listed = listed_shards(raw)
        except ValueError as error:
            findings.append(f"{name}: is not an index ({error}); convert again, or merge the indexes again")
            continue
        start = 0
        for shard in listed:
            path = folder + shard["raw_data"]["basename"]
            known = shards.setdefault(path, (folder, start, shard))
            if known[2]["samples"] != shard["samples"] or known[2]["raw_data"]["bytes"] != shard["raw_data"]["bytes"]:
                findings.append(f"{path}: {name} and the index beside it differ; merge the indexes again")
            start += shard["samples"]
        counts[folder] = start
    return shards, counts, findings


def _files(folder: str, shard: dict[str, Any]) -> list[str]:
    return [folder + data["basename"] for data in (shard["raw_data"], shard.get("zip_data")) if data]


def _check_shard(
    place: _Place, name: str, folder: str, shard: dict[str, Any], decode: bool, hashes: list[str] | None
) -> Iterator[str]:
    from streaming.base.compression import decompress
    from streaming.base.hashing import get_hash

    kept = (data for data in (shard["raw_data"], shard.get("zip_data")) if data)
    stored = next((data for data in kept if folder + data["basename"] in place.names), None)
    if stored is None:
        yield f"{name}: is missing; copy it again, or convert again"
        return
    with place.file(folder + stored["basename"]) as path:
        data = path.read_bytes()
    wrong = "" if len(data) == stored["bytes"] else f"has {len(data)} bytes, its index says {stored['bytes']}"
    for algorithm, expected in stored["hashes"].items():
        wrong = wrong or ("" if get_hash(algorithm, data) == expected else f"its {algorithm} is not that of its index")
    if wrong:
        yield f"{name}: {wrong}; copy it again, or convert again"
        return
    if not stored["hashes"]:
        yield f"{name}: its index has no hash; convert again, or write it with hashes=['xxh64']"
    if decode:
        raw = data if stored is shard["raw_data"] else decompress(shard["compression"], data)
        yield from _check_records(name, shard, raw, hashes)


def _check_records(name: str, shard: dict[str, Any], raw: bytes, hashes: list[str] | None) -> Iterator[str]:
    from streaming.base.format import reader_from_json

    with tempfile.TemporaryDirectory(prefix="data_prep-") as folder:
        raw_data = shard["raw_data"] | {"basename": "shard.mds"}
        plain = shard | {"raw_data": raw_data, "zip_data": None, "compression": None}
        Path(folder, "shard.mds").write_bytes(raw)
        reader = reader_from_json(folder, None, plain)
        for number in range(shard["samples"]):
            try:
                sample = reader[number]
                with open_picture(sample["image"]) as image:
                    image.load()
                same = image.size == (sample["width"], sample["height"])
                wrong = "" if same else "its photograph is not of the size that the record says"
                if not wrong and hashes is not None and hashes[number : number + 1] != [sample["sha256"]]:
                    wrong = f"its sha256 is not that of {NAME}"
            except Exception as error:  # a broken photograph or record can raise anything
                wrong = f"cannot be decoded: {error}"
            if wrong:
                yield f"{name}: record {number}: {wrong}; convert again"


def _check_counts(place: _Place, below: str, counts: dict[str, int], hashes: dict[str, list[str]]) -> Iterator[str]:
    """Hold indexes, report and manifest of one conversion against each other; fill `hashes` by folder of shards."""
    report = place.json(below + REPORT)
    if not isinstance(report, dict) or "splits" not in report:
        yield f"{below}{REPORT}: is no report of a conversion; convert again"
        return
    where = {split: f"{below}{split}/" if split else below for split in report["splits"]}
    for split, folder in where.items():
        said, found = report["splits"][split]["stored"], counts.get(folder)
        if found != said:
            yield f"{folder}{INDEX}: has {found or 'no'} records, {below}{REPORT} says {said}; convert again"
    if below + NAME not in place.names:
        yield f"{below}{NAME}: is missing; copy it again, or convert again"
        return
    import pyarrow
    import pyarrow.parquet

    statuses: Counter[str] = Counter()
    labels: dict[str, Counter[str]] = {split: Counter() for split in where}
    reasonless = 0
    own: dict[str, list[str]] = {}  # a build's manifest names the records of its sets once more
    columns = ["status", "reason", "folder", "position", "sha256", "label", "text_categories"]
    try:
        with place.file(below + NAME) as path, pyarrow.parquet.ParquetFile(path) as file:
            if not any(file.schema_arrow.equals(schema) for schema in (SCHEMA, BUILD_SCHEMA)):
                yield f"{below}{NAME}: has other columns than this version writes; convert again"
                return
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    statuses[row["status"]] += 1
                    reasonless += row["status"] != STORED and not row["reason"]
                    if row["status"] != STORED:
                        continue
                    of_folder = own.setdefault(where.get(row["folder"], ""), [])
                    if row["position"] != len(of_folder):
                        yield (
                            f"{below}{NAME}: {row['folder'] or 'top'}: position {row['position']} follows "
                            f"{len(of_folder) - 1}; convert again"
                        )
                        return
                    if not re.fullmatch(r"[0-9a-f]{64}", row["sha256"]):
                        yield f"{below}{NAME}: position {row['position']} has no sha256; convert again"
                    of_folder.append(row["sha256"])
                    labels.setdefault(row["folder"], Counter()).update(labels_of(row))
    except (pyarrow.ArrowException, OSError) as error:
        yield f"{below}{NAME}: is not readable Parquet: {error}; copy it again, or convert again"
        return
    hashes |= own
    for status in STATUSES:
        said = report.get(status, 0)
        if statuses[status] != said:
            yield f"{below}{NAME}: has {statuses[status]} rows {status}, {REPORT} says {said}; convert again"
    if reasonless:
        yield f"{below}{NAME}: {reasonless} rows are not stored and give no reason; convert again"
    for split, counted in labels.items():
        if split in report["splits"] and dict(counted) != report["splits"][split]["labels"]:
            yield f"{below}{NAME}: labels of {split or 'the set'} are not counted as in {REPORT}; convert again"
