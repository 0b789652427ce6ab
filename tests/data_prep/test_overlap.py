import base64
import csv
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.fingerprint import BYTES, NEAR, distances, perceptual_hash
from data_prep.overlap import COLUMNS, find_overlap, near_pairs
from data_prep.phantom.case import photograph, sample_cases
from data_prep.phantom.diagnoses import NORMAL
from data_prep.relations import hints
from maskedclip_composer.data.records import NAME, SCHEMA
from maskedclip_composer.data.retina import find_retina
from maskedclip_composer.errors import UserError
from tests.data_prep.drawing import run, write_csv

FAST = ("--workers", "1", "--size", "64")


@pytest.fixture(scope="module")
def retinas():
    """Retinas of four people."""
    cases = [sample_cases(np.random.SeedSequence(n), {"right": [NORMAL]})[0] for n in range(4)]
    return [Image.fromarray(photograph(case, 200)) for case in cases]


@pytest.fixture
def prepare(tmp_path, retinas):
    """Convert photographs to a set, its images named as the keys of `rows`; `of` is the number of a retina."""

    def make(name, rows):
        images = tmp_path / "images" / name
        images.mkdir(parents=True)
        table = []
        for image, (of, quality, *cells) in rows.items():
            retinas[of].save(images / image, "JPEG", quality=quality)
            table.append({"image": image, "dataset": name} | dict(cell.split("=") for cell in cells))
        write_csv(images / "t.csv", table)
        assert run("manifest", "--csv", images / "t.csv", "--out", tmp_path / name, *FAST) == 0
        return tmp_path / name

    return make


