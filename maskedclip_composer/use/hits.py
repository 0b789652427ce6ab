"""Hits of a search, with what the table says of each photograph."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from jaxtyping import Int

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.csv_table import csv_text
from maskedclip_composer.use.embedding_table import OWN
from maskedclip_composer.use.nearest import nearest
from maskedclip_composer.use.one_photograph import Photographs
from maskedclip_composer.use.photographs import open_photographs
from maskedclip_composer.use.queries import Queries, Query
from maskedclip_composer.use.transform import PhotographTransform

_COLUMNS = ("query", "rank", "score", "image", "is_query")
_REMEDY = "Give the photographs that were embedded, embed these, or leave --page out."


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One photograph of the table.

    Attributes:
        rank: From 1.
        score: Cosine.
        row: Of the table.
        image: Name of the photograph.
        sha256: Of its file; empty where not known.
        is_query: Whether its file is the query's.
        columns: What is carried along.
    """

    rank: int
    score: float
    row: int
    image: str
    sha256: str
    is_query: bool
    columns: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Hits:
    """A query and what was found, the best first."""

    query: Query
    hits: list[Hit]


def search(index: Path, queries: Queries, top: int, *, rows_at_once: int = 16384) -> list[Hits]:
    """Return the hits of each query, in the order of the queries.

    Args:
        index: The table.
        queries: To search for.
        top: Hits of each query.
        rows_at_once: Rows of the table that are in memory.

    Raises:
        UserError: The table lacks the features; see `nearest`.
    """
    rows, scores = nearest(
        index, queries.column, np.stack([query.feature for query in queries.queries]), top, rows_at_once=rows_at_once
    )
    names = pyarrow.parquet.read_schema(index).names
    carried = [name for name in names if name not in OWN]
    known = _records(index, ["image", "sha256", *carried], np.unique(rows), rows_at_once)
    found = []
    for query, own_rows, own_scores in zip(queries.queries, rows, scores, strict=True):
        records = [known[row] for row in own_rows.tolist()]
        hits = [
            Hit(
                rank=rank,
                score=float(score),
                row=int(row),
                image=record["image"],
                sha256=record["sha256"],
                is_query=bool(query.sha256) and record["sha256"] == query.sha256,
                columns={name: record[name] for name in carried},
            )
            for rank, (row, score, record) in enumerate(zip(own_rows, own_scores, records, strict=True), start=1)
        ]
        found.append(Hits(query=query, hits=hits))
    return found


def _records(
    index: Path, columns: list[str], rows: Int[np.ndarray, " rows"], rows_at_once: int
) -> dict[int, dict[str, Any]]:
    """Return the wanted rows of a table, by their number; a part of it is in memory at a time."""
    found, start = {}, 0
    for batch in pyarrow.parquet.ParquetFile(index).iter_batches(batch_size=rows_at_once, columns=columns):
        own = rows[(rows >= start) & (rows < start + len(batch))]
        found |= dict(zip(own.tolist(), batch.take(pyarrow.array(own - start)).to_pylist(), strict=True))
        start += len(batch)
    return found


def hits_csv(found: list[Hits]) -> str:
    """Write hits as CSV, query by query and by rank; a carried column that is called as ours gets `index.` before."""
    carried = list(dict.fromkeys(name for of_query in found for hit in of_query.hits for name in hit.columns))
    header = [*_COLUMNS, *(f"index.{name}" if name in _COLUMNS else name for name in carried)]
    rows = [
        [of_query.query.words, hit.rank, hit.score, hit.image, str(hit.is_query).lower(), *hit.columns.values()]
        for of_query in found
        for hit in of_query.hits
    ]
    return csv_text(header, rows)


def open_indexed(index: Path, photos: str, images: str | None) -> Photographs:
    """Open the photographs that a table was made of, to look at them.

    Args:
        index: The table.
        photos: Where they are now.
        images: Folder that a table's paths start from.

    Raises:
        UserError: They are not there, or are more or fewer.
    """
    try:
        found = open_photographs(photos, images)
    except UserError as error:
        raise UserError(f"--page: {error}\nSay where the photographs of {index} are now: --photos PHOTOS.") from error
    rows = pyarrow.parquet.read_metadata(index).num_rows
    if len(found) != rows:
        raise UserError(f"--page: {photos} holds {len(found)} photographs, {index} was made of {rows}.\n{_REMEDY}")
    return found


def check_shown(index: Path, found: list[Hits], photographs: Photographs, transform: PhotographTransform) -> None:
    """Refuse to show another photograph than the one that was embedded; one that cannot be read may stay a gap.

    Args:
        index: The table.
        found: Queries with their hits.
        photographs: What `open_indexed` returned.
        transform: Of the model.

    Raises:
        UserError: Names the first that differs.
    """
    for hit in {hit.row: hit for of_query in found for hit in of_query.hits}.values():
        now, _ = photographs.read(hit.row, transform)
        if now.name != hit.image or (now.sha256 != hit.sha256 and not now.reason):
            raise UserError(
                f"--page: {now.name} is another photograph than {hit.image}, of which {index} was made.\n{_REMEDY}"
            )
