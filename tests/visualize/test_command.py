import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from maskedclip_composer.__main__ import main
from maskedclip_composer.callbacks.mlflow_store import remember_run
from maskedclip_composer.visualize.kinds import KINDS
from tests.model_run import write_run


def visualize(photos, out, *options) -> int:
    arguments = ["visualize", photos, "--out", out, "--workers", "0", *options]
    return main([str(argument) for argument in arguments])


def numbers(folder: Path) -> dict:
    return json.loads((folder / "pictures.json").read_text())


@pytest.fixture(scope="module")
def drawn(table, run_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pictures") / "all"
    options = ["--labels", "label", "--sets", "camera", "--count", "3", "--text", "glaucoma", "fundus & <photograph>"]
    assert visualize(table, out, "--model", run_folder, *options) == 0
    return out


def test_every_kind_is_drawn_with_its_numbers(drawn):
    assert {path.name for path in drawn.iterdir()} == {
        "index.html",
        "pictures.json",
        *(f"{kind}.png" for kind in KINDS),
    }
    found = numbers(drawn)["pictures"]
    assert set(found) == set(KINDS)
    assert found["reconstruction"]["mask_ratio"] == 0.75
    assert len(found["reconstruction"]["error_per_photograph"]) == 3
    spaces = ["E_I, mean patch", "E_I, class token", "E_I + B, mean patch", "E_I + B, class token"]
    assert [name for name in found["attention"] if name.startswith("E_I")] == spaces
    assert list(found["texts"]["texts"]) == ["glaucoma", "fundus & <photograph>"]
    assert 0 < sum(found["patches"]["E_I + B"]["explained_variance"]) <= 1
    assert found["spaces"]["photographs"] == 8
    assert found["spaces"]["masked space (E_I)"]["patients_apart"]
    assert found["spaces"]["modality_gap"]["texts"] == 4  # the photographs' own, where they have one
    for kind in KINDS:
        with Image.open(drawn / f"{kind}.png") as picture:
            assert picture.width > 800


def test_the_page_needs_no_other_file_and_says_what_was_left_out(drawn):
    text = (drawn / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert text.count("<img") == len(KINDS) == text.count("Limits: ")
    assert "fundus &amp; &lt;photograph&gt;" in text
    assert "<photograph>" not in text
    assert "broken.jpg" in text
    assert "no proof of localisation" in text
    assert "visualize" in text


def test_the_same_call_draws_the_same(drawn, table, run_folder, tmp_path):
    options = ["--kinds", "reconstruction", "--count", "3", "--labels", "label"]
    assert visualize(table, tmp_path, "--model", run_folder, *options) == 0
    assert (tmp_path / "reconstruction.png").read_bytes() == (drawn / "reconstruction.png").read_bytes()
    assert visualize(table, tmp_path, "--model", run_folder, *options, "--seed", "1", "--mask-ratio", "0.5") == 0
    found = numbers(tmp_path)["pictures"]["reconstruction"]
    assert (found["mask_ratio"], found["seed"]) == (0.5, 1)
    assert found["error_per_photograph"] != numbers(drawn)["pictures"]["reconstruction"]["error_per_photograph"]


def test_one_photograph_and_an_encoder_alone_leave_out_what_cannot_be_drawn(table, run_folder, tmp_path, capsys):
    photo = table.parent / "0.jpg"
    assert visualize(photo, tmp_path, "--model", run_folder / "encoder.safetensors", "--text", "glaucoma") == 0
    assert set(numbers(tmp_path)["pictures"]) == {"attention", "patches"}
    left_out = numbers(tmp_path)["left_out"]
    assert set(left_out) == {"reconstruction", "texts", "spaces"}
    said = capsys.readouterr().out
    assert all(f"left out: {name}: {reason}" in said for name, reason in left_out.items())
    columns = [name for name in numbers(tmp_path)["pictures"]["attention"] if name.startswith("E_I")]
    assert columns == ["E_I, mean patch", "E_I, class token"]  # it has no bridge


def test_normalised_patches_are_said_to_have_no_colour(table, text_tower, tmp_path):
    folder = write_run(tmp_path, text_tower, "mae")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("target_norm: none", "target_norm: patch"))
    out = tmp_path / "out"
    assert visualize(table, out, "--model", folder, "--kinds", "reconstruction") == 0
    assert numbers(out)["pictures"]["reconstruction"]["target_norm"] == "patch"
    assert "predicts no absolute colour" in (out / "index.html").read_text()


def test_a_table_of_features_gives_the_same_spaces(drawn, table, run_folder, tmp_path, capsys):
    features = tmp_path / "features.parquet"
    assert main(["embed", str(table), "--model", str(run_folder), "--out", str(features), "--workers", "0"]) == 0
    options = ["--labels", "label", "--sets", "camera"]
    assert visualize(features, tmp_path / "with", "--model", run_folder, *options) == 0
    found, expected = numbers(tmp_path / "with")["pictures"]["spaces"], numbers(drawn)["pictures"]["spaces"]
    assert found["CLIP space (E_I + B, projected)"] == expected["CLIP space (E_I + B, projected)"]
    for name in ("linear_cka_debiased", "linear_cka"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6)
    assert found["modality_gap"]["distance"] == pytest.approx(expected["modality_gap"]["distance"], abs=1e-6)
    assert visualize(features, tmp_path / "without", "--points", "5") == 0
    assert numbers(tmp_path / "without")["pictures"]["spaces"]["photographs"] == 5
    assert "modality_gap" not in numbers(tmp_path / "without")["pictures"]["spaces"]
    errors = [
        (["--kinds", "attention"], "no photographs in it"),
        (["--text", "glaucoma"], "--model"),
        (["--labels", "lable"], "Did you mean label?"),
        (["--model", run_folder / "encoder.safetensors"], "is not the model"),
    ]
    for options, message in errors:
        assert visualize(features, tmp_path / "none", *options) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--model is missing"),
        (["--model", "RUN", "--labels", "lable"], "Did you mean label?"),
        (["--model", "RUN", "--sets", "xyz"], "It has label, patient, camera, text"),
        (["--model", "RUN", "--kinds", "texts"], "no text to compare with"),
        (["--model", "RUN/encoder.safetensors", "--kinds", "reconstruction"], "no pixel decoder"),
        (["--model", "RUN/encoder.safetensors", "--kinds", "texts", "--text", "a"], "trained without texts"),
        (["--model", "RUN", "--mask-ratio", "0.99"], "0 would stay visible"),
        (["--model", "RUN", "--mask-ratio", "1"], "between 0 and 1"),
        (["--model", "RUN", "--text", "a", " "], "empty"),
        (["--model", "RUN", "--text", *"abcdefghi"], "9 texts"),
        (["--model", "RUN", "--seed", "-1"], "--seed -1"),
        (["--model", "RUN/encoder.safetensors", "--log"], "which MLflow run"),
    ],
)
def test_what_cannot_be_done_is_refused(table, run_folder, tmp_path, capsys, options, message):
    given = [option.replace("RUN", str(run_folder)) for option in options]
    assert visualize(table, tmp_path / "out", *given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_photographs_none_of_which_can_be_read_are_refused(table, run_folder, tmp_path, capsys):
    assert visualize(table.parent / "broken.jpg", tmp_path / "out", "--model", run_folder) == 2
    assert "broken.jpg: cannot be decoded" in capsys.readouterr().err


def test_pictures_go_to_the_models_own_run(table, run_folder, tmp_path, caplog):
    store = tmp_path / "mlruns"
    client = MlflowClient(store.as_uri())
    experiment = client.create_experiment("e")
    run = client.create_run(experiment)
    model = shutil.copytree(run_folder, tmp_path / "run")
    remember_run(model / "mlflow_run.json", run.info.run_id, store.as_uri(), "e")
    options = ["--model", model, "--kinds", "attention", "--count", "1", "--log"]
    assert visualize(table, tmp_path / "out", *options) == 0
    stored = {file.path for file in client.list_artifacts(run.info.run_id, "pictures")}
    assert stored == {"pictures/index.html", "pictures/pictures.json", "pictures/attention.png"}
    remember_run(model / "mlflow_run.json", run.info.run_id, "http://127.0.0.1:9", "e")
    assert visualize(table, tmp_path / "out", *options) == 0
    assert "MLflow at http://127.0.0.1:9 failed" in caplog.text


def test_no_weight_of_attention_is_lost(drawn):
    found = numbers(drawn)["pictures"]["attention"]
    for name in ("E_I, mean patch", "E_I + B, class token"):
        assert found[name]["least"] <= 1 <= found[name]["greatest"]
        assert 0 <= found[name]["weight_on_surround"] <= 1
    assert np.isfinite(found["area_of_surround"])
