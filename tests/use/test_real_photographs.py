"""The photographs below FUNDUS_DATA: one original file of each of five cameras."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from tests.data_prep.drawing import run as data_prep
from tests.use.conftest import embed

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    place = os.environ.get("FUNDUS_DATA")
    if not place:
        pytest.skip("FUNDUS_DATA does not name the folder of photographs")
    folder = tmp_path_factory.mktemp("originals")
    for camera in sorted((Path(place).resolve() / "prep_samples").iterdir()):
        first = sorted(camera.iterdir())[0]
        (folder / f"{camera.name}{first.suffix}").write_bytes(first.read_bytes())
    return folder


def test_originals_and_their_shards_have_the_same_features(originals, run_folder, tmp_path):
    assert data_prep("manifest", "--images", originals, "--out", tmp_path / "set", "--workers", "1") == 0
    assert embed(originals, tmp_path / "files.parquet", run_folder) == 0
    assert embed(tmp_path / "set", tmp_path / "records.parquet", run_folder) == 0
    files, records = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("files", "records"))
    assert files["image"].to_pylist() == records["image"].to_pylist()
    assert set(files["status"].to_pylist()) == {"embedded"}
    for name in ("features", "image_features"):
        one, other = (np.array(table[name].to_pylist()) for table in (files, records))
        np.testing.assert_array_equal(one, other)
        assert len(np.unique(one, axis=0)) == 5  # five photographs, five features