def found(out):
    with (out / "overlap.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_file_and_a_copy_in_two_sets(tmp_path, prepare, capsys):
    one = prepare("one", {"a.jpg": (0, 92), "b.jpg": (1, 92), "c.jpg": (2, 92)})
    two = prepare("two", {"same.jpg": (0, 92), "again.jpg": (1, 60), "other.jpg": (3, 92)})
    capsys.readouterr()
    assert run("overlap", one, two, "--out", tmp_path / "o") == 0
    exact, near = found(tmp_path / "o")
    assert tuple(exact) == COLUMNS
    assert [exact[name] for name in ("kind", "a_set", "a_image", "b_set", "b_image")] == [
        *("exact", "one", "a.jpg", "two", "same.jpg")
    ]
    assert exact["a_sha256"] == exact["b_sha256"]
    assert exact["distance"] == "0"
    assert [near[name] for name in ("kind", "a_image", "b_image", "conflict")] == [
        "near",
        "b.jpg",
        "again.jpg",
        "false",
    ]
    assert 0 < int(near["distance"]) <= NEAR
    out = capsys.readouterr().out
    assert re.search(r"^exact +one +two +1 +0$", out, re.MULTILINE)
    assert "2 pairs, 0 with different labels" in out
    assert "no photograph of a split named test meets" in out
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["overlap.csv", "overlap.html"]
    # A copy that is farther than asked for is none.
    assert run("overlap", one, two, "--out", tmp_path / "o", "--distance", int(near["distance"]) - 1) == 0
    assert [pair["kind"] for pair in found(tmp_path / "o")] == ["exact"]


def test_other_retinas_do_not_overlap(tmp_path, prepare, capsys):
    one = prepare("one", {"a.jpg": (0, 92), "b.jpg": (1, 92)})
    two = prepare("two", {"c.jpg": (2, 92), "d.jpg": (3, 92)})
    assert run("overlap", one, two, "--out", tmp_path / "o") == 0
    assert found(tmp_path / "o") == []
    assert "no pairs" in capsys.readouterr().out


def test_splits_of_one_set(tmp_path, prepare, capsys):
    rows = {
        "twin.jpg": (0, 92, "split=train", "label=0", "patient=p"),
        "near.jpg": (0, 85, "split=train", "label=3", "patient="),
        "mate.jpg": (1, 92, "split=train", "label=1", "patient=q"),
        "alone.jpg": (2, 92, "split=train", "label=1", "patient=q"),
        "test.jpg": (0, 92, "split=test", "label=3", "patient="),
        "shown.jpg": (3, 92, "split=test", "label=1", "patient=q"),
    }
    one = prepare("one", rows)
    capsys.readouterr()
    assert run("overlap", one, "--out", tmp_path / "o") == 1
    # First what touches the test split, in it the graver kind, in it different labels; last what lies within train.
    assert [(p["kind"], p["a_image"], p["b_image"], p["conflict"]) for p in found(tmp_path / "o")] == [
        ("exact", "twin.jpg", "test.jpg", "true"),
        ("near", "near.jpg", "test.jpg", "false"),
        ("same patient", "mate.jpg", "shown.jpg", "false"),
        ("same patient", "alone.jpg", "shown.jpg", "false"),
        ("near", "twin.jpg", "near.jpg", "true"),
    ]
    assert found(tmp_path / "o")[0]["a_split"] == "train"
    out = capsys.readouterr().out
    assert "TEST DATA TOUCHED: in 4 pairs" in out
    assert re.search(r"^near +one train +one test +1 +0 +TEST$", out, re.MULTILINE)
    assert re.search(r"^near +one train +one train +1 +1$", out, re.MULTILINE)


def record(**cells):
    empty = {"text_categories": [], "position": 0, "phash": b"", "status": "stored"}
    return {name: "" for name in SCHEMA.names if SCHEMA.field(name).type == pyarrow.string()} | empty | cells


def table(*records):
    return pyarrow.Table.from_pylist([record(**cells) for cells in records], SCHEMA)


def test_a_patient_is_one_within_a_data_set_only():
    mine = [{"dataset": "odir", "patient": "7", "image": name} for name in "ab"]
    tables = {"x": table(*mine), "y": table({"dataset": "odir", "patient": "7"}, {"dataset": "hrf", "patient": "7"})}
    pairs = find_overlap(tables, 0).to_pylist()
    assert [(p["kind"], p["a_image"], p["b_dataset"], p["distance"]) for p in pairs] == [
        ("same patient", "a", "odir", None),
        ("same patient", "b", "odir", None),
    ]
    # Two eyes in one split of one set are as they should be.
    assert len(find_overlap({"x": tables["x"]}, 0)) == 0
    assert len(find_overlap({"x": table(), "y": table()}, 0)) == 0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"split": "train", "folder": "train"}, {"split": "test", "folder": "test"}, True),
        ({"split": "", "folder": "unpaired/hrf"}, {"split": "test", "folder": "downstream/idrid/test"}, True),
        # Sets for pre-training are read whole, whatever their official splits.
        ({"split": "train", "folder": ""}, {"split": "test", "folder": ""}, False),
        ({"split": "test", "folder": "paired/odir5k"}, {"split": "test", "folder": "downstream/idrid/test"}, True),
        ({"split": "train", "folder": "train"}, {"split": "val", "folder": "val"}, False),
    ],
)
def test_what_touches_a_test_set(one, other, expected):
    both = {"x": table({"sha256": "1"} | one), "y": table({"sha256": "1"} | other)}
    assert find_overlap(both, 0)["test"].to_pylist() == [expected]


@pytest.mark.parametrize(
    ("cells", "of"),
    [
        ({"phash": bytes(BYTES)}, "that differ in at most 0 bits"),
        ({"sha256": "1"}, "of one sha256"),
    ],
)
def test_more_pairs_than_can_be_held_are_refused(cells, of, monkeypatch):
    tables = {"x": table(*[cells] * 10)}
    monkeypatch.setattr("data_prep.overlap.MOST", 45)
    assert len(find_overlap(tables, 0)) == 45
    monkeypatch.setattr("data_prep.overlap.MOST", 44)
    with pytest.raises(UserError, match=f"more than 44 pairs {of}; compare fewer sets"):
        find_overlap(tables, 0)


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ({"label": "0"}, {"label": "1"}, True),
        ({"label": "0"}, {"label": "0"}, False),
        ({"label": "0"}, {"label": ""}, False),
        ({"label": "0", "label_name": "normal"}, {"label": "n", "label_name": "normal"}, False),
        ({"label": "1", "label_name": "glaucoma"}, {"label": "1", "label_name": "cataract"}, True),
        ({"text_categories": ["b", "a"]}, {"text_categories": ["a", "b"]}, False),
        ({"text_categories": ["a"]}, {"label": "2", "label_name": "b"}, True),
    ],
)
def test_labels_conflict_by_their_meaning(one, other, conflict):
    pairs = find_overlap({"x": table(dict(sha256="f", **one)), "y": table(dict(sha256="f", **other))}, 0)
    assert pairs["conflict"].to_pylist() == [conflict]


