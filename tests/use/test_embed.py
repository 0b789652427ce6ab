import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch

import maskedclip_composer
from maskedclip_composer.__main__ import COMMANDS, main
from maskedclip_composer.use import embed as command
from maskedclip_composer.use.embedding_table import Parts
from tests.model_run import write_run
from tests.use.conftest import GOOD, embed


def columns(path: Path) -> dict[str, list]:
    return pyarrow.parquet.read_table(path).to_pydict()


def test_the_table_has_both_features_of_every_photograph_that_can_be_read(index, photographs, run_folder):
    found = columns(index)
    assert found["image"] == [*GOOD[:2], "broken.jpg", *GOOD[2:]]
    assert found["status"] == ["embedded"] * 2 + ["unreadable"] + ["embedded"] * 2
    assert np.isnan(found["features"][2]).all()
    assert np.isnan(found["image_features"][2]).all()
    assert "cannot be decoded" in found["reason"][2]
    model, transform, _ = maskedclip_composer.load(run_folder)
    for name, features, image_features in zip(*(found[key] for key in ("image", "features", "image_features"))):  # noqa: B905
        if name != "broken.jpg":
            alone = transform(photographs / name)[None]
            np.testing.assert_allclose(features, model.encode_features(alone)[0], atol=1e-6)
            np.testing.assert_allclose(image_features, model.encode_image(alone)[0], atol=1e-6)


def test_what_cannot_be_read_is_listed(index):
    with open(f"{index}.unreadable.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == "broken.jpg"
    assert not Path(f"{index}.parts").exists()


def test_the_table_says_what_made_it(index, photographs, run_folder):
    about = json.loads(pyarrow.parquet.read_schema(index).metadata[b"maskedclip"])
    assert (about["model"], about["photographs"]) == (run_folder.name, photographs.name)
    assert "/" not in json.dumps(about)
    assert len(about["tokenizer_sha256"]) == 64
    assert about["architecture"]["image_size"] == 32
    assert about["recipe"]["size"] == 512
    assert len(about["encoder_sha256"]) == len(about["model_sha256"]) == 64


@pytest.mark.parametrize("workers", ["1", "2"])
def test_workers_change_no_bit(index, photographs, run_folder, tmp_path, workers):
    assert embed(photographs, tmp_path / "table.parquet", run_folder, "--workers", workers) == 0
    assert (tmp_path / "table.parquet").read_bytes() == index.read_bytes()


def _killed_after(written: int, arguments: tuple) -> None:
    write = Parts.write

    def last(self, start, table):
        write(self, start, table)
        if len(list(self.folder.glob("*.parquet"))) == written:
            os.kill(os.getpid(), signal.SIGKILL)

    command._ROWS = 1
    Parts.write = last
    embed(*arguments)


def test_a_killed_run_goes_on_and_ends_in_the_same_bits(index, photographs, run_folder, tmp_path, capsys):
    out = tmp_path / "table.parquet"
    child = multiprocessing.get_context("fork").Process(target=_killed_after, args=(2, (photographs, out, run_folder)))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(list(Path(f"{out}.parts").glob("*.parquet"))) == 2
    assert not out.exists()
    damaged = sorted(Path(f"{out}.parts").glob("*.parquet"))[1]
    damaged.write_bytes(damaged.read_bytes()[:100])  # as a machine without power leaves it
    assert embed(photographs, out, run_folder, "--batch-size", "3") == 2
    assert "was begun with --batch-size 2, not 3" in capsys.readouterr().err
    assert embed(photographs, out, run_folder) == 0
    assert " 2/5" in capsys.readouterr().err  # it did not begin anew
    for name, values in columns(index).items():
        np.testing.assert_array_equal(columns(out)[name], values)


def test_the_same_command_again_has_nothing_to_do(index, photographs, run_folder, monkeypatch):
    before, seen = index.stat().st_mtime_ns, []
    monkeypatch.setattr(command, "_summarise", lambda table, _: seen.extend(table.column_names) or 0)
    assert embed(photographs, index, run_folder) == 0
    assert index.stat().st_mtime_ns == before
    assert seen == ["image", "status", "reason"]  # not what is carried along, which may be large


def test_a_table_of_other_photographs_is_not_written_over(index, table, photographs, run_folder, capsys):
    assert embed(table, index, run_folder, "--images", photographs) == 2
    assert "PHOTOS (folder, names, sizes and times) of sha256" in capsys.readouterr().err


def test_the_features_of_another_folder_or_of_a_replaced_file_are_not_taken(
    index, photographs, run_folder, tmp_path, capsys
):
    other = shutil.copytree(photographs, tmp_path / "other")
    assert embed(other, index, run_folder) == 2
    assert "made with PHOTOS (folder" in capsys.readouterr().err
    out = tmp_path / "table.parquet"
    child = multiprocessing.get_context("fork").Process(target=_killed_after, args=(2, (other, out, run_folder)))
    child.start()
    child.join()
    shutil.copy(other / "c.JPG", other / "broken.jpg")
    assert embed(other, out, run_folder) == 2
    assert "was begun with PHOTOS (folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("runs/a/", "a"),
        ("/data/b.pt", "b.pt"),
        ("mae:/data/b.pth", "mae:b.pth"),
        ("timm:vit@/x/b", "timm:vit@b"),
        (".", Path.cwd().name),
        ("/data/me@here/c:d/e.pt", "e.pt"),
    ],
)
def test_a_source_is_named_without_its_folders(source, name):
    assert command._name(source) == name


