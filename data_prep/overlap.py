"""The command `overlap`: photographs and patients that prepared sets, or the splits of one, have in common."""

import argparse
import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from data_prep.fingerprint import BYTES, NEAR, distances
from data_prep.overlap_page import page
from data_prep.relations import hints
from data_prep.shards import Shards
from maskedclip_composer.data.cells import inert
from maskedclip_composer.data.folders import require_folder
from maskedclip_composer.data.records import NAME, STORED
from maskedclip_composer.errors import UserError

EXACT, NEAR_COPY, PATIENT = "exact", "near", "same patient"
_KINDS = (EXACT, NEAR_COPY, PATIENT)
_READ = ("dataset", "image", "split", "patient", "label", "label_name", "text_categories", "sha256", "phash")
_SIDE = ("set", "dataset", "image", "split", "label", "patient", "sha256")
_PLACE = ("folder", "position")
COLUMNS = ("kind", "distance", *(f"{side}_{name}" for side in "ab" for name in _SIDE), "conflict")
"""Of overlap.csv."""

MOST = 5_000_000
"""Pairs of a kind that are held; a thousand hazy photographs that look alike make half a million."""
_FARTHEST = 64  # bits: between unrelated photographs half of all 256 differ, and the report would drown
_SHOWN = 20  # lines of the summary


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "overlap",
        help="find photographs and patients that prepared sets, or splits of one, have in common",
        description="Compare prepared sets with each other and each with itself: byte-identical files, near copies by "
        "the perceptual hash, photographs of one patient in different sets or splits.",
        epilog="Exit status: 0 no photograph of a split named test recurs in another split or set; 1 one does; 2 wrong "
        "input, nothing was written.",
    )
    parser.add_argument("sets", nargs="+", type=Path, metavar="SET", help=f"folder with a {NAME} at its top")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for overlap.csv and overlap.html")
    parser.add_argument(
        "--distance", type=int, default=NEAR, metavar="BITS", help="of 256, up to which is near (default: %(default)s)"
    )
    parser.add_argument(
        "--pairs", type=int, default=200, metavar="N", help="to show in overlap.html (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare as the command line says; return the exit status."""
    if not 0 <= args.distance <= _FARTHEST:
        raise UserError(f"--distance {args.distance}: give bits from 0 to {_FARTHEST}")
    if args.pairs < 1:
        raise UserError(f"--pairs {args.pairs}: give a number from 1")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out}: is a file; give a folder")
    tables, roots = read_sets(args.sets)
    pairs = find_overlap(tables, args.distance)
    args.out.mkdir(parents=True, exist_ok=True)
    _replace(args.out / "overlap.csv", _csv(pairs))
    shards = {name: Shards(root) for name, root in roots.items()}
    shown = pairs.slice(0, args.pairs).to_pylist()
    _replace(args.out / "overlap.html", page(shown, len(pairs), list(tables), args.distance, shards))
    print(_summary(pairs, tables))
    print(f"written: {args.out / 'overlap.csv'}, {args.out / 'overlap.html'}")
    touching = sum(pairs["test"].to_pylist())
    if touching:
        print(f"TEST DATA TOUCHED: in {touching} pairs a photograph of split test meets another split or set")
        return 1
    print("no photograph of a split named test meets another split or set")
    return 0


def read_sets(folders: list[Path]) -> tuple[dict[str, pyarrow.Table], dict[str, Path]]:
    """Read the stored records of prepared sets.

    A folder that joins several sets (subfolders such as paired/eyepacs) gives one table for each of them.

    Returns:
        Tables by name of the set, and the folder that each one's shards lie below.

    Raises:
        UserError: A folder is missing, given twice, or was not prepared.
    """
    resolved = [require_folder(folder, "set") for folder in folders]
    tables, roots = {}, {}
    for given, root in zip(folders, resolved, strict=True):
        if resolved.count(root) > 1:
            raise UserError(f"set {given}: is given twice; a set is compared with itself in any case")
        unique = [other.name for other in resolved].count(root.name) == 1
        label = root.name if unique else str(given)
        table = _read(root)
        folder = table["folder"].to_pandas()
        parts = folder.str.split("/").str[:2].str.join("/").where(folder.str.contains("/"), "")
        for part in sorted(parts.unique()) or [""]:
            name = f"{label}/{part}" if part else label
            tables[name], roots[name] = table.filter(pyarrow.array(parts == part)), root
    return tables, roots


