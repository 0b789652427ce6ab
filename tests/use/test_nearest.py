import numpy as np
import pyarrow.parquet
import pytest

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.embedding_table import rows, schema
from maskedclip_composer.use.nearest import nearest
from maskedclip_composer.use.one_photograph import Photograph


def write(path, features, unreadable=()):
    wanted = schema((), {"features": features.shape[1]}, {})
    photographs = [
        Photograph(name=str(number), columns={}, reason="broken" if number in unreadable else "")
        for number in range(len(features))
    ]
    read = np.delete(features, list(unreadable), axis=0)
    pyarrow.parquet.write_table(rows(photographs, {"features": read}, wanted), path)
    return path


@pytest.mark.parametrize("rows_at_once", [7, 1000])
def test_hits_are_those_of_all_cosines_sorted(tmp_path, rows_at_once):
    rng = np.random.default_rng(0)
    features, queries = rng.normal(size=(100, 12)).astype(np.float32), rng.normal(size=(3, 12)).astype(np.float32)
    unreadable = (3, 50, 99)
    index = write(tmp_path / "index.parquet", features, unreadable)
    found, scores = nearest(index, "features", queries, 20, rows_at_once=rows_at_once)
    for query, own, values in zip(queries, found, scores, strict=True):
        cosines = [float(query @ row) / np.linalg.norm(query) / np.linalg.norm(row) for row in features]
        expected = sorted((row for row in range(100) if row not in unreadable), key=lambda row: -cosines[row])[:20]
        assert own.tolist() == expected
        np.testing.assert_allclose(values, [cosines[row] for row in expected], atol=1e-6)


def test_of_equal_photographs_the_earlier_comes_first(tmp_path):
    features = np.tile(np.random.default_rng(0).normal(size=(1, 12)).astype(np.float32), (100, 1))
    features[::2] *= 3  # of another length, but the same direction
    index = write(tmp_path / "index.parquet", features)
    for rows_at_once in (7, 1000):
        found, _ = nearest(index, "features", features[:1], 30, rows_at_once=rows_at_once)
        assert found[0].tolist() == list(range(30))


def test_there_are_no_more_hits_than_photographs(tmp_path):
    index = write(tmp_path / "index.parquet", np.eye(3, dtype=np.float32), unreadable=(1,))
    found, scores = nearest(index, "features", np.eye(3, dtype=np.float32)[:1], 10)
    assert found.tolist() == [[0, 2]]
    assert scores.tolist() == [[1.0, 0.0]]


def test_features_that_are_not_there_are_said(tmp_path):
    index = write(tmp_path / "index.parquet", np.eye(3, dtype=np.float32))
    with pytest.raises(UserError, match="no column image_features"):
        nearest(index, "image_features", np.eye(3, dtype=np.float32), 1)
    with pytest.raises(UserError, match="has 3 numbers each, the model 2"):
        nearest(index, "features", np.eye(2, dtype=np.float32), 1)
