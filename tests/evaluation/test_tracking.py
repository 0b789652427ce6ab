import dataclasses
import logging

import numpy as np
import pytest
from mlflow import MlflowClient

from maskedclip_composer.callbacks.config import MlflowConfig
from maskedclip_composer.callbacks.mlflow_store import open_client, remember_run
from maskedclip_composer.evaluation import tracking as module
from maskedclip_composer.evaluation.cells import (
    Cell,
    EncoderFacts,
    Outcome,
    Suite,
    TaskFacts,
    model_folder,
    picture_folder,
    save_outcome,
    save_results,
)
from maskedclip_composer.evaluation.config import EvaluateConfig
from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.tracking import SuiteTracker

CELLS = [
    Cell(encoder=encoder, task="t", protocol="p", amount=Amount(fraction=fraction), seed=seed)
    for encoder in ("a", "b")
    for fraction in (0.1, 1.0)
    for seed in (0, 1)
]


def outcome(seed: int) -> Outcome:
    rng = np.random.default_rng(seed)
    one_hot = np.eye(3, dtype=bool)[rng.integers(3, size=12)]
    one_hot[:, 2] = False  # absent: its numbers are NaN, which MLflow must not get
    one_hot[:, 0] |= ~one_hot.any(axis=1)
    scores = rng.dirichlet(np.ones(3), 12)
    metrics = classification_metrics(scores, one_hot, "ordinal")
    return Outcome(
        metrics=metrics, train_images=7, steps=3, val_roc=[0.5, 0.6], details={}, seconds=1.0, probabilities=scores
    )


@pytest.fixture
def config(tmp_path):
    return EvaluateConfig(
        checkpoints={"a": "x", "b": "y"},
        tasks=["t"],
        protocols=["p"],
        output=str(tmp_path),
        run_name="s",
        tracking=MlflowConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="e"),
    )


@pytest.fixture
def suite(config):
    facts = TaskFacts(
        title="T",
        kind="ordinal",
        classes=["0", "1", "2"],
        names=["0", "1", "2"],
        images={},
        untrained=[],
        fingerprint="",
    )
    encoders = {name: EncoderFacts(source=name, description=name, fingerprint=name) for name in "ab"}
    config.folder.mkdir(parents=True)
    (config.folder / "config.yaml").write_text("checkpoints: {}\n")
    for cell in CELLS:
        save_outcome(config.folder, cell, outcome(cell.seed))
    save_results(config.folder, [(cell, outcome(cell.seed)) for cell in CELLS])
    return Suite(
        complete=False,
        baseline="a",
        planned=CELLS,
        notes=[],
        encoders=encoders,
        tasks={"t": facts},
        protocols={"p": {}},
        provenance={},
    )