def _read(root: Path) -> pyarrow.Table:
    again = "prepare the set again with `python -m data_prep prepare` or `manifest`"
    if not (root / NAME).is_file():
        raise UserError(f"set {root}: holds no {NAME}; give the --out folder of a finished preparation, or {again}")
    try:
        # Not read_table, which takes folders such as a=b on the way for columns.
        with pyarrow.parquet.ParquetFile(root / NAME) as file:
            table = file.read(columns=["status", *_READ, *_PLACE]).select(["status", *_READ, *_PLACE])
    except (pyarrow.ArrowInvalid, KeyError) as error:
        raise UserError(f"{root / NAME}: cannot be read ({error}); {again}") from error
    return table.filter(pc.field("status") == STORED)


def find_overlap(tables: Mapping[str, pyarrow.Table], distance: int) -> pyarrow.Table:
    """Find pairs of records that are the same file, look alike or are of one patient, the gravest first.

    A pair has the first kind that fits: exact (equal sha256), near (perceptual hashes within `distance`), same patient
    (of the same data set, in different sets or splits).

    Args:
        tables: Stored records by name of the set, with columns of `records.SCHEMA`.
        distance: Bits of 256.

    Returns:
        `COLUMNS`; folder and position of both; `test`: whether a photograph of a split named test, in a folder of that
        name, meets another split or set. Sets for pre-training keep the official split as a remark and are read whole.
        Distance is null where a photograph has no hash; conflict: both are labelled, and differently.

    Raises:
        UserError: There are more than `MOST` pairs of a kind.
    """
    records = pandas.concat([_frame(name, table) for name, table in tables.items()], ignore_index=True)
    hashed = np.flatnonzero(records["phash"].map(len) == BYTES)
    hashes = np.zeros((len(records), BYTES), np.uint8)
    hashes[hashed] = np.frombuffer(b"".join(records["phash"].iloc[hashed]), np.uint8).reshape(-1, BYTES)

    near = hashed[near_pairs(hashes[hashed], distance)]
    found = pandas.concat(
        [
            _equal(records, ["sha256"]).assign(kind=0),
            pandas.DataFrame(dict(zip("ij", near.T, strict=True))).assign(kind=1),
            _of_patients(records).assign(kind=2),
        ]
    ).drop_duplicates(["i", "j"])  # keeps the first kind
    i, j = found["i"].to_numpy(np.int64), found["j"].to_numpy(np.int64)

    known = np.isin(i, hashed) & np.isin(j, hashed)
    bits = np.bitwise_count(hashes[i] ^ hashes[j]).sum(axis=1, dtype=np.int64)
    one, other = (records.iloc[side].reset_index(drop=True) for side in (i, j))
    apart = (one["set"] != other["set"]) | (one["split"] != other["split"])
    pairs = pandas.DataFrame(
        {"rank": found["kind"].to_numpy(), "distance": pandas.array(bits, "Int64"), "i": i, "j": j}
        | {f"a_{name}": one[name] for name in (*_SIDE, *_PLACE)}
        | {f"b_{name}": other[name] for name in (*_SIDE, *_PLACE)}
        | {
            "conflict": (one["label"] != "") & (other["label"] != "") & (one["label"] != other["label"]),
            "test": apart & (_is_test(one) | _is_test(other)),
        }
    )
    pairs.loc[~known, "distance"] = pandas.NA
    pairs["kind"] = [_KINDS[rank] for rank in pairs["rank"]]
    pairs = pairs.sort_values(
        ["test", "rank", "conflict", "distance", "i", "j"], ascending=[False, True, False, True, True, True]
    )
    sides = [
        (f"{s}_{n}", pyarrow.int64() if n == "position" else pyarrow.string()) for s in "ab" for n in (*_SIDE, *_PLACE)
    ]
    last = [("conflict", pyarrow.bool_()), ("test", pyarrow.bool_())]
    schema = pyarrow.schema([("kind", pyarrow.string()), ("distance", pyarrow.int64()), *sides, *last])
    return pyarrow.Table.from_pandas(pairs[schema.names], schema, preserve_index=False)


def _frame(name: str, table: pyarrow.Table) -> pandas.DataFrame:
    frame = table.select([*_READ, *_PLACE]).to_pandas()
    # Names of categories are common to all sets, codes are not; pairs have the categories of their texts.
    texts = pandas.Series([" | ".join(sorted(filter(None, texts))) for texts in frame["text_categories"]], dtype=str)
    label = frame["label_name"].where(frame["label_name"] != "", frame["label"])
    return frame.assign(set=name, label=label.where(label != "", texts)).drop(columns=["label_name", "text_categories"])


def _is_test(records: pandas.DataFrame) -> pandas.Series:
    return (records["split"] == "test") & (records["folder"].str.split("/").str[-1] == "test")


