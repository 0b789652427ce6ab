import json
import subprocess
from pathlib import Path

import yaml

from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.callbacks.flatten import flatten
from maskedclip_composer.callbacks.mlflow_store import open_client
from maskedclip_composer.callbacks.run_record import git_state, package_versions
from tests.callbacks.tiny import make_trainer, run

SECRET = "hunter2"
CONFIG = {
    "seed": 3,
    "objectives": {"mim": {}, "mfd": None},
    "optimizer": {"betas": [0.9, 0.95]},
    "data": {"paired": {"remote": f"s3://me:{SECRET}@bucket/paired"}},
    "tracking": {"tracking_uri": None, "tags": {"hub_token": SECRET}},
    "text_encoder": {"max_tokens": 77, "description": "word " * 200},
}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_record_is_whole_and_without_secrets_in_files_and_mlflow(tmp_path: Path):
    config = TrackingConfig(picture_interval=None)
    run(make_trainer(tmp_path, config, resolved_config=CONFIG, save=True)[0])

    folder = tmp_path / "tiny"
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["data"]["paired"]["remote"] == "s3://***@bucket/paired"
    assert written["tracking"]["tags"]["hub_token"] == "***"
    assert written["optimizer"] == CONFIG["optimizer"]
    assert written["objectives"] == CONFIG["objectives"]
    assert json.loads((folder / "data_manifest.json").read_text()) == {"datasets": {"odir": 12}}
    assert json.loads((folder / "provenance.json").read_text())["versions"]["torch"].startswith("2.")

    client = open_client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = client.get_experiment_by_name("maskedclip")
    assert found is not None
    (entry,) = client.search_runs([found.experiment_id])
    assert entry.data.params["seed"] == "3"
    assert entry.data.params["objectives.mim"] == "{}"
    assert entry.data.params["objectives.mfd"] == "null"
    assert entry.data.params["optimizer.betas"] == "[0.9, 0.95]"
    assert entry.data.params["text_encoder.description"] == CONFIG["text_encoder"]["description"][:500]
    assert entry.data.params["versions.mosaicml"] == "0.32.1"
    assert entry.data.tags["checkpoint/latest"] == str(folder / "checkpoints" / "ep1-ba6-rank0.pt")
    names = {item.path for item in client.list_artifacts(entry.info.run_id)}
    assert names == {"config.yaml", "data", "data_manifest.json", "provenance.json"}
    assert [item.path for item in client.list_artifacts(entry.info.run_id, "data/paired")] == [
        "data/paired/DATA_CARD.md"
    ]

    for file in tmp_path.rglob("*"):
        if file.is_file() and file.suffix != ".pt":
            assert SECRET.encode() not in file.read_bytes(), file


def test_flatten_joins_keys_and_keeps_empty_mappings():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, None], "e": "x"}) == {
        "a.b": "1",
        "a.c": "{}",
        "d": "[1, null]",
        "e": "x",
    }


def test_git_state_of_a_checkout_and_of_changes_in_it(tmp_path: Path):
    package = tmp_path / "package"
    package.mkdir()
    assert git_state(package) == {"git_commit": None, "git_dirty": None}

    git(tmp_path, "init", "-q")
    (package / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(package) == {"git_commit": commit, "git_dirty": False}

    (package / "code.py").write_text("x = 2\n")
    assert git_state(package) == {"git_commit": commit, "git_dirty": True}

    installed = tmp_path / "venv" / "package"  # inside the repository, but none of its files
    installed.mkdir(parents=True)
    (installed / "code.py").touch()
    assert git_state(installed) == {"git_commit": None, "git_dirty": None}


def test_a_package_that_is_not_installed_is_named_absent(monkeypatch):
    monkeypatch.setattr("maskedclip_composer.callbacks.run_record.PACKAGES", ("torch", "no-such-package"))
    versions = package_versions()
    assert versions["no-such-package"] == "absent"
    assert versions["torch"] != "absent"