hashes = st.lists(st.binary(min_size=BYTES, max_size=BYTES), max_size=12)


@given(hashes, st.data(), st.integers(0, 256), st.integers(1, 16))
def test_search_equals_brute_force(drawn, data, distance, block):
    # Chance puts hashes at 128 bits: add some that differ from a drawn one in few bits, anywhere.
    for _ in range(3 if drawn else 0):
        copy = int.from_bytes(data.draw(st.sampled_from(drawn)))
        for bit in data.draw(st.lists(st.integers(0, 255), max_size=40)):
            copy ^= 1 << bit
        drawn = [*drawn, copy.to_bytes(BYTES)]
    array = np.frombuffer(b"".join(drawn), np.uint8).reshape(-1, BYTES)
    expected = [
        [i, j]
        for i in range(len(drawn))
        for j in range(i + 1, len(drawn))
        if (int.from_bytes(drawn[i]) ^ int.from_bytes(drawn[j])).bit_count() <= distance
    ]
    assert near_pairs(array, distance, block=block).tolist() == expected


def test_page_is_whole_and_runs_nothing(tmp_path, prepare):
    name = "<script>alert(1)&.jpg"
    one = prepare("one", {name: (0, 92, "label=<b>x"), "b.jpg": (1, 92, "label=y")})
    two = prepare("two", {name: (0, 92, "label=<b>x"), "b.jpg": (1, 60, "label=z")})
    assert run("overlap", one, two, "--out", tmp_path / "o") == 0
    page = (tmp_path / "o" / "overlap.html").read_text()
    assert "<script" not in page
    assert "<b>x" not in page
    assert page.count("&lt;script&gt;alert(1)&amp;.jpg") == 2
    assert page.count('src="data:image/jpeg;base64,') == page.count("src=") == 4
    assert page.count("labels differ") == 1
    assert "All 2 pairs are shown" in page

    (one / "index.json").unlink()
    assert run("overlap", one, two, "--out", tmp_path / "o", "--pairs", "1") == 0
    page = (tmp_path / "o" / "overlap.html").read_text()
    assert "the first 1 of 2 pairs" in page
    assert page.count("shards not found") == page.count("src=") == 1
    assert len(found(tmp_path / "o")) == 2


def test_page_of_damaged_shards(tmp_path, prepare):
    one = prepare("one", {"a.jpg": (0, 92)})
    two = prepare("two", {"b.jpg": (0, 92)})
    shard = one / "shard.00000.mds"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    assert run("overlap", one, two, "--out", tmp_path / "o") == 0
    page = (tmp_path / "o" / "overlap.html").read_text()
    assert page.count("shards damaged") == page.count("src=") == 1


def test_thumbnails_are_of_the_pair(tmp_path, prepare, retinas):
    one = prepare("one", {"a.jpg": (1, 92), "b.jpg": (2, 92), "c.jpg": (0, 92)})
    two = prepare("two", {"d.jpg": (3, 92), "e.jpg": (0, 92)})
    assert run("overlap", one, two, "--out", tmp_path / "o") == 0
    shown = re.findall(r"base64,([^\"]+)", (tmp_path / "o" / "overlap.html").read_text())
    own = np.frombuffer(perceptual_hash(retinas[0].crop(find_retina(retinas[0]).box)), np.uint8)
    pictures = [Image.open(io.BytesIO(base64.b64decode(data))) for data in shown]
    away = [int(distances(np.frombuffer(perceptual_hash(p), np.uint8)[None], own)[0]) for p in pictures]
    assert len(away) == 2
    assert max(away) < 64  # 64 pixels and JPEG twice cost bits; other retinas are farther


