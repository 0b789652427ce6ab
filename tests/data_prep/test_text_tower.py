import subprocess
import sys

import pytest
import torch
from streaming import MDSWriter

from data_prep.text_tower import read_texts
from tests.data_prep.drawing import run, tree

TEXTS = [["normal fundus"], ["moderate non proliferative retinopathy", "drusen"], ["Cataract"], ["normal fundus"]]


@pytest.fixture
def shards(tmp_path):
    columns = {"texts": "json", "text_kinds": "json"}
    with MDSWriter(columns=columns, out=str(tmp_path / "shards"), size_limit=200) as writer:
        for texts in TEXTS:
            writer.write({"texts": texts, "text_kinds": ["sentence"] * len(texts)})
    return tmp_path / "shards"


def test_tower_loads_like_a_downloaded_one(tmp_path, shards, capsys):
    from transformers import AutoModel, AutoTokenizer

    arguments = ("--shards", shards, "--width", "32", "--heads", "4", "--vocab", "120")
    assert run("text-tower", *arguments, "--out", tmp_path / "text") == 0
    assert "4 distinct texts" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "text")
    model = AutoModel.from_pretrained(tmp_path / "text")
    flat = [text for texts in TEXTS for text in texts]
    tokens = tokenizer(flat, padding=True, return_tensors="pt")
    assert not (tokens["input_ids"] == tokenizer.unk_token_id).any()
    assert tokenizer.batch_decode(tokens["input_ids"], skip_special_tokens=True) == [text.lower() for text in flat]
    assert model(**tokens).last_hidden_state.shape == (5, tokens["input_ids"].shape[1], 32)
    assert model.config.vocab_size == len(tokenizer) <= 120
    assert (model.config.num_hidden_layers, model.config.num_attention_heads) == (2, 4)


def test_vocabulary_covers_what_training_makes_of_a_category(tmp_path):
    with MDSWriter(columns={"texts": "json", "text_kinds": "json"}, out=str(tmp_path / "shards")) as writer:
        writer.write({"texts": ["glaucoma", "case 4"], "text_kinds": ["category", "sentence"]})
    texts = set(read_texts(tmp_path / "shards"))
    assert {"case 4", "glaucoma in a fundus photograph", "A fundus image showing a thinned neuroretinal rim"} <= texts
    assert all("glaucoma" in text or "fundus" in text or "retina" in text for text in texts - {"case 4"})


def test_same_seed_same_files_in_any_process(tmp_path, shards):
    arguments = ["text-tower", "--shards", str(shards), "--width", "16", "--vocab", "110", "--out"]
    assert run(*arguments, tmp_path / "a") == 0
    state = torch.get_rng_state()
    subprocess.run([sys.executable, "-m", "data_prep", *arguments, str(tmp_path / "b")], check=True)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert run(*arguments, tmp_path / "c", "--seed", "1") == 0
    different = {name for name, data in tree(tmp_path / "c").items() if data != tree(tmp_path / "a")[name]}
    assert different == {"model.safetensors"}
    assert torch.equal(torch.get_rng_state(), state)


def test_errors(tmp_path, shards, capsys):
    def error(*arguments):
        assert run("text-tower", *arguments) == 2
        return capsys.readouterr().err

    out = ("--out", tmp_path / "text")
    assert "a multiple of the heads" in error("--shards", shards, *out, "--width", "30", "--heads", "4")
    assert "at least 100 tokens" in error("--shards", shards, *out, "--vocab", "5")
    assert "give one of its splits: shards" in error("--shards", tmp_path, *out)
    assert "exists" in error("--shards", shards, "--out", shards)
    assert "no earlier text tower" in error("--shards", shards, "--out", shards, "--overwrite")
    with MDSWriter(columns={"label": "str"}, out=str(tmp_path / "labelled")) as writer:
        writer.write({"label": "1"})
    assert "has no columns texts and text_kinds" in error("--shards", tmp_path / "labelled", *out)
    assert not (tmp_path / "text").exists()
