"""Which photographs a stream reads, by the manifests of a set, of splits and of a build."""

import json

import pytest
from huggingface_hub import ModelCard

from maskedclip_composer.cards.data_card import FEWEST
from maskedclip_composer.cards.run_files import read_run
from maskedclip_composer.cards.training_data import read_streams
from maskedclip_composer.data.prompt_files import read_pack
from tests.cards.small import CONFIG, write_manifest, write_run
from tests.cards.test_model_card import card


def streams(run):
    return {stream.name: stream for stream in read_streams(read_run(run))}


def with_data(**parts):
    return {"data": CONFIG["data"] | parts}


def test_a_split_is_read_and_the_others_are_held_back(tmp_path):
    unpaired = {"remote": "shards/graded", "batch_size": 8, "split": "train"}
    run = write_run(tmp_path / "run", with_data(unpaired=unpaired))
    records = [{"folder": "train"}] * 3 + [{"folder": "test"}] * 2
    records += [{"status": "left_out", "reason": f"{name}.jpg is blurred"} for name in ("Smith", "Jones")]
    notes = ["missing: 2 photographs, the first is a/Smith left.JPG"]
    write_manifest(run / "data" / "unpaired", records, [{"name": "odir5k", "notes": notes}])
    found = streams(run)["unpaired"]
    assert found.read.total == 3
    assert dict(found.held_back) == {"test": 2}
    assert found.is_all_listed
    text = card(run)[1].split("## Stream: unpaired")[1]
    assert "Not read by this stream: 2" in text
    assert "| left_out | odir5k | (a photograph) is blurred | 2 |" in text
    assert "left.JPG" not in text


def test_both_streams_of_a_build_share_its_manifest(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "data" / "unpaired" / "manifest.parquet").unlink()
    contaminated = {"status": "contaminated", "reason": "is the test photograph 1.jpg of idrid", "folder": ""}
    records = [
        *[{"group": "paired", "folder": "paired/odir5k"}] * 2,
        *[{"group": "unpaired", "folder": "unpaired/hrf", "dataset": "hrf", "licence": "CC BY-NC 4.0"}] * 3,
        {"group": "unpaired", "dataset": "hrf"} | contaminated,
        {"group": "downstream", "folder": "downstream/idrid/test", "dataset": "idrid"},
    ]
    write_manifest(
        run / "data" / "paired", records, [{"name": "hrf", "terms": "x"}, {"name": "odir5k"}, {"name": "idrid"}]
    )
    (run / "data" / "paired" / "contamination.csv").write_text(
        "group,set,image,status,test_set,test_image,distance\n"
        "unpaired,hrf,secret.jpg,stored,idrid,t.jpg,3\nunpaired,hrf,b.jpg,contaminated,idrid,t.jpg,0\n"
    )
    found = streams(run)
    assert found["paired"].read.datasets == {"odir5k": 2}
    assert found["unpaired"].read.datasets == {"hrf": 3}
    assert [about["name"] for about in found["unpaired"].abouts] == ["hrf"]
    assert found["unpaired"].kept == {("hrf", "idrid"): 1}
    assert not found["paired"].kept
    model, data = card(run)
    assert "Preparation kept 1 photographs of downstream test sets out of unpaired." in model
    assert (
        "**Preparation let 1 photographs of downstream test sets into unpaired**: 1 of hrf that are in idrid." in model
    )
    assert "KEPT for pre-training: 1" in data
    assert "secret.jpg" not in model + data
    assert "non-commercial" in model


def test_identical_photographs_are_counted_and_not_named(run):
    text = card(run)[1]
    assert text.count("the same file: 2; with labels that conflict: 1.") == 2
    assert "1.jpg" not in text


def test_the_wording_has_a_language_and_a_licence_where_its_pack_is_here(run):
    assert "not recorded: the pack of this sha256 is not here" in card(run)[1]
    manifest = json.loads((run / "data_manifest.json").read_text())
    manifest["prompts"]["sha256"] = read_pack("retina-en").sha256
    (run / "data_manifest.json").write_text(json.dumps(manifest))
    model, data = card(run)
    assert "| licence of the wording | CC0-1.0 |" in data
    assert ModelCard(model).data.language == "en"


def test_the_manifest_of_another_place_is_not_taken(run):
    (run / "data" / "unpaired" / "manifest.parquet").unlink()
    assert streams(run)["unpaired"].absent


@pytest.mark.parametrize("count", [FEWEST - 1, FEWEST])
def test_texts_of_few_photographs_are_not_published(run, count):
    write_manifest(run / "data" / "paired", [{"texts": ["Mrs Smith's left eye"]}] * count, [])
    assert ("Mrs Smith" in card(run)[1]) == (count == FEWEST)
    assert "Mrs Smith" not in card(run)[0]
