"""The model card says what the run's files say, and that the rest was not recorded."""

import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from maskedclip_composer.cards.definitions import METRICS, OBJECTIVES, TITLES, selection
from maskedclip_composer.cards.write import write_cards
from maskedclip_composer.config import ObjectivesConfig, to_plain
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation import metrics
from maskedclip_composer.evaluation.protocols.config import (
    FinetuneConfig,
    KnnConfig,
    LinearProbeConfig,
    ProtocolConfig,
    ZeroShotConfig,
)
from tests.cards.small import CONFIG, write_manifest, write_run, write_suite
from tests.cards.test_markdown import NASTY

PARSER = MarkdownIt("commonmark").enable("table")


def card(run, *suites):
    model, data = write_cards(run, suites)
    return model.read_text(), data.read_text()


def cells(text, first):
    """The cells of the first row of a table that begins with `first`."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def outline(text):
    """The structure of Markdown without its words."""
    found = [part for token in PARSER.parse(text) for part in (token, *(token.children or []))]
    return [(token.type, token.tag) for token in found if not token.type.startswith(("text", "softbreak"))]


def test_front_matter_is_what_the_hub_reads(run, tmp_path):
    suite = write_suite(tmp_path / "suite", run)
    card(run, suite)
    data = ModelCard.load(run / "model_card.md", ignore_metadata_errors=False).data
    assert data.license == "other"
    assert data.license_name == "terms-of-the-training-data"
    assert data.library_name == "timm"
    assert data.datasets == ["odir5k"]
    assert {"retina", "mim", "lg_clip", "mfd"} <= set(data.tags)
    assert data.model_name == "small"
    roc = next(result for result in data.eval_results if result.metric_type == "roc_auc")
    assert (roc.dataset_name, roc.dataset_split, roc.metric_name) == (
        "Our clinic",
        "test",
        "ROC, Linear probe, 50% of labels",
    )
    assert roc.metric_args["seeds"] == 2
    assert roc.metric_args["contaminated_test_images"] == 0
    low, high = roc.metric_args["interval_95"]
    assert 0 < low <= roc.metric_value <= high <= 1
    assert set(data.metrics) == {result.metric_type for result in data.eval_results}


def test_values_come_from_the_files(run):
    text, _ = card(run)
    assert cells(text, "optimiser steps") == ["optimiser steps", "10"]
    assert cells(text, "images seen") == ["images seen", "120"]
    assert cells(text, "hours") == ["hours", "5"]
    assert cells(text, "device hours") == ["device hours", "10"]
    assert cells(text, "commit") == ["commit", "f" * 40]
    assert cells(text, "seed") == ["seed", "3"]
    assert cells(text, "parameters of bridge") == ["parameters of bridge", "678"]
    assert cells(text, "paired") == ["paired", "2", "odir5k 2", "1", "2 (1 distinct)", "sha256 cccccccccccccccc"]
    assert cells(text, "mim")[1] == "L_mim"
    assert "loss/train" not in text
    assert "Losses of the last step: total 4." in text
    assert "- odir5k: A et al., 2019" in text
    assert "composer -n 2 train.py config.yaml" in text


def test_the_code_in_it_loads_the_encoder(run, monkeypatch):
    text, _ = card(run)
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "timm" in block)
    monkeypatch.chdir(run)
    lines = {}
    exec(compile(code, "card", "exec"), lines)  # load_state_dict is strict
    assert lines["encoder"].embed_dim == 192


def test_what_is_missing_is_said_to_be_missing(run):
    for name in ("data_manifest.json", "provenance.json", "parameters.json", "metrics.jsonl", "encoder.safetensors"):
        (run / name).unlink()
    shutil.rmtree(run / "data")
    text, data = card(run)
    last = text.split("## Not recorded")[1]
    for name in ("data_manifest.json", "provenance.json", "parameters.json", "metrics.jsonl", "encoder.safetensors"):
        assert f"{name} is not there" in last
    assert "paired stream: no manifest.parquet" in last
    assert ModelCard(text).data.license == "unknown"
    assert "timm.create\\_model" not in text.split("## Training data")[0]
    assert "Not recorded: no manifest.parquet" in data
    assert "None" not in text.replace("[None]", "")
    assert "nan" not in text.split()


def test_damaged_files_are_told(run):
    (run / "provenance.json").write_text("{")
    (run / "encoder.safetensors").write_bytes(b"x" * 100)
    (run / "data" / "paired" / "manifest.parquet").write_bytes(b"PAR1 cut")
    (run / "data" / "unpaired" / "report.json").write_text("[")
    text, _ = card(run)
    last = text.split("## Not recorded")[1]
    assert "provenance.json is damaged" in last
    assert "encoder.safetensors is damaged" in last
    assert "paired stream: data/paired/manifest.parquet is damaged" in last
    assert "unpaired stream: report.json of the preparation is not" in last
    assert str(run) not in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.yaml"):
        write_cards(tmp_path)
    (tmp_path / "config.yaml").write_text("[1, 2]")
    with pytest.raises(UserError, match="no config of a run"):
        write_cards(tmp_path)


def test_no_path_of_the_machine_is_published(tmp_path):
    run = write_run(tmp_path / "runs" / "small")
    text, data = card(run, write_suite(tmp_path / "suite", run))
    for place in (str(tmp_path), "/home/somebody"):
        assert place not in text
        assert place not in data


def test_terms_of_the_data_and_of_weights_that_training_began_with(tmp_path):
    free = write_run(tmp_path / "free")
    text, _ = card(free)
    assert "may be passed on only on the conditions" in text
    strict = write_run(tmp_path / "strict", name="papila", terms="non-commercial, no derivatives to be shared")
    text, data = card(strict)
    assert {"non-commercial", "no-derivatives"} <= set(ModelCard(text).data.tags)
    assert "They may not be passed on." in text
    assert "may not be used commercially" in data
    began = {"image_encoder": {"name": "vit_tiny_patch16_224", "weights": "retfound:/weights/a.pth"}}
    text, _ = card(write_run(tmp_path / "began", began))
    assert ModelCard(text).data.license == "unknown"
    assert "starting weights: retfound:a.pth" in text
    assert "started from random weights" not in text


def test_an_index_that_has_more_than_the_manifest_is_unknown_for_the_rest(run):
    write_manifest(run / "data" / "paired", [{}], [])
    text, data = card(run)
    assert ModelCard(text).data.license == "unknown"
    assert "its index lists 2 photographs, the manifest 1" in text
    assert "differ" in data


def test_a_run_that_has_gone_on_after_its_end_says_of_which_step_its_encoder_is(run):
    assert cells(card(run)[0], "state") == ["state", "trained, 10 steps"]
    with (run / "metrics.jsonl").open("a") as file:
        file.write('\n{"batch": 15}\n')
    assert "is of 10ba, and training has gone on to step 15" in card(run)[0]


def test_an_objective_of_ones_own_is_listed(tmp_path):
    own = {"objectives": {"siglip": {"weight": 0.5}}}
    text, _ = card(write_run(tmp_path / "run", own))
    assert cells(text, "siglip")[0::3] == ["siglip", "0.5"]
    assert "by the objectives siglip." in text


def test_faults_are_counted(run):
    faults = [{"time": "t", "step": step, "action": "skip"} for step in (4, 7)] + [{"step": 9, "action": "stop"}]
    (run / "faults.jsonl").write_text("".join(json.dumps(fault) + "\n" for fault in faults))
    text, _ = card(run)
    assert cells(text, "skip") == ["skip", "2", "4, 7"]
    assert cells(text, "stop") == ["stop", "1", "9"]


def test_names_cannot_change_the_shape_of_a_card(tmp_path):
    """A data set, licence, label, text, class or task may be called anything."""
    shapes, fronts = [], []
    for number, word in enumerate(("plain", NASTY)):
        run = write_run(tmp_path / f"{number}" / "run", name=word, citation=word, source=word, notes=[word])
        record = {
            "dataset": word,
            "licence": word,
            "texts": [word],
            "text_categories": [word],
            "eye": word,
            "patient": word,
        }
        about = {"name": word, "citation": word, "source": word, "notes": [word]}
        left_out = record | {"status": "left_out", "reason": word}
        write_manifest(run / "data" / "paired", [record, record, left_out], [about])
        write_manifest(run / "data" / "unpaired", [record] * 12, [about])
        (run / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"run_name": word}))
        suite = write_suite(tmp_path / f"{number}" / "suite", run, title=word, names=[word, f"{word} 2"], source=word)
        texts = card(run, suite)
        shapes.append([outline(text) for text in (ModelCard(texts[0]).text, texts[1])])
        fronts.append(ModelCard(texts[0]).data)
        assert not {"html_block", "html_inline", "image"} & {kind for shape in shapes[-1] for kind, _ in shape}
    assert shapes[0] == shapes[1]
    assert fronts[1].datasets is None
    assert fronts[1].model_name == NASTY
    assert len(fronts[0].eval_results) == len(fronts[1].eval_results)


def test_every_metric_and_protocol_has_its_words():
    assert set(OBJECTIVES) <= set(ObjectivesConfig.__dataclass_fields__)  # one of a user's own needs no line there
    assert set(METRICS) == set(metrics.METRIC_NAMES)
    assert TITLES.items() <= metrics.TITLES.items()
    for part, settings in {
        "linear_probe": LinearProbeConfig(),
        "knn": KnnConfig(),
        "zero_shot": ZeroShotConfig(),
        "finetune": FinetuneConfig(),
    }.items():
        protocol = to_plain(ProtocolConfig(title="a", source="b", **{part: settings}))
        assert "not recorded" not in selection(protocol)
    assert "mean of macro F1" in selection({"finetune": {"epochs": 3, "select_by": "mean_of_f1_roc_kappa"}})
    assert "not recorded" in selection({})
