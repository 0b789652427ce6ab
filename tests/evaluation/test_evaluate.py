import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.metrics import average_precision_score, roc_auc_score

import evaluate
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation import run as evaluation_run
from maskedclip_composer.export.encoder import load_encoder, save_encoder
from tests.evaluation.conftest import SIZES, TINY

ROOT = Path(__file__).parents[2]


def run(capsys, *overrides: str) -> tuple[int, str, str]:
    status = evaluate.main([str(ROOT / "yamls" / "evaluate.yaml"), *overrides])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "encoder.safetensors"
    save_encoder(path, load_encoder(TINY, image_size=32).vit, name=TINY[7:], image_size=32, patch_size=16)
    return path


@pytest.mark.slow
def test_two_ranks_score_every_image_once_and_log_all(mds, encoder_file, tmp_path):
    launcher = Path(sys.executable).with_name("composer")
    options = ["finetune.epochs=2", "finetune.warmup_epochs=1", "finetune.batch_size=6", "seeds=[1]", "fraction=0.5"]
    places = [f"checkpoint={encoder_file}", f"data={mds}", f"output={tmp_path}", "run_name=both", "workers=0"]
    done = subprocess.run(
        [str(launcher), "-n", "2", str(ROOT / "evaluate.py"), str(ROOT / "yamls/evaluate.yaml"), *places, *options],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| finetune | 1 |" in done.stdout
    results = json.loads((tmp_path / "both" / "results.json").read_text())
    assert [(o["protocol"], o["seed"]) for o in results["outcomes"]] == [
        ("probe", 1), ("finetune", 1)
    ]  # fmt: skip
    for outcome in results["outcomes"]:
        name = f"{outcome['protocol']}-seed{outcome['seed']}"
        predictions = pd.read_csv(tmp_path / "both" / name / "predictions.csv", dtype={"label": str})
        assert len(predictions) == SIZES["test"]  # 21, which two ranks pad to 22
        assert predictions["record"].is_unique
        assert outcome["train_images"] == SIZES["train"] // 2
        one_hot = pd.get_dummies(predictions["label"])[results["classes"]].to_numpy()
        scores = predictions[results["classes"]].to_numpy()
        assert outcome["test"]["roc"] == pytest.approx(roc_auc_score(one_hot, scores, average="macro"))
        assert outcome["test"]["prc"] == pytest.approx(average_precision_score(one_hot, scores, average="macro"))
    check_mlflow(f"sqlite:///{tmp_path}/mlflow.db", results)
    # Nothing stray, such as mlruns; the lock is of the database's creation.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both", "mlartifacts", "mlflow.db", "mlflow.db.lock"]


def check_mlflow(uri: str, results: dict) -> None:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("maskedclip-evaluate")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"both", "probe-seed1", "finetune-seed1"}
    assert all(run.info.status == "FINISHED" for run in runs.values())
    parent, child = runs["both"], runs["finetune-seed1"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    outcome = results["outcomes"][1]
    assert child.data.metrics["test/roc"] == pytest.approx(outcome["test"]["roc"])
    assert len(client.get_metric_history(child.info.run_id, "val/roc")) == 2
    pictures = {file.path for file in client.list_artifacts(child.info.run_id)}
    assert {"roc.png", "pr.png", "confusion.png", "predictions.csv"} <= pictures
    assert parent.data.metrics["finetune/test/prc"] == pytest.approx(outcome["test"]["prc"])
    assert parent.data.params["fraction"] == "0.5"


def test_a_probe_alone_runs_once_however_many_seeds_and_does_not_overwrite(mds, encoder_file, tmp_path, capsys):
    places = [f"checkpoint={encoder_file.parent}", f"data={mds}", f"output={tmp_path}", "workers=1"]
    options = ["finetune=null", "seeds=[0,1]", "tracking.mlflow=false"]
    status, out, _ = run(capsys, *places, *options)
    assert status == 0
    assert "| probe | 1 |" in out
    (folder,) = tmp_path.iterdir()
    assert folder.name == f"evaluate-{encoder_file.parent.name}-{mds.name}-1"
    assert [file.name for file in folder.iterdir() if file.is_dir()] == ["probe-seed0"]
    status, _, err = run(capsys, *places, *options)
    assert status == 2
    assert "earlier evaluation" in err


def test_a_stopped_evaluation_can_be_done_anew(mds, encoder_file, tmp_path, capsys, monkeypatch):
    def stop(*args, **options):
        raise UserError("stopped")

    monkeypatch.setattr(evaluation_run, "finetune", stop)
    places = [f"checkpoint={encoder_file}", f"data={mds}", f"output={tmp_path}", "run_name=one", "workers=0"]
    options = [*places, "tracking.mlflow=false"]
    results = tmp_path / "one" / "results.json"
    status, _, err = run(capsys, *options)
    assert (status, "stopped" in err) == (2, True)
    stopped = json.loads(results.read_text())
    assert not stopped["complete"]
    assert [outcome["protocol"] for outcome in stopped["outcomes"]] == ["probe"]
    assert run(capsys, *options, "finetune=null")[0] == 0
    repeated = json.loads(results.read_text())
    assert repeated["complete"]
    assert repeated["outcomes"][0]["test"] == stopped["outcomes"][0]["test"]
    status, _, err = run(capsys, *options, "finetune=null")
    assert (status, "earlier evaluation" in err) == (2, True)


def test_ranks_wait_for_one_that_downloads(mds, encoder_file, tmp_path, capsys, monkeypatch):
    def initialise(device, timeout=300.0):
        raise UserError(f"timeout {timeout:.0f}")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(evaluation_run.dist, "initialize_dist", initialise)
    _, _, err = run(capsys, f"checkpoint={encoder_file}", f"data={mds}", f"output={tmp_path}")
    assert "timeout 3600" in err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("checkpoint=absent", "checkpoint=absent is no encoder"),
        ("data=absent", "data=absent has no folder 'train'"),
        ("fractoin=0.1", "Did you mean fraction?"),
        ("run_name=a/b", "must be a plain name"),
    ],
)
def test_mistakes_are_one_message_and_status_two(mds, encoder_file, tmp_path, capsys, override, message):
    status, out, err = run(
        capsys, f"checkpoint={encoder_file}", f"data={mds}", f"output={tmp_path}", "workers=0", override
    )
    assert status == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_damaged_photograph_stops_before_training(mds, encoder_file, tmp_path, capsys):
    from tests.evaluation.conftest import LABELS, write_mds

    shutil.copytree(mds, tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "test")
    write_mds(tmp_path / "set" / "test", list(LABELS), [b"x", b"y", b"z"])
    status, _, err = run(
        capsys, f"checkpoint={encoder_file}", f"data={tmp_path / 'set'}", f"output={tmp_path / 'out'}", "workers=0"
    )
    assert status == 2
    assert "3 photographs cannot be decoded" in err


def test_help_needs_no_config(capsys):
    assert evaluate.main(["--help"]) == 0
    assert "checkpoint" in capsys.readouterr().out
    assert evaluate.main([]) == 2
