"""The rows of a table of embeddings that are nearest to a query: exact, and in memory that does not grow with it."""

from pathlib import Path

import numpy as np
import pyarrow.parquet
from jaxtyping import Float, Int

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.embedding_table import EMBEDDED

_DECIMALS = 6
"""Of a score. Features are in float32, whose products differ beyond with their place in a matrix: equal ones tie."""


def nearest(
    index: Path, column: str, queries: Float[np.ndarray, "queries dim"], top: int, *, rows_at_once: int = 16384
) -> tuple[Int[np.ndarray, "queries hits"], Float[np.ndarray, "queries hits"]]:
    """Return the rows with the highest cosine, and their cosines; of equal ones the earlier row comes first.

    Args:
        index: The table.
        column: Its features.
        queries: Features of the same space, of any length.
        top: Hits of each query; fewer where the table has fewer photographs.
        rows_at_once: Rows that are in memory.

    Raises:
        UserError: The table has no such column, or features of another width.
    """
    file = pyarrow.parquet.ParquetFile(index)
    if column not in file.schema_arrow.names:
        raise UserError(f"{index} has no column {column}.\nEmbed the photographs again with --space both.")
    dim = file.schema_arrow.field(column).type.list_size
    if dim != queries.shape[1]:
        raise UserError(f"{index}: {column} has {dim} numbers each, the model {queries.shape[1]}.\nEmbed again.")
    wanted = _unit(queries).T
    rows = np.empty((len(queries), 0), dtype=np.int64)
    scores = np.empty((len(queries), 0))
    start = 0
    for batch in file.iter_batches(batch_size=rows_at_once, columns=["status", column]):
        embedded = np.flatnonzero(np.array(batch.column("status").to_pylist()) == EMBEDDED)
        features = batch.column(column).flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)[embedded]
        found = np.round(_unit(features) @ wanted, _DECIMALS).T
        rows = np.hstack([rows, np.broadcast_to(embedded + start, found.shape)])
        scores = np.hstack([scores, found])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        rows, scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)
        start += len(batch)
    return rows, scores


def _unit(features: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    features = features.astype(np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
