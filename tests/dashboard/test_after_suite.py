"""What a suite that has ended does to the runs that it has evaluated."""

import json
import logging
from pathlib import Path

import pytest
from mlflow import MlflowClient

from maskedclip_composer.callbacks.mlflow_store import open_client, remember_run
from maskedclip_composer.callbacks.registry import register_version
from maskedclip_composer.dashboard import after_suite
from maskedclip_composer.dashboard.after_suite import refresh_runs
from maskedclip_composer.dashboard.note import NOTE
from tests.dashboard.written import write_run, write_suite


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> tuple[MlflowClient, str]:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = open_client(uri)
    client.create_experiment("pre-training", (folder / "artifacts").as_uri())
    return client, uri


def tracked(folder: Path, store: tuple[MlflowClient, str], model: str | None = None) -> str:
    """Write a run that is in the store, and registered where a model is named."""
    client, uri = store
    write_run(folder)
    run_id = client.create_run("1", run_name=folder.name).info.run_id
    remember_run(folder / "mlflow_run.json", run_id, uri, "pre-training")
    if model is not None:
        (folder / "encoder.safetensors").write_bytes(b"weights")
        register_version(
            client, run_id, name=model, encoder=folder / "encoder.safetensors", card=folder / "x", tags={"step": "120"}
        )
    return run_id


def test_pages_runs_and_registered_versions_hear_of_the_suite(tmp_path: Path, store):
    client, _ = store
    runs = {name: tmp_path / "runs" / name for name in ("good", "poor", "untracked")}
    ids = {name: tracked(runs[name], store, "retina") for name in ("good", "poor")}
    write_run(runs["untracked"])
    sources = {"random": f"random:{runs['good']}"} | {name: str(folder) for name, folder in runs.items()}
    roc = {"random": 0.5, "good": 0.9, "poor": 0.6, "untracked": 0.95}
    suite = write_suite(tmp_path / "elsewhere" / "eval", sources, roc, tasks=("APTOS", "ODIR"))
    assert refresh_runs(suite) == [folder / "dashboard.html" for folder in runs.values()]
    for folder in runs.values():
        assert json.loads((folder / "evaluated_by.json").read_text()) == ["../../elsewhere/eval"]
        assert "the only one evaluated" in (folder / "dashboard.html").read_text()

    for name, run_id in ids.items():
        entry = client.get_run(run_id)
        place = "downstream/probe/100pct/roc"
        expected = dict.fromkeys((f"{place}/APTOS 2019", f"{place}/ODIR 2019", f"{place}/mean"), roc[name])
        assert {key: value for key, value in entry.data.metrics.items() if "downstream" in key} == pytest.approx(
            expected
        )
        assert f"{name} by Linear probe" in entry.data.tags["downstream/best"]
        assert f"mean ROC {100 * roc[name]:.1f}" in entry.data.tags[NOTE]
        assert "dashboard.html" in [item.path for item in client.list_artifacts(run_id)]
        (version,) = client.search_model_versions(f"run_id = '{run_id}'")
        assert f"APTOS 2019 {100 * roc[name]:.1f} [" in version.tags["roc/probe/100pct"]
    assert client.get_model_version_by_alias("retina", "best").run_id == ids["good"]


def test_one_version_alone_is_not_called_best(tmp_path: Path, store):
    client, _ = store
    tracked(tmp_path / "runs" / "one", store, "alone")
    suite = write_suite(tmp_path / "runs" / "eval", {"one": str(tmp_path / "runs" / "one")}, {"one": 0.8})
    refresh_runs(suite)
    assert set(client.get_registered_model("alone").aliases) == {"newest"}


def test_a_checkpoint_from_before_the_end_is_not_taken_for_the_version(tmp_path: Path, store):
    client, _ = store
    run_id = tracked(tmp_path / "runs" / "one", store, "early")
    source = tmp_path / "runs" / "one" / "checkpoints" / "ep1-ba10-rank0.pt"
    refresh_runs(write_suite(tmp_path / "runs" / "eval", {"early": str(source)}, {"early": 0.8}))
    (version,) = client.search_model_versions(f"run_id = '{run_id}'")
    assert not [name for name in version.tags if name.startswith("roc/")]
    assert "early by Linear probe" in client.get_run(run_id).data.tags["downstream/best"]


def test_a_store_that_is_gone_costs_a_warning_without_its_password(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folder = write_run(tmp_path / "runs" / "one")
    uri = "http://me:hunter2@127.0.0.1:9"
    remember_run(folder / "mlflow_run.json", "0" * 32, uri, "pre-training")
    suite = write_suite(tmp_path / "runs" / "eval", {"one": str(folder)}, {"one": 0.8})
    asked = []
    working = after_suite.open_client
    monkeypatch.setattr(after_suite, "open_client", lambda uri: asked.append(uri) or working(uri))
    with caplog.at_level(logging.WARNING):
        assert refresh_runs(suite, uri) == [folder / "dashboard.html"]
    assert asked == [uri]  # with its credentials, which the run's folder does not keep
    assert "failed" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_run_that_the_store_does_not_have_and_one_that_cannot_be_written_are_warned_of(tmp_path: Path, store, caplog):
    folders = [write_run(tmp_path / "runs" / name) for name in ("one", "two")]
    remember_run(folders[0] / "mlflow_run.json", "0" * 32, store[1], "pre-training")
    (folders[1] / "dashboard.html").mkdir()  # nothing can be renamed to it
    sources = {folder.name: str(folder) for folder in folders}
    with caplog.at_level(logging.WARNING):
        pages = refresh_runs(write_suite(tmp_path / "runs" / "eval", sources, {"one": 0.8, "two": 0.7}))
    assert pages == [folders[0] / "dashboard.html"]
    assert "is not told of a suite" in caplog.text
    assert "is not brought up to date" in caplog.text
