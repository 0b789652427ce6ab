"""A set from elsewhere whose index asks for unpickling: nothing reads it."""

import json
import pickle
from pathlib import Path

import pytest
from streaming import LocalDataset, MDSWriter

from data_prep.shards import Shards
from data_prep.text_tower import read_texts
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.streams import open_streams
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.photographs import open_split
from tests.data_prep.drawing import run


class Harm:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def foreign(tmp_path):
    """A split whose records have all columns that any reader asks for, and one more."""
    texts = {"texts": ["normal"], "text_kinds": ["sentence"]}
    words = dict.fromkeys(("label", "source", "dataset", "patient", "sha256"), "x")
    record = {"image": b"x", **texts, **words, "zz": pickle.dumps(Harm(tmp_path / "trace"))}
    kinds = {bytes: "bytes", list: "json", str: "str"}
    with MDSWriter(out=str(tmp_path / "train"), columns={k: kinds[type(v)] for k, v in record.items()}) as writer:
        writer.write(record)
    index = tmp_path / "train" / "index.json"
    content = json.loads(index.read_bytes())
    for shard in content["shards"]:
        shard["column_encodings"][shard["column_names"].index("zz")] = "pkl"
    index.write_text(json.dumps(content))
    return tmp_path


def train(folder: Path) -> None:
    open_streams(DataConfig(unpaired=StreamConfig(remote=str(folder / "train"), batch_size=1)))


READERS = {
    "train": train,
    "train from a cache": lambda folder: open_streams(
        DataConfig(
            unpaired=StreamConfig(remote=f"file://{folder}/train", local=str(folder / "cache"), batch_size=1),
        )
    ),
    "evaluate": lambda folder: open_split(str(folder), "train", None, "nominal"),
    "text-tower": lambda folder: list(read_texts(folder / "train")),
    "contact sheet, overlap": lambda folder: Shards(folder).image("train", 0),
}


@pytest.mark.parametrize("reader", READERS)
def test_nothing_unpickles(foreign, reader):
    with pytest.raises(UserError, match="column zz has encoding pkl: to read it would run code"):
        READERS[reader](foreign)
    assert not (foreign / "trace").exists()


@pytest.mark.parametrize("option", [(), ("--decode",)])
def test_check_names_it(foreign, option, capsys):
    assert run("check", foreign, *option) == 1
    said = capsys.readouterr().err
    assert "train/index.json: is not an index (ValueError: column zz has encoding pkl" in said
    assert "remove it" not in said  # the shards, of which nothing is known
    assert not (foreign / "trace").exists()


def test_streaming_itself_would_run_it(foreign):
    LocalDataset(str(foreign / "train"))[0]
    assert (foreign / "trace").exists()