def _refuse(pairs: int, of: str) -> None:
    if pairs > MOST:
        raise UserError(f"more than {MOST:,} pairs {of}; compare fewer sets at a time, or lower --distance")


def _equal(records: pandas.DataFrame, keys: list[str]) -> pandas.DataFrame:
    """Pair the rows that agree in `keys`, the last of which must not be empty."""
    some = records.loc[(records[keys[-1]] != "") & records.duplicated(keys, keep=False), keys]
    sizes = some.groupby(keys).size()
    _refuse(int((sizes * (sizes - 1) // 2).sum()), f"of one {keys[-1]}")
    some = some.rename_axis("i").reset_index()
    joined = some.merge(some.rename(columns={"i": "j"}), on=keys)
    return joined.loc[joined["i"] < joined["j"], ["i", "j"]].astype(np.int64)


def _of_patients(records: pandas.DataFrame) -> pandas.DataFrame:
    """Pair the rows of one patient that lie in different sets or splits."""
    records = records.assign(place=records["set"] + "\0" + records["split"])
    places = records.groupby(["dataset", "patient"])["place"].transform("nunique")
    pairs = _equal(records.iloc[np.flatnonzero(places > 1)], ["dataset", "patient"])
    place = records["place"].to_numpy()
    return pairs.iloc[np.flatnonzero(place[pairs["i"]] != place[pairs["j"]])]


def near_pairs(hashes: NDArray[np.uint8], distance: int, *, block: int = 32768) -> NDArray[np.int64]:
    """Find the pairs of rows of `hashes` [photographs, 32] that differ in at most `distance` bits.

    Each row is held against blocks of the later rows: first half of its bits, which rules nearly all of them out, then
    the rest. Words of a block lie one after the other, so a block stays in the cache and memory does not grow.

    Returns:
        Positions i < j [pairs, 2], ordered.

    Raises:
        UserError: There are more than `MOST`.
    """
    words = np.ascontiguousarray(hashes).view(np.uint64)
    found, count = [np.empty((0, 2), np.int64)], 0
    for start in range(0, len(words), block):
        first, second = (np.ascontiguousarray(words[start : start + block, n]) for n in (0, 1))
        later = hashes[start : start + block]
        for i in range(min(len(words), start + len(first))):
            skip = max(0, i + 1 - start)
            half = np.bitwise_count(first[skip:] ^ words[i, 0])
            half += np.bitwise_count(second[skip:] ^ words[i, 1])  # at most 128, in 8 bits
            j = np.flatnonzero(half <= distance) + skip
            if len(j):
                j = j[distances(later[j], hashes[i]) <= distance]
                found.append(np.stack([np.full(len(j), i), j + start], axis=1))
                count += len(j)
                _refuse(count, f"that differ in at most {distance} bits")
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _csv(pairs: pyarrow.Table) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for batch in pairs.select(COLUMNS).to_batches(4096):
        writer.writerows([_cell(value) for value in row.values()] for row in batch.to_pylist())
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return inert(value)
    return str(value).lower() if isinstance(value, bool) else value


def _replace(path: Path, text: Iterator[str]) -> None:
    aside = path.with_name(path.name + ".partial")
    with aside.open("w", encoding="utf-8", newline="") as file:
        file.writelines(text)
    os.replace(aside, path)


def _summary(pairs: pyarrow.Table, tables: Mapping[str, pyarrow.Table]) -> str:
    lines = [f"{name}: {len(table)} photographs" for name, table in tables.items()]
    names = [name for table in tables.values() for name in table["dataset"].unique().to_pylist()]
    lines += [f"hint: {text}" for text in hints(names)]
    if not len(pairs):
        return "\n".join([*lines, "no pairs"])
    frame = pairs.select(["kind", "a_set", "a_split", "b_set", "b_split", "conflict", "test"]).to_pandas()
    frame["a"], frame["b"] = (frame[f"{s}_set"] + " " + frame[f"{s}_split"] for s in "ab")
    # Groups in the order of the pairs: the gravest first.
    groups = frame.groupby(["kind", "a", "b"], sort=False)
    counts = groups.agg(pairs=("conflict", "size"), conflicts=("conflict", "sum"), test=("test", "any")).reset_index()
    counts["test"] = np.where(counts["test"], "TEST", "")
    rows = [list(counts.columns), *(list(map(str, row)) for row in counts.head(_SHOWN).itertuples(index=False))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"... {len(counts) - _SHOWN} more lines"] if len(counts) > _SHOWN else []
    return "\n".join([*lines, f"{len(pairs)} pairs, {frame['conflict'].sum()} with different labels"])
