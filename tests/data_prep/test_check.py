import json

import pyarrow.parquet
import pytest

from tests.data_prep.drawing import run, save_retinas, write_csv


@pytest.fixture
def prepared(tmp_path):
    names = save_retinas(tmp_path / "images", 6)
    rows = [{"image": n, "label": str(i % 2), "split": ("train", "test")[i % 2]} for i, n in enumerate(names)]
    table = write_csv(tmp_path / "t.csv", [*rows, {"image": "none.jpg", "label": "0", "split": "train"}])
    options = ("--licence", "CC0", "--part", "2", "--workers", "1", "--max-bad", "1")
    assert run("manifest", "--csv", table, "--images", tmp_path / "images", "--out", tmp_path / "out", *options) == 0
    return tmp_path / "out"


def test_a_whole_set(prepared, capsys):
    assert run("check", prepared, "--decode") == 0
    out = capsys.readouterr().out
    assert "6 records in 4 shards, nothing wrong" in out
    assert "./: 6 stored, 1 quarantined, 0 left out; licence: CC0" in out


def edit_json(file, change):
    content = json.loads(file.read_bytes())
    change(content)
    file.write_text(json.dumps(content))


def flip(file):
    data = bytearray(file.read_bytes())
    data[-50] ^= 1
    file.write_bytes(data)


def replace_column(file, name, values):
    table = pyarrow.parquet.read_table(file)
    at = table.schema.get_field_index(name)
    pyarrow.parquet.write_table(table.set_column(at, table.schema.field(at), [values]), file)


DAMAGES = {
    "bit": (lambda out: flip(out / "train/shard.00000.mds"), "train/shard.00000.mds: its xxh64"),
    "cut": (lambda out: (out / "test/shard.00000.mds").write_bytes(b"x"), "test/shard.00000.mds: has 1 bytes"),
    "gone": (lambda out: (out / "test/shard.00001.mds").unlink(), "test/shard.00001.mds: is missing"),
    "left": (lambda out: (out / "train/shard.00007.mds").write_bytes(b""), "00007.mds: no index names it"),
    "index": (
        lambda out: edit_json(out / "test/index.json", lambda index: index["shards"].pop()),
        "test/index.json: has 2 records, report.json says 3",
    ),
    "no index": (lambda out: (out / "test/index.json").write_text("["), "test/index.json: is not an index"),
    "labels": (
        lambda out: edit_json(out / "report.json", lambda r: r["splits"]["train"].update(labels={"0": 2})),
        "labels of train are not counted",
    ),
    "left out": (lambda out: edit_json(out / "report.json", lambda r: r.update(left_out=3)), "0 rows left_out"),
    "manifest": (lambda out: (out / "manifest.parquet").write_bytes(b"x"), "is not readable Parquet"),
    "no manifest": (lambda out: (out / "manifest.parquet").unlink(), "manifest.parquet: is missing"),
    "reasons": (
        lambda out: replace_column(out / "manifest.parquet", "reason", [""] * 7),
        "1 rows are not stored and give no reason",
    ),
    "sha256": (lambda out: replace_column(out / "manifest.parquet", "sha256", ["a"] * 7), "has no sha256"),
    "positions": (lambda out: replace_column(out / "manifest.parquet", "position", [0] * 7), "position 0 follows 0"),
    "other photographs": (
        lambda out: replace_column(out / "manifest.parquet", "sha256", ["a" * 64] * 7),
        "record 0: its sha256 is not that of manifest.parquet",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(prepared, damage, capsys):
    harm, finding = DAMAGES[damage]
    harm(prepared)
    assert run("check", prepared, "--decode") == 1
    assert finding in capsys.readouterr().err


def test_records_are_decoded_where_nothing_is_hashed(prepared, capsys):
    file = prepared / "test" / "shard.00000.mds"
    data = file.read_bytes()
    at = data.index(b"\xff\xd8\xff")
    file.write_bytes(data[:at] + b"\0\0\0" + data[at + 3 :])
    edit_json(prepared / "test/index.json", lambda index: index["shards"][0]["raw_data"].update(hashes={}))
    assert run("check", prepared, "--decode") == 1
    found = capsys.readouterr().err
    assert "test/shard.00000.mds: its index has no hash" in found
    assert "record 0: cannot be decoded" in found


def test_pickles_are_not_loaded(prepared, capsys):
    def pickled(index):
        index["shards"][0]["column_encodings"][0] = "pkl"

    edit_json(prepared / "test/index.json", pickled)
    assert run("check", prepared) == 1
    assert "test/index.json: is not an index (ValueError: " in capsys.readouterr().err


def test_merged_indexes(prepared, capsys):
    from streaming.base.util import merge_index

    merge_index(str(prepared), keep_local=True)
    assert "train/shard.00000.mds" in (prepared / "index.json").read_text()
    assert run("check", prepared, "--decode") == 0
    assert "6 records in 4 shards" in capsys.readouterr().out


def test_what_is_no_set_ends_with_status_2(tmp_path, capsys):
    assert run("check", tmp_path) == 2
    assert "holds no index.json" in capsys.readouterr().err
    assert run("check", tmp_path / "none") == 2