def runs(config) -> dict:
    client = MlflowClient(config.tracking.tracking_uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    names = [run.info.run_name for run in found]
    assert len(set(names)) == len(names)
    return {run.info.run_name: run for run in found}


def test_one_run_for_the_suite_and_a_nested_one_for_each_cell(config, suite):
    folder = config.folder / picture_folder(CELLS[2])
    folder.mkdir(parents=True)
    (folder / "roc.png").write_bytes(b"picture")
    for cell in CELLS[2:4]:  # only the pictured one of them
        model = config.folder / model_folder(cell) / "classifier.safetensors"
        model.parent.mkdir(parents=True)
        model.write_bytes(b"weights")
    tracker = SuiteTracker(config, suite, CELLS)
    for cell in CELLS:
        tracker.log(cell, outcome(cell.seed))
    place = tracker.close()
    found = runs(config)
    assert set(found) == {"s", *(cell.name for cell in CELLS)}
    parent = found["s"]
    assert place == {
        "tracking_uri": config.tracking.tracking_uri, "experiment": "e", "run_id": parent.info.run_id
    }  # fmt: skip
    assert all(run.info.status == "FINISHED" for run in found.values())
    child = found[CELLS[2].name]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params | {"encoder": "a", "task": "t", "protocol": "p", "amount": "100%"} == child.data.params
    scores = outcome(0).metrics
    assert child.data.metrics["test/roc"] == pytest.approx(scores["roc"])
    assert child.data.metrics["test/quadratic_kappa"] == pytest.approx(scores["quadratic_kappa"])
    client = MlflowClient(config.tracking.tracking_uri)
    assert len(client.get_metric_history(child.info.run_id, "val/roc")) == 2
    assert [file.path for file in client.list_artifacts(child.info.run_id)] == ["classifier", "roc.png"]
    (file,) = client.list_artifacts(child.info.run_id, "classifier")
    assert file.path == "classifier/classifier.safetensors"
    assert not client.list_artifacts(found[CELLS[3].name].info.run_id)
    assert {"config.yaml", "results.csv"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert parent.data.params["checkpoints.a"] == "x"


def test_the_suite_names_the_runs_that_it_evaluates_and_links_those_of_its_store(config, suite, tmp_path):
    client = open_client(config.tracking.tracking_uri)
    run_id = client.create_run("0", run_name="mine").info.run_id
    sources = {}
    for name, known in (("a", run_id), ("b", "f" * 32)):
        folder = tmp_path / "runs" / f"run_{name}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("run_name: x\n")
        remember_run(folder / "mlflow_run.json", known, "sqlite:///x", "e")
        sources[name] = str(folder)
    encoders = {name: dataclasses.replace(suite.encoders[name], source=source) for name, source in sources.items()}
    encoders["timm"] = dataclasses.replace(suite.encoders["a"], source="timm:vit")
    SuiteTracker(
        config, dataclasses.replace(suite, encoders=encoders, provenance={"git_commit": "0123abc"}), CELLS
    ).close()
    tags = runs(config)["s"].data.tags
    assert tags["evaluates"] == f"{run_id},{'f' * 32}"
    assert (tags["encoders"], tags["tasks"], tags["protocols"]) == ("a, b, timm", "t", "p")
    assert tags["mlflow.source.git.commit"] == "0123abc"
    note = tags["mlflow.note.content"]
    assert f"- **a**, of the pre-training run [run\\_a](#/experiments/0/runs/{run_id}), the baseline" in note
    assert "- **b**, of the pre-training run run\\_b\n" in note  # of another store: no address
    assert "- **timm**\n" in note


def test_a_suite_that_is_continued_continues_its_run_and_mends_what_was_cut(config, suite):
    first = SuiteTracker(config, suite, CELLS)
    for cell in CELLS[:3]:
        first.log(cell, outcome(cell.seed))
    # A kill in the middle of a cell leaves its run RUNNING.
    tags = {"mlflow.parentRunId": first._run, "maskedclip.cell": CELLS[3].name}
    half = first._client.create_run(first._experiment, run_name=CELLS[3].name, tags=tags)
    second = SuiteTracker(config, suite, CELLS)
    for cell in CELLS[3:]:
        second.log(cell, outcome(cell.seed))
    assert second.close()["run_id"] == first._run
    found = runs(config)
    assert set(found) == {"s", *(cell.name for cell in CELLS)}
    assert found[CELLS[3].name].info.run_id != half.info.run_id


def test_two_processes_leave_each_others_cells_alone(config, suite):
    """Both plan the same suite, each with an encoder of its own."""
    one, other = (SuiteTracker(config, suite, [cell for cell in CELLS if cell.encoder == name]) for name in "ab")
    tags = {"mlflow.parentRunId": one._run, "maskedclip.cell": CELLS[0].name}
    live = one._client.create_run(one._experiment, run_name="being logged", tags=tags).info.run_id
    other.close()
    assert one._client.get_run(live).info.lifecycle_stage == "active"
    one.close()
    assert set(runs(config)) == {"s", *(cell.name for cell in CELLS)}


def test_a_server_that_fails_costs_a_warning_and_gets_the_cells_later(config, suite, monkeypatch, caplog):
    tracker = SuiteTracker(config, suite, CELLS)
    tracker.log(CELLS[0], outcome(0))
    working = tracker._log
    calls = []

    def broken(cell, result):
        calls.append(cell)
        raise ConnectionError("no route to me:hidden@host")

    monkeypatch.setattr(tracker, "_log", broken)
    with caplog.at_level(logging.WARNING):
        for cell in CELLS[1:]:
            tracker.log(cell, outcome(cell.seed))
    assert len(calls) == 1  # the suite does not wait for a dead server again and again
    assert caplog.text.count("failed") == 1
    monkeypatch.setattr(tracker, "_log", working)
    tracker.close()
    assert set(runs(config)) == {"s", *(cell.name for cell in CELLS)}


def test_a_server_that_is_never_there_ends_without_an_error(config, suite, monkeypatch, caplog):
    def refuse(uri):
        raise ConnectionError("refused")

    monkeypatch.setattr(module, "open_client", refuse)
    tracker = SuiteTracker(config, suite, CELLS)
    tracker.log(CELLS[0], outcome(0))
    assert tracker.close() == {}
    assert str(config.folder) in caplog.text


def test_switched_off_nothing_is_written(config, suite, tmp_path):
    tracker = SuiteTracker(dataclasses.replace(config, tracking=MlflowConfig(mlflow=False)), suite, CELLS)
    tracker.log(CELLS[0], outcome(0))
    assert tracker.close() == {}
    assert not (tmp_path / "mlflow.db").exists()