def test_cells_are_no_formulas(tmp_path, prepare):
    one = prepare("one", {"=1+1.jpg": (0, 92, "patient=@p", "label=-2")})
    two = prepare("two", {"+a.jpg": (0, 92, "patient=p", "label=a-2")})
    assert run("overlap", one, two, "--out", tmp_path / "o") == 0
    (pair,) = found(tmp_path / "o")
    assert [pair[f"a_{name}"] for name in ("image", "patient", "label")] == ["'=1+1.jpg", "'@p", "'-2"]
    assert [pair[f"b_{name}"] for name in ("image", "patient", "label")] == ["'+a.jpg", "p", "a-2"]


def test_sets_that_were_joined_into_one_folder(tmp_path, prepare):
    """A folder with one manifest over subfolders such as paired/one."""
    records = []
    for kind, name, other in (("paired", "one", 1), ("downstream", "two", 2)):
        rows = {"a.jpg": (0, 92, "split=test", f"label={name}"), "b.jpg": (other, 92, "split=train", "label=x")}
        folder = prepare(name, rows)
        shutil.copytree(folder, tmp_path / "joined" / kind / name)
        own = pyarrow.parquet.read_table(folder / NAME).to_pylist()
        records += [row | {"folder": f"{kind}/{name}/{row['folder']}"} for row in own]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records, SCHEMA), tmp_path / "joined" / NAME)
    assert run("overlap", tmp_path / "joined", "--out", tmp_path / "o") == 1
    (pair,) = found(tmp_path / "o")
    assert (pair["a_set"], pair["b_set"]) == ("joined/downstream/two", "joined/paired/one")
    assert (tmp_path / "o" / "overlap.html").read_text().count("src=") == 2


def test_known_relations_are_hints():
    assert hints(["EyeQ", "EyePACS", "hrf"]) == ["EyeQ is a part of EyePACS"]
    assert hints(["hrf", "HRF_Seg"]) == ["HRF and HRF-Seg+ are the same photographs"]
    assert hints(["idrid", "eyepacs", "odir5k"]) == []


def test_hints_are_printed(tmp_path, prepare, capsys):
    sets = prepare("reta", {"a.jpg": (0, 92)}), prepare("idrid", {"b.jpg": (1, 92)})
    assert run("overlap", *sets, "--out", tmp_path / "o") == 0
    assert "hint: the 81 photographs of RETA are of IDRiD" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{set}", "{set}"), "is given twice"),
        (("{root}/none",), "no such folder"),
        (("{set}", "{root}/images"), f"holds no {NAME}; give the --out folder of a finished preparation, or prepare"),
        (("{root}/old",), "cannot be read"),
        (("{root}/broken",), "cannot be read"),
        (("{set}", "--distance", "65"), "--distance 65: give bits from 0 to 64"),
        (("{set}", "--pairs", "0"), "--pairs 0"),
        (("{set}", "--out", "{set}/index.json"), "is a file; give a folder"),
    ],
)
def test_wrong_input(tmp_path, prepare, capsys, arguments, message):
    folder = prepare("one", {"a.jpg": (0, 92)})
    for name in ("old", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / NAME).write_bytes(b"no table")
    pyarrow.parquet.write_table(table().drop_columns(["phash"]), tmp_path / "old" / NAME)
    filled = [argument.format(set=folder, root=tmp_path) for argument in arguments]
    assert run("overlap", "--out", tmp_path / "o", *filled) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.real_data
def test_one_patient_of_odir_has_two_numbers(tmp_path):
    folder = os.environ.get("FUNDUS_DATA")
    if not folder:
        pytest.skip("FUNDUS_DATA does not name the folder of photographs")
    root = Path(folder).resolve()
    options = ("--size", "64", "--kind", "unpaired")
    one, two = tmp_path / "odir5k", tmp_path / "odir_unlabelled"
    assert run("prepare", "odir5k", "--root", root / "paired_odir", "--out", one, "--size", "64") == 0
    images = root / "unpaired" / "odir_unlabelled"
    assert run("manifest", "--images", images, "--out", two, *options) == 0
    assert run("overlap", one, two, "--out", tmp_path / "o") == 0
    near = {
        (pair["a_image"], pair["b_image"]): int(pair["distance"])
        for pair in found(tmp_path / "o")
        if pair["kind"] == "near" and pair["a_set"] == pair["b_set"] == "odir_unlabelled"
    }
    assert near["352_left.jpg", "973_left.jpg"] <= 4
    assert near["352_right.jpg", "973_right.jpg"] <= 4
