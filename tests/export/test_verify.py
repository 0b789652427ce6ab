"""What is changed in an exported folder is found and named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskedclip_composer.__main__ import main
from maskedclip_composer.errors import UserError
from maskedclip_composer.export.folder import write_sums
from maskedclip_composer.export.verify import verify_folder
from maskedclip_composer.export.write import export

TARGETS = ["timm", "hf", "onnx", "safetensors"]
WEIGHTS = {
    "timm": ["model.safetensors"],
    "hf": ["model.safetensors", "image_encoder/model.safetensors", "text_encoder/model.safetensors"],
    "onnx": ["image.onnx", "text.onnx"],
    "safetensors": ["encoder.safetensors"],
}


@pytest.fixture
def copy(exported, tmp_path):
    return lambda target: shutil.copytree(exported[target], tmp_path / target)


def failed(folder: Path, **options) -> dict[str, str]:
    return {check.what: check.found for check in verify_folder(folder, **options) if not check.passed}


def flip(path: Path) -> None:
    """Flip a high bit of a weight near the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 4 * 2 + 3] ^= 0x40
    path.write_bytes(content)


def edit_json(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_exported_passes(exported, target, capsys):
    assert main(["verify", str(exported[target])]) == 0
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    assert f"{exported[target]}: as it was exported" in printed
    for name in WEIGHTS[target]:
        assert f"ok      {name}" in printed


@pytest.mark.parametrize(("target", "name"), [(target, name) for target, names in WEIGHTS.items() for name in names])
def test_a_flipped_bit_is_found_by_checksum(copy, target, name, capsys):
    folder = copy(target)
    flip(folder / name)
    assert main(["verify", str(folder)]) == 1
    assert f"FAILED: {name}: changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "name", "weight", "output"),
    [
        ("timm", "model.safetensors", "norm.bias", "timm: features"),
        ("hf", "image_encoder/model.safetensors", "layernorm.bias", "ViTModel: features"),
        ("hf", "text_encoder/model.safetensors", "encoder.layer.1.output.LayerNorm.bias", "AutoModel: text_features"),
    ],
)
def test_other_weights_are_found_by_what_they_compute(copy, target, name, weight, output):
    """Also where somebody has made the checksums anew."""
    folder = copy(target)
    weights = load_file(folder / name)
    weights[weight][3] += 1
    save_file(weights, folder / name, {"format": "pt"})
    write_sums(folder)
    found = failed(folder)
    assert list(found) == [output]
    assert "in place of" in found[output]


@pytest.mark.parametrize(
    ("target", "name", "edit", "what"),
    [
        ("timm", "config.json", lambda c: c["model_args"].update(fc_norm=True), "golden outputs"),
        ("timm", "config.json", lambda c: c["model_args"].update(global_pool="token"), "timm: features"),
        ("timm", "config.json", lambda c: c["pretrained_cfg"].update(mean=[0.5, 0.5, 0.5]), "timm: features"),
        ("hf", "config.json", lambda c: c.update(std=[0.5, 0.5, 0.5]), "load: features"),
        ("hf", "config.json", lambda c: c["bridge"].update(depth=0), "golden outputs"),
        ("hf", "image_encoder/config.json", lambda c: c.update(layer_norm_eps=0.1), "ViTModel: features"),
        (
            "hf",
            "image_encoder/preprocessor_config.json",
            lambda c: c.update(image_mean=[0, 0, 0]),
            "ViTModel: features",
        ),
        ("onnx", "config.json", lambda c: c["text"].update(logit_scale=1.0), "onnxruntime: logits"),
    ],
)
def test_another_config_is_found_with_new_checksums_too(copy, target, name, edit, what):
    folder = copy(target)
    edit_json(folder / name, edit)
    assert failed(folder)[name] == "changed"
    write_sums(folder)
    found = failed(folder)
    assert what in found
    assert name not in found


@pytest.mark.parametrize(("target", "name"), [("hf", "text_encoder/tokenizer.json"), ("onnx", "tokenizer.json")])
def test_another_tokenizer_is_found_with_new_checksums_too(copy, target, name):
    def swap(content):
        words = content["model"]["vocab"]
        words["glaucoma"], words["fundus"] = words["fundus"], words["glaucoma"]

    folder = copy(target)
    edit_json(folder / name, swap)
    assert failed(folder)[name] == "changed"
    write_sums(folder)
    found = failed(folder)
    assert found["tokenizer: text_ids"].startswith("fundus photograph, value 2: ")
    assert found[f"{'load' if target == 'hf' else 'onnxruntime'}: logits"].startswith("image 1, value 1: ")


def test_files_that_are_missing_or_come_in_addition_are_named(copy, capsys):
    folder = copy("timm")
    (folder / "golden.json").unlink()
    (folder / "modeling.py").write_text("print('hello')")
    (folder / "README.md").write_text("edited by its owner")
    (folder / ".gitattributes").write_text("of a hub")
    found = failed(folder)
    assert found.pop("golden outputs").startswith("cannot be computed")
    assert found == {"golden.json": "absent", "modeling.py": "not in SHA256SUMS"}


@pytest.mark.parametrize("part", ["image_encoder", "text_encoder"])
def test_code_in_a_folder_is_not_run(copy, tmp_path, part):
    folder = copy("hf")
    (folder / part / "own.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    names = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoTokenizer": ["own.Tokenizer", None]}
    edit_json(folder / part / "config.json", lambda config: config.update(model_type="own", auto_map=names))
    write_sums(folder)
    assert "golden outputs" in failed(folder)
    assert not (tmp_path / "executed").exists()


def test_a_number_that_is_none_fails(copy):
    folder = copy("timm")
    weights = load_file(folder / "model.safetensors")
    weights["norm.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors")
    assert failed(folder)["timm: features"].startswith("image 1, value 1: nan in place of")


def test_the_tolerance_is_used(copy):
    folder = copy("timm")
    weights = load_file(folder / "model.safetensors")
    weights["norm.bias"][0] += 0.01
    save_file(weights, folder / "model.safetensors")
    write_sums(folder)
    assert "timm: features" in failed(folder)
    assert not failed(folder, tolerance=0.02)
    with pytest.raises(SystemExit):
        main(["verify", str(folder), "--tolerance", "0"])


def test_a_text_tower_that_hears_nothing_is_not_exported(run_folder, tmp_path):
    """As of a published model whose texts all had similarity 1."""
    run = shutil.copytree(run_folder, tmp_path / "run")
    file = run / "checkpoints" / "latest-rank0.pt"
    content = torch.load(file, weights_only=True)
    for name, value in content["state"]["model"].items():
        if (
            name.startswith("net.text_encoder.encoder.embeddings.word")
            or "net.text_encoder.encoder.embeddings.pos" in name
        ):
            value.zero_()
    torch.save(content, file)
    with pytest.raises(UserError, match=r"different prompts: 'fundus photograph' and '.*' are the same"):
        export(run, "hf", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_what_is_no_export_is_refused(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert main(["verify", str(tmp_path)]) == 2
    assert "SHA256SUMS cannot be read" in capsys.readouterr().err
