import json
import shutil
from pathlib import Path

import pytest

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.index import read_index
from maskedclip_composer.data.schema import COLUMNS
from maskedclip_composer.data.streams import open_streams
from maskedclip_composer.errors import UserError


def open_one(folder: Path, kind: str = "paired", batch_size: int = 4, **stream):
    config = DataConfig(**{kind: StreamConfig(remote=str(folder), batch_size=batch_size, **stream)})  # pyright: ignore
    return open_streams(config)[0]


def complaint(folder: Path, kind: str = "paired", **stream) -> str:
    with pytest.raises(UserError) as caught:
        open_one(folder, kind, **stream)
    return str(caught.value)


@pytest.fixture
def copy(sets, tmp_path) -> Path:
    return Path(shutil.copytree(sets["paired"], tmp_path / "paired"))


def test_the_index_is_read_as_written(sets):
    index = read_index(sets["unpaired"], key="data.unpaired")
    files = list(sets["unpaired"].glob("shard.*"))
    assert (index.samples, index.shards) == (33, len(files))
    assert index.shards > 2
    assert index.bytes == sum(file.stat().st_size for file in files)
    assert index.columns == tuple(sorted(COLUMNS["unpaired"]))
    assert index.hash_name == "xxh64"


def test_a_set_without_hashes_is_read_without_checking_them(tmp_path, write_set):
    stream = open_one(write_set(tmp_path / "plain", "paired", 5, hashes=None))
    assert stream.index.hash_name is None


def test_a_split_is_a_subfolder(tmp_path, write_set):
    write_set(tmp_path / "train", "paired", 5)
    assert open_one(tmp_path, split="train").index.samples == 5


def test_a_missing_folder_and_a_folder_without_index_are_told_apart(tmp_path, copy):
    said = complaint(tmp_path / "nowhere")
    assert "data.paired: " in said
    assert "no such folder" in said
    assert "python -m data_prep" in said
    (copy / "index.json").unlink()
    assert "index.json does not exist (" in complaint(copy)
    assert "shard files)" in complaint(copy)


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 2}', '{"shards": [{"version": 1, "format": "mds"}]}'])
def test_a_file_that_is_no_index_is_named(copy, content):
    (copy / "index.json").write_text(content)
    assert f"{copy / 'index.json'} is not the index of a set of MDS shards" in complaint(copy)


def set_to(*path):
    """Set the value at the end of a path into an index's first shard."""
    *way, last, value = path

    def edit(shard):
        for step in way:
            shard = shard[step]
        shard[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (set_to("raw_data", "basename", "../x.mds"), "file '../x.mds' would lie outside"),
        (set_to("raw_data", "basename", "a/../../x.mds"), "would lie outside"),
        (set_to("raw_data", "basename", "/x.mds"), "would lie outside"),
        (set_to("raw_data", "basename", "..\\x.mds"), "would lie outside"),
        (set_to("raw_data", "basename", ""), "would lie outside"),
        (set_to("raw_data", "basename", 7), "TypeError"),
        (set_to("raw_data", "bytes", 1 << 40), "which no shard has"),
        (set_to("raw_data", "bytes", -1), "which no shard has"),
        (set_to("raw_data", "hashes", "xxh64", 7), "a hash that is no text"),
        (set_to("samples", 1 << 40), "samples in"),
        (set_to("samples", -1), "samples in"),
        (set_to("compression", "zstd"), "compression zstd and packed file None"),
        (set_to("column_encodings", 0, "pkl"), "has other columns than the first"),
    ],
)
def test_what_an_index_may_not_say_is_refused(copy, edit, says):
    index = json.loads((copy / "index.json").read_text())
    edit(index["shards"][-1])
    (copy / "index.json").write_text(json.dumps(index))
    assert says in complaint(copy)


@pytest.mark.parametrize(
    ("encoding", "says"),
    [("pkl", "would run code"), ("mystery", "unknown encoding mystery"), ("jpeg", "encoding jpeg instead of bytes")],
)
def test_encodings_that_training_does_not_read_are_refused(copy, encoding, says):
    index = json.loads((copy / "index.json").read_text())
    for shard in index["shards"]:
        shard["column_encodings"][shard["column_names"].index("image")] = encoding
    (copy / "index.json").write_text(json.dumps(index))
    assert says in complaint(copy)


def test_shards_may_lie_in_folders_below(copy):
    index = json.loads((copy / "index.json").read_text())
    first = index["shards"][0]["raw_data"]
    (copy / "part").mkdir()
    (copy / first["basename"]).rename(copy / "part" / "x.mds")
    first["basename"] = "part/x.mds"
    (copy / "index.json").write_text(json.dumps(index))
    assert open_one(copy).index.samples == 11


def test_an_empty_set_is_refused(copy):
    (copy / "index.json").write_text('{"version": 2, "shards": []}')
    assert "lists no sample" in complaint(copy)


def test_a_paired_stream_without_texts_names_the_columns_found(sets):
    said = complaint(sets["unpaired"])
    assert "no column texts, labels" in said
    assert "columns found: crop, dataset, " in said
    assert "as a paired set" in said


def test_a_set_of_an_earlier_version_is_to_be_prepared_again(tmp_path, write_set):
    columns = {name: kind for name, kind in COLUMNS["paired"].items() if name != "text_kinds"}
    said = complaint(write_set(tmp_path / "old", "paired", 5, columns=columns))
    assert "data.paired: its records have no column text_kinds" in said
    assert "earlier version; prepare it again with `python -m data_prep`" in said


def test_paired_records_serve_as_an_unpaired_stream(sets):
    assert open_one(sets["paired"], "unpaired").index.samples == 11


def test_a_stream_smaller_than_a_step_is_refused(sets):
    said = complaint(sets["paired"], batch_size=12)
    assert "data.paired.batch_size = 12" in said
    assert "only 11 samples" in said


def test_a_batch_that_does_not_divide_over_the_ranks_is_refused(sets, monkeypatch):
    for name, value in {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    said = complaint(sets["paired"], batch_size=4)
    assert "data.paired.batch_size = 4" in said
    assert "3 ranks" in said
    assert "for example 6" in said


def test_a_missing_and_a_short_shard_file_are_named_before_the_first_batch(copy):
    shard = copy / "shard.00001.mds"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert f"{shard} has {len(whole) - 1} bytes" in complaint(copy)
    shard.unlink()
    assert f"{shard} does not exist" in complaint(copy)


def test_of_a_compressed_set_the_compressed_files_must_be_there(tmp_path, write_set):
    folder = write_set(tmp_path / "zipped", "paired", 11, compression="zstd")
    assert open_one(folder).index.bytes == sum(file.stat().st_size for file in folder.glob("*.zstd"))
    (folder / "shard.00000.mds.zstd").rename(folder / "shard.00000.mds")
    assert "shard.00000.mds.zstd does not exist" in complaint(folder)
    assert json.loads((folder / "index.json").read_text())["shards"][0]["zip_data"]


def test_an_unknown_scheme_is_named():
    config = DataConfig(paired=StreamConfig(remote="ftp://host/set", local="/tmp/unused", batch_size=1))
    with pytest.raises(UserError, match=r"data\.paired\.remote = ftp://host/set"):
        open_streams(config)
