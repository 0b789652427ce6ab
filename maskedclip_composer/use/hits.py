"""Hits of a search, with what the table says of each photograph."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.csv_table import csv_text
from maskedclip_composer.use.embedding_table import OWN
from maskedclip_composer.use.nearest import nearest
from maskedclip_composer.use.one_photograph import Photographs
from maskedclip_composer.use.photographs import open_photographs
from maskedclip_composer.use.queries import Queries, Query

_COLUMNS = ("query", "rank", "score", "image", "is_query")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One photograph of the table.

    Attributes:
        rank: From 1.
        score: Cosine.
        row: Of the table.
        image: Name of the photograph.
        is_query: Whether its file is the query's.
        columns: What is carried along.
    """

    rank: int
    score: float
    row: int
    image: str
    is_query: bool
    columns: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Hits:
    """A query and what was found, the best first."""

    query: Query
    hits: list[Hit]


def search(index: Path, queries: Queries, top: int) -> list[Hits]:
    """Return the hits of each query, in the order of the queries.

    Raises:
        UserError: The table lacks the features; see `nearest`.
    """
    rows, scores = nearest(index, queries.column, np.stack([query.feature for query in queries.queries]), top)
    names = pyarrow.parquet.read_schema(index).names
    carried = [name for name in names if name not in OWN]
    known = pyarrow.parquet.read_table(index, columns=["image", "sha256", *carried])
    found = []
    for query, own_rows, own_scores in zip(queries.queries, rows, scores, strict=True):
        records = known.take(own_rows).to_pylist()
        hits = [
            Hit(
                rank=rank,
                score=float(score),
                row=int(row),
                image=record["image"],
                is_query=bool(query.sha256) and record["sha256"] == query.sha256,
                columns={name: record[name] for name in carried},
            )
            for rank, (row, score, record) in enumerate(zip(own_rows, own_scores, records, strict=True), start=1)
        ]
        found.append(Hits(query=query, hits=hits))
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


def open_indexed(index: Path, about: Mapping[str, Any], photos: str | None, images: str | None) -> Photographs:
    """Open the photographs that a table was made of, to look at them.

    Args:
        index: The table.
        about: What it says of itself.
        photos: Where they are now; None for where they were.
        images: Likewise of a table's paths.

    Raises:
        UserError: They are not there, or are others.
    """
    place = photos or about["photographs"]
    try:
        found = open_photographs(place, images or (about["images"] if photos is None else None))
    except UserError as error:
        raise UserError(f"--page: {error}\nSay where the photographs of {index} are now: --photos PHOTOS.") from error
    if found.fingerprint != about["plan"]["PHOTOS of sha256"]:
        raise UserError(
            f"--page: {place} holds other photographs than {index} was made of.\nGive --photos PHOTOS, embed again, "
            "or leave --page out."
        )
    return found
