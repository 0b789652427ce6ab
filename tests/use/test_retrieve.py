import csv
import re
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import torch.nn.functional as F

import maskedclip_composer
from maskedclip_composer.__main__ import main
from maskedclip_composer.use.embedding_table import read_about
from maskedclip_composer.use.hits import search
from maskedclip_composer.use.queries import embed_queries
from tests.model_run import write_run
from tests.use.conftest import GOOD, embed, prepared_at


def retrieve(index, out, model, *options) -> int:
    return main(
        [str(argument) for argument in ["retrieve", "--index", index, "--out", out, "--model", model, *options]]
    )


def read(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_text_finds_photographs_by_their_cosine(index, photographs, run_folder, tmp_path):
    texts = ["glaucoma", "a b c"]
    assert retrieve(index, tmp_path / "hits.csv", run_folder, "--text", *texts) == 0
    rows = read(tmp_path / "hits.csv")
    assert [row["query"] for row in rows] == [text for text in texts for _ in GOOD]
    model, transform, tokenizer = maskedclip_composer.load(run_folder)
    for text in texts:
        own = [row for row in rows if row["query"] == text]
        assert [row["rank"] for row in own] == ["1", "2", "3", "4"]
        assert {row["is_query"] for row in own} == {"false"}
        scores = [float(row["score"]) for row in own]
        assert scores == sorted(scores, reverse=True)
        feature = model.encode_text(**tokenizer(text))[0]
        for row, score in zip(own, scores, strict=True):
            image = model.encode_image(transform(photographs / row["image"])[None])[0]
            assert score == pytest.approx(float(F.cosine_similarity(feature, image, dim=0)), abs=2e-6)


def test_a_photograph_finds_itself_first_and_is_marked(index, photographs, run_folder, tmp_path, capsys):
    options = ["--image", photographs / GOOD[1], photographs / GOOD[2], "--top", "2"]
    assert retrieve(index, tmp_path / "hits.csv", run_folder, *options) == 0
    rows = read(tmp_path / "hits.csv")
    assert [(row["query"], row["rank"]) for row in rows] == [
        ("ü 右.png", "1"),
        ("ü 右.png", "2"),
        ("c.JPG", "1"),
        ("c.JPG", "2"),
    ]
    assert [row["is_query"] for row in rows] == ["true", "false", "true", "false"]
    assert [rows[0]["image"], rows[2]["image"]] == GOOD[1:3]
    assert float(rows[0]["score"]) == pytest.approx(1, abs=1e-6)
    assert "(the query)" in capsys.readouterr().out


def test_photographs_are_compared_in_the_masked_space_unless_said_otherwise(index, photographs, run_folder, tmp_path):
    model, transform, _ = maskedclip_composer.load(run_folder)
    images = [transform(photographs / name)[None] for name in (GOOD[0], GOOD[3])]
    for options, encode in ([], model.encode_features), (["--space", "clip"], model.encode_image):
        assert retrieve(index, tmp_path / "a.csv", run_folder, "--image", photographs / GOOD[0], *options) == 0
        found = {row["image"]: float(row["score"]) for row in read(tmp_path / "a.csv")}
        expected = F.cosine_similarity(*map(encode, images))
        assert found[GOOD[3]] == pytest.approx(float(expected), abs=2e-6)


def test_what_the_table_says_of_a_photograph_is_carried_along(photographs, run_folder, tmp_path):
    (tmp_path / "table.csv").write_text('image,rank,text\nc.JPG,7,"=1+1"\nd.tif,8,b\n')
    index = tmp_path / "index.parquet"
    assert embed(tmp_path / "table.csv", index, run_folder, "--images", photographs) == 0
    assert retrieve(index, tmp_path / "a.csv", run_folder, "--image", photographs / "c.JPG") == 0
    first = read(tmp_path / "a.csv")[0]
    assert (first["rank"], first["index.rank"], first["text"]) == ("1", "7", "'=1+1")


def test_the_page_shows_the_pictures_and_loads_nothing(index, photographs, run_folder, tmp_path):
    page = tmp_path / "hits.html"
    options = ["--text", "<b>fundus & photograph</b>", "--page", page, "--photos", photographs]
    assert retrieve(index, tmp_path / "a.csv", run_folder, *options) == 0
    text = page.read_text(encoding="utf-8")
    assert "<b>fundus" not in text
    assert "&lt;b&gt;fundus &amp; photograph" in text
    sources = re.findall(r'<img src="([^"]*)" alt="([^"]*)"', text)
    assert {alt.split(", rank")[0] for _, alt in sources} == {f"Photograph {name}" for name in GOOD}
    assert all(source.startswith("data:image/jpeg;base64,") for source, _ in sources)
    assert not re.search(r"https?://|<script|<link", text)
    options = ["--image", photographs / GOOD[0], "--page", page, "--photos", photographs]
    assert retrieve(index, tmp_path / "a.csv", run_folder, *options) == 0
    assert 'alt="Query photograph left eye.jpg"' in page.read_text(encoding="utf-8")


def test_the_page_wants_the_photographs_of_the_index(photographs, run_folder, tmp_path, capsys):
    folder = shutil.copytree(photographs, tmp_path / "then")
    index, page = tmp_path / "index.parquet", tmp_path / "a.html"
    assert embed(folder, index, run_folder) == 0
    now = folder.rename(tmp_path / "now")
    options = ["--text", "glaucoma", "--page", page]
    assert retrieve(index, tmp_path / "a.csv", run_folder, *options) == 2
    assert "--photos PHOTOS" in capsys.readouterr().err
    options += ["--photos", now]
    assert retrieve(index, tmp_path / "a.csv", run_folder, *options) == 0
    page.unlink()
    shutil.copy(now / "d.tif", now / "c.JPG")
    assert retrieve(index, tmp_path / "b.csv", run_folder, *options) == 2
    assert "c.JPG is another photograph than c.JPG" in capsys.readouterr().err
    (now / "c.JPG").rename(now / "b.JPG")
    assert retrieve(index, tmp_path / "b.csv", run_folder, *options) == 2
    assert "is another photograph than" in capsys.readouterr().err
    (now / "b.JPG").unlink()
    assert retrieve(index, tmp_path / "b.csv", run_folder, *options) == 2
    assert "holds 4 photographs" in capsys.readouterr().err
    assert not (tmp_path / "b.csv").exists()
    assert not page.exists()


def test_a_photograph_that_was_replaced_by_a_broken_one_leaves_a_gap(photographs, run_folder, tmp_path):
    folder = shutil.copytree(photographs, tmp_path / "folder")
    index, page = tmp_path / "index.parquet", tmp_path / "a.html"
    assert embed(folder, index, run_folder) == 0
    (folder / "c.JPG").write_bytes(b"")
    options = ["--text", "glaucoma", "--page", page, "--photos", folder]
    assert retrieve(index, tmp_path / "a.csv", run_folder, *options) == 0
    assert page.read_text().count("cannot be read") == 1


def test_another_model_is_refused(index, photographs, run_folder, text_tower, tmp_path, capsys):
    other = write_run(tmp_path, text_tower, "mlip")
    assert retrieve(index, tmp_path / "a.csv", other, "--text", "glaucoma") == 2
    assert "whose weights are not those of" in capsys.readouterr().err
    # The masked space depends on the encoder alone.
    alone = run_folder / "encoder.safetensors"
    assert retrieve(index, tmp_path / "a.csv", alone, "--image", photographs / GOOD[0]) == 0
    assert retrieve(index, tmp_path / "b.csv", run_folder, "--image", photographs / GOOD[0]) == 0
    assert read(tmp_path / "a.csv") == read(tmp_path / "b.csv")


def test_another_tokenizer_is_refused(index, photographs, run_folder, text_tower, tmp_path, capsys):
    other = shutil.copytree(text_tower, tmp_path / "tower")
    for file in (other / "tokenizer.json", other / "vocab.txt"):
        if file.is_file():  # two words change places: the vocabulary stays as large
            text = file.read_text().replace("glaucoma", "?").replace("fundus", "glaucoma").replace("?", "fundus")
            file.write_text(text)
    model = shutil.copytree(run_folder, tmp_path / "run")
    config = model / "config.yaml"
    config.write_text(config.read_text().replace(str(text_tower), str(other)))
    assert retrieve(index, tmp_path / "a.csv", model, "--text", "glaucoma") == 2
    assert "whose tokenizer is not that of" in capsys.readouterr().err
    options = ["--text", "glaucoma", "--model", str(model), "--out", str(tmp_path / "pictures")]
    assert main(["visualize", str(index), *options]) == 2
    assert "is not the model that" in capsys.readouterr().err
    assert retrieve(index, tmp_path / "a.csv", model, "--image", photographs / GOOD[0]) == 0


def test_queries_of_one_name_are_told_apart(index, photographs, run_folder, tmp_path):
    (tmp_path / "a").mkdir()
    other = shutil.copy(photographs / GOOD[3], tmp_path / "a" / "c.JPG")
    options = ["--image", photographs / GOOD[2], other, photographs / GOOD[0], "--top", "1"]
    assert retrieve(index, tmp_path / "a.csv", run_folder, *options) == 0
    rows = read(tmp_path / "a.csv")
    assert [row["query"] for row in rows] == [str(photographs / GOOD[2]), str(other), "left eye.jpg"]
    assert [row["image"] for row in rows] == [GOOD[2], GOOD[3], GOOD[0]]


def test_hits_are_read_a_part_of_the_table_at_a_time(index, photographs, run_folder):
    names = [str(photographs / name) for name in (GOOD[0], GOOD[3])]
    queries = embed_queries(index, str(run_folder), texts=[], images=names, space=None, device="cpu")
    whole, parts = search(index, queries, 3), search(index, queries, 3, rows_at_once=2)
    assert [one.hits for one in parts] == [one.hits for one in whole]
    assert [one.hits[0].image for one in parts] == [GOOD[0], GOOD[3]]


def test_an_index_of_shards_that_were_prepared_otherwise_is_told(prepared, photographs, run_folder, tmp_path, capsys):
    folder, index = prepared_at(64, prepared, tmp_path), tmp_path / "index.parquet"
    assert embed(folder, index, run_folder) == 0
    assert re.search("was prepared with .*'size': 64.*the model was trained on .*512", capsys.readouterr().err)
    assert read_about(index)["recipe"]["size"] == 64
    assert retrieve(index, tmp_path / "a.csv", run_folder, "--image", photographs / GOOD[0]) == 0
    assert re.search("of the table were prepared with .*'size': 64.*512", capsys.readouterr().err)


def test_an_index_of_a_run_can_be_searched_with_the_exported_model(index, photographs, run_folder, tmp_path):
    assert main(["export", str(run_folder), "--to", "hf", "--out", str(tmp_path / "hf")]) == 0
    options = ["--text", "glaucoma", "--image", photographs / GOOD[0], "--page", tmp_path / "hits.html"]
    options += ["--photos", photographs]
    assert retrieve(index, tmp_path / "a.csv", tmp_path / "hf", *options) == 0
    assert retrieve(index, tmp_path / "b.csv", run_folder, *options) == 0
    assert read(tmp_path / "a.csv") == read(tmp_path / "b.csv")


def test_an_encoder_of_others_finds_photographs(photographs, run_folder, tmp_path, capsys):
    index, model = tmp_path / "index.parquet", f"random:{run_folder}"
    assert embed(photographs, index, model) == 0
    assert retrieve(index, tmp_path / "a.csv", model, "--image", photographs / GOOD[0]) == 0
    assert read(tmp_path / "a.csv")[0]["image"] == GOOD[0]
    assert retrieve(index, tmp_path / "a.csv", model, "--text", "glaucoma") == 2
    assert "reads no texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no query"),
        (["--text", "a", "--out", "hits.txt"], "--out hits.txt: the name must end in .csv"),
        (["--text", "a", "--page", "hits.pdf"], "must end in .html"),
        (["--text", "a", "--photos", "here"], "are for --page"),
        (["--text", "a", "--out", "/proc/a.csv"], "--out /proc/a.csv cannot be written"),
        (["--text", "a", "--page", "/proc/a.html"], "--page /proc/a.html cannot be written"),
        (["--text", "a", "--space", "masked"], "texts are in the CLIP space alone"),
        (["--text", "a", "a"], "'a' is given twice"),
        (["--text", "drusen", "oedema"], "'drusen' and 'oedema' are the same tokens"),
        (["--text", " "], "A text is empty"),
        (["--image", "absent.jpg"], "--image absent.jpg: no such file"),
        (["--text", "a", "--index", "absent.parquet"], "absent.parquet does not exist"),
        (["--text", "a", "--index", "pyproject.toml"], "is no table of embeddings"),
    ],
)
def test_mistakes_are_said(index, run_folder, tmp_path, capsys, options, message):
    assert retrieve(index, tmp_path / "a.csv", run_folder, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_another_parquet_file_is_no_index(run_folder, tmp_path, capsys):
    pyarrow.parquet.write_table(pyarrow.table({"features": np.arange(3)}), tmp_path / "a.parquet")
    assert retrieve(tmp_path / "a.parquet", tmp_path / "a.csv", run_folder, "--text", "a") == 2
    assert "is no table of embeddings" in capsys.readouterr().err
