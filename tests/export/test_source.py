"""What can be exported, and what its run says about it."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml

from maskedclip_composer.__main__ import main
from maskedclip_composer.cards.write import write_cards
from maskedclip_composer.export.source import open_source
from maskedclip_composer.export.write import export
from tests.cards.small import write_manifest

CARD = """---
library_name: maskedclip_composer
license: other
---

# A model

For research.

## What it is

SIZE of the set: 400.
"""


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage is deprecated")
def test_a_source_can_be_an_export_or_a_sharded_checkpoint(exported, run_folder, tmp_path):
    expected = open_source(run_folder).model.state_dict()
    state = torch.load(run_folder / "checkpoints" / "latest-rank0.pt", weights_only=True)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(run_folder / "config.yaml", run)
    dcp.save(state, storage_writer=dcp.FileSystemWriter(run / "checkpoints" / "ep1-ba4"), no_dist=True)
    (run / "checkpoints" / "latest-rank0.pt").symlink_to("ep1-ba4")
    for source in (exported["hf"], run, run / "checkpoints" / "ep1-ba4", run / "checkpoints" / "latest-rank0.pt"):
        found = open_source(source)
        assert found.folder == (exported["hf"] if source == exported["hf"] else run)
        assert all(torch.equal(value, expected[name]) for name, value in found.model.state_dict().items())


def test_an_encoder_file_is_exported_as_its_run(run_folder, exported, tmp_path):
    export(run_folder / "encoder.safetensors", "timm", tmp_path / "timm")
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "timm", exported["timm"])]
    assert weights[0] == weights[1]


def test_card_and_terms_of_the_run_come_along(run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "model_card.md").write_text(CARD)
    (run / "data_card.md").write_text("# All data\n")
    export(run, "safetensors", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    begin, end = CARD.split("## What")
    assert text.startswith(begin)  # the metadata that a hub reads comes first
    assert text.endswith(f"\n## What{end}")
    assert len(begin) <= text.index("## Load this folder") < text.index("TERMS.md") < text.index("## What")
    export(tmp_path / "out" / "encoder.safetensors", "timm", tmp_path / "again")
    terms = (tmp_path / "out" / "TERMS.md").read_text()
    assert (tmp_path / "again" / "TERMS.md").read_text() == terms
    assert (tmp_path / "again" / "data_card.md").read_text() == "# All data\n"
    assert "  TERMS.md\n" in (tmp_path / "again" / "SHA256SUMS").read_text()


def test_terms_are_those_of_the_model_card_and_leave_nothing_out(run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    write_manifest(run / "data" / "paired", [{"licence": "CC BY 4.0", "dataset": "clinic"}])
    model_card, _ = write_cards(run)
    terms = open_source(run).terms
    assert terms is not None
    head, section = terms.split("\n\n", 1)
    assert head.startswith("# Terms")
    assert section.strip() in model_card.read_text()
    assert "CC BY 4.0" in section
    unknown = next(line for line in section.splitlines() if line.startswith("**Not known**"))
    assert "unpaired stream, not recorded" in unknown
    assert "starting weights: " in unknown


def test_the_card_is_not_given_to_other_weights_of_the_run(run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "model_card.md").write_text(CARD)
    checkpoints = run / "checkpoints"
    state = torch.load(checkpoints / "latest-rank0.pt", weights_only=True)
    (checkpoints / "latest-rank0.pt").rename(checkpoints / "ep2-ba1400-rank0.pt")
    (checkpoints / "latest-rank0.pt").symlink_to("ep2-ba1400-rank0.pt")
    state["state"]["model"]["net.branch.image_encoder.vit.norm.bias"] += 1
    torch.save(state, checkpoints / "ep1-ba700-rank0.pt")
    assert open_source(run).card == CARD
    assert open_source(checkpoints / "ep2-ba1400-rank0.pt").card == CARD
    export(checkpoints / "ep1-ba700-rank0.pt", "timm", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Weights of the checkpoint `ep1-ba700-rank0.pt`, step 700." in text
    assert "model card is left out" in text
    assert "What it is" not in text
    assert "the run's card" not in text
    (run / "encoder.safetensors").unlink()  # without it nothing tells of which weights the card is
    assert open_source(run).card is None


def test_a_hub_is_told_the_library_of_the_target(run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "model_card.md").write_text(CARD)
    export(run, "timm", tmp_path / "out")
    assert yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])["library_name"] == "timm"


UNKNOWN, KNOWN = "does not record; taken is the default", "were resized to a short side of 64 pixels at most before"


@pytest.fixture
def run_with_report(run_folder, tmp_path):
    def write(options):
        run = shutil.copytree(run_folder, tmp_path / "run")
        (run / "data" / "paired").mkdir(parents=True)
        (run / "data" / "paired" / "report.json").write_text(json.dumps({"options": options}))
        return run

    return write


def test_the_preparation_is_told_where_it_is_recorded_and_by_an_export_of_the_export(run_with_report, tmp_path):
    run = run_with_report({"size": 64, "crop": False, "quality": 95, "encoding": "jpeg"})
    export(run, "safetensors", tmp_path / "encoder")
    export(tmp_path / "encoder", "timm", tmp_path / "timm")
    for folder in ("encoder", "timm"):
        assert KNOWN in (tmp_path / folder / "README.md").read_text()
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["maskedclip"]["recipe_known"] is True


def test_a_preparation_that_is_not_recorded_does_not_become_known(run_with_report, exported, tmp_path):
    run = run_with_report({"pseudonyms": True})  # a report that does not say
    export(run, "safetensors", tmp_path / "encoder")
    export(exported["hf"], "safetensors", tmp_path / "again")  # of a run without a report
    for folder in (exported["hf"], exported["timm"], tmp_path / "encoder", tmp_path / "again"):
        assert UNKNOWN in (folder / "README.md").read_text()
    for name in ("config.json", "preprocessor_config.json", "image_encoder/preprocessor_config.json"):
        assert json.loads((exported["hf"] / name).read_text())["recipe_known"] is False
    assert json.loads((exported["onnx"] / "config.json").read_text())["recipe_known"] is False


def test_terms_that_are_not_known_are_said_not_to_be(exported, run_folder, tmp_path):
    for folder in exported.values():
        text = (folder / "README.md").read_text()
        assert "license" not in text.lower()
        assert "library_name" in yaml.safe_load(text.split("---")[1])
        assert "not known: do not assume it" in (folder / "TERMS.md").read_text()
    shutil.copy(run_folder / "encoder.safetensors", tmp_path)
    assert open_source(tmp_path / "encoder.safetensors").terms is None  # of no run, and so nothing tells


@pytest.mark.parametrize("target", ["timm", "hf", "onnx", "safetensors"])
def test_the_lines_of_the_readme_load_the_folder(exported, target):
    blocks = (exported[target] / "README.md").read_text().split("```python\n")[1:]
    assert len(blocks) == (2 if target == "hf" else 1)
    for block in blocks:
        names: dict[str, object] = {}
        exec(block.split("```")[0].replace("FOLDER", str(exported[target])), names)
        assert names.keys() & {"model", "image_encoder", "features"}


def test_commands_end_with_messages(run_folder, exported, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(tmp_path), "--to", "timm", "--out", str(out)]) == 2
    assert "holds no model" in capsys.readouterr().err
    assert main(["export", str(run_folder), "--to", "timm", "--out", str(exported["timm"])]) == 2
    assert "holds an export already.\n  Choose another folder, or add --overwrite." in capsys.readouterr().err
    assert main(["export", str(run_folder), "--to", "safetensors", "--out", str(out)]) == 0
    assert re.search(rf"^{out}: 6 files, \d\.\d MB, verified$", capsys.readouterr().out, re.MULTILINE)
    again = ["export", str(out / "encoder.safetensors"), "--to", "safetensors", "--out", str(out), "--overwrite"]
    assert main(again) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(SystemExit):
        main(["export", str(run_folder), "--to", "tensorrt", "--out", str(out)])


@pytest.mark.parametrize(
    "command", ["maskedclip_composer.export", "maskedclip_composer verify", "maskedclip_composer push"]
)
def test_help_comes_without_torch(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *command.split(), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert f"usage: python -m maskedclip_composer {command.split('.')[-1].split()[-1]} " in done.stdout
    assert not re.search(r"\| +(torch|timm|transformers|huggingface_hub)$", done.stderr, re.MULTILINE)