def test_the_masked_space_needs_no_file_of_the_text_encoder(index, photographs, run_folder, text_tower, tmp_path):
    model = shutil.copytree(run_folder, tmp_path / "run")
    config = model / "config.yaml"
    config.write_text(config.read_text().replace(str(text_tower), str(tmp_path / "absent")))
    assert embed(photographs, tmp_path / "a.parquet", model) == 2
    assert embed(photographs, tmp_path / "a.parquet", model, "--space", "masked") == 0
    np.testing.assert_array_equal(columns(tmp_path / "a.parquet")["features"], columns(index)["features"])
    arguments = ["--index", index, "--image", photographs / "c.JPG", "--model", model, "--out", tmp_path / "a.csv"]
    assert main(["retrieve", *map(str, arguments)]) == 0


def test_a_table_of_another_model_is_not_written_over(index, photographs, run_folder, capsys):
    assert embed(photographs, index, run_folder / "encoder.safetensors") == 2
    assert "made with --model of sha256" in capsys.readouterr().err


def test_two_processes_do_not_write_one_table(photographs, run_folder, tmp_path):
    out = tmp_path / "table.parquet"
    parts = Parts(out, {}, 2)
    parts.open()
    child = multiprocessing.get_context("fork").Process(target=_exit_status, args=(photographs, out, run_folder))
    child.start()
    child.join()
    assert child.exitcode == 2


def _exit_status(*arguments):
    sys.exit(embed(*arguments))


def test_records_and_originals_have_the_same_features(photographs, table, prepared, run_folder, tmp_path):
    """Bit by bit: preparation and prediction are one."""
    assert embed(table, tmp_path / "a.parquet", run_folder, "--images", photographs) == 0
    assert embed(prepared, tmp_path / "b.parquet", run_folder) == 0
    originals, records = columns(tmp_path / "a.parquet"), columns(tmp_path / "b.parquet")
    for name in ("image", "label", "crop", "sha256", "features", "image_features"):
        assert originals[name] == records[name], name
    assert originals["text"] == ["=HYPERLINK(1), ödem"] * 4
    assert records["width"] == [None] * 4


def test_a_model_without_texts_has_the_masked_space_alone(photographs, text_tower, tmp_path, capsys):
    run = write_run(tmp_path, text_tower, "mae")
    assert embed(photographs, tmp_path / "a.parquet", run, "--space", "clip") == 2
    assert "trained without texts" in capsys.readouterr().err
    assert embed(photographs, tmp_path / "a.parquet", run) == 0
    assert "image_features" not in columns(tmp_path / "a.parquet")


def test_one_space_can_be_asked_for(index, photographs, run_folder, tmp_path):
    assert embed(photographs, tmp_path / "a.parquet", run_folder, "--space", "clip") == 0
    found = columns(tmp_path / "a.parquet")
    assert "features" not in found
    np.testing.assert_array_equal(found["image_features"], columns(index)["image_features"])


def test_encoders_of_others_are_taken(photographs, run_folder, tmp_path, capsys):
    assert embed(photographs, tmp_path / "a.parquet", f"random:{run_folder}") == 0
    features = columns(tmp_path / "a.parquet")["features"]
    assert len(features[0]) == 192
    assert np.isnan(features[2]).all()
    assert embed(photographs, tmp_path / "b.parquet", f"random:{run_folder}", "--space", "both") == 2
    assert "no CLIP space" in capsys.readouterr().err


def test_where_nothing_can_be_read_the_status_says_so(run_folder, tmp_path, capsys):
    (tmp_path / "=1.png").touch()
    assert embed(tmp_path, tmp_path / "a.parquet", run_folder) == 1
    assert "0 of 1 photographs embedded" in capsys.readouterr().out
    assert "'=1.png,empty file" in (tmp_path / "a.parquet.unreadable.csv").read_text()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("image,width\nc.JPG,1\n", [], "column width of the photographs' table"),
        ("path\nc.JPG\n", [], "no column image"),
        ("image\nc.JPG\n", ["--out", "a.csv"], "written as Parquet"),
        ("image\nc.JPG\n", ["--model", "absent"], "holds no model"),
        ("image\nc.JPG\n", ["--out", "/proc/a.parquet"], "--out /proc/a.parquet cannot be written"),
    ],
)
def test_mistakes_are_said_before_anything_is_computed(
    photographs, run_folder, tmp_path, capsys, content, options, message
):
    (tmp_path / "table.csv").write_text(content)
    out = tmp_path / "a.parquet"
    assert embed(tmp_path / "table.csv", out, run_folder, "--images", photographs, *options) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_commands_tell_their_options_without_torch():
    code = "import sys\nfrom maskedclip_composer.__main__ import main\ntry:\n main([sys.argv[1], '--help'])\n"
    code += "finally:\n assert 'torch' not in sys.modules, 'torch was imported'"
    for name in (name for name, (module, _) in COMMANDS.items() if module.startswith("use.")):
        done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert f"maskedclip_composer {name}" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_the_features_of_the_cpu(index, photographs, run_folder, tmp_path):
    options = ["--device", "cuda", "--workers", "2"]
    assert embed(photographs, tmp_path / "a.parquet", run_folder, *options) == 0
    for name in ("features", "image_features"):
        np.testing.assert_allclose(columns(tmp_path / "a.parquet")[name], columns(index)[name], atol=1e-4)
