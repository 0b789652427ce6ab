"""The page of a run that trains, and what MLflow has of it."""

import json
import logging
from pathlib import Path

import pytest
from composer.core import Callback, State
from composer.loggers import Logger
from mlflow import MlflowClient
from mlflow.entities import Run

from maskedclip_composer.callbacks import tracking
from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.callbacks.mlflow_store import open_client
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.dashboard import callback as module
from maskedclip_composer.dashboard.callback import Dashboard
from maskedclip_composer.dashboard.note import NOTE, set_note
from maskedclip_composer.dashboard.state import read_state
from tests.callbacks.tiny import make_trainer, run
from tests.dashboard.test_page import words

CONFIG = {
    "seed": 3,
    "objectives": {"mim": {}, "lg_clip": {"max_logit_scale": 100.0}, "mfd": None},
    "bridge": {"depth": 1},
    "trainer": {"max_duration": "2ep"},
}


@pytest.fixture(autouse=True)
def _swift(monkeypatch):
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.05)
    for name, value in (tracking.REQUEST_LIMITS | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


class Export(Callback):
    """Leave an encoder and a card, as a run of ours does at its end."""

    def __init__(self, folder: Path):
        self.folder = folder

    def fit_end(self, state: State, logger: Logger) -> None:
        (self.folder / "encoder.safetensors").write_bytes(b"weights")
        (self.folder / "model_card.md").write_text("# A card\n\n" + "word " * 2000)


class At(Callback):
    """Do something when a step has ended."""

    def __init__(self, step: int, action):
        self.step, self.action = step, action

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value == self.step:
            self.action()


def train(output: Path, config: TrackingConfig, *callbacks: Callback, interval: str | None = "1ep", **options) -> None:
    folder = output / "tiny"
    built: list[Dashboard] = []

    class Late(Callback):
        """Hands on to the page's callback, which needs the tracker that `make_trainer` builds."""

        def run_event(self, event, state: State, logger: Logger) -> None:
            for one in built:
                one.run_event(event, state, logger)

        def close(self, state: State, logger: Logger) -> None:
            for one in built:
                one.close(state, logger)

    trainer, loggers = make_trainer(
        output, config, resolved_config=CONFIG, callbacks=(*callbacks, Export(folder), Late()), **options
    )
    tracker = next((one for one in loggers if isinstance(one, FaultTolerantMLFlowLogger)), None)
    built.append(Dashboard(folder, interval, tracker))
    run(trainer)


def the_run(output: Path) -> tuple[MlflowClient, Run]:
    client = open_client(f"sqlite:///{output / 'mlflow.db'}")
    run_id = json.loads((output / "tiny" / "mlflow_run.json").read_text())["run_id"]
    return client, client.get_run(run_id)


def test_a_finished_run_is_described_tagged_and_registered(tmp_path: Path, caplog):
    folder = tmp_path / "tiny"
    early: list[str] = []
    config = TrackingConfig(picture_interval=None, register="retina", tags={"data": "my own"})
    train(tmp_path, config, At(4, lambda: early.append((folder / "dashboard.html").read_text())))
    assert not [record.message for record in caplog.records]
    assert "running" in words(early[0])
    assert "step 3 of 6" in words(early[0])
    assert "step 6 of 6" in words((folder / "dashboard.html").read_text())
    assert read_state(folder) == "finished"

    client, entry = the_run(tmp_path)
    assert entry.data.tags["state"] == "finished"
    assert entry.data.tags["objectives"] == "mim + lg_clip, bridge 1"
    assert entry.data.tags["parallelism"] == "ddp x 1"
    assert entry.data.tags["data"] == "my own"
    described = entry.data.tags[NOTE]
    assert "**finished**, step 6 of 6" in described
    place = f"#/experiments/{entry.info.experiment_id}/runs/{entry.info.run_id}/artifacts/dashboard.html"
    assert f"[dashboard.html]({place})" in described
    names = {item.path for item in client.list_artifacts(entry.info.run_id)}
    assert {"dashboard.html", "model_card.md", "encoder"} <= names

    (version,) = client.search_model_versions("name = 'retina'")
    assert (version.run_id, version.tags["step"], version.tags["run_name"]) == (entry.info.run_id, "6", "tiny")
    assert str(version.source).endswith(f"{entry.info.run_id}/artifacts/encoder")
    assert str(version.description).startswith("# A card")
    assert str(version.description).endswith("The whole card is the run's artifact model_card.md.")
    assert len(str(version.description)) <= 5000
    assert client.get_model_version_by_alias("retina", "newest").version == version.version
    stored = client.download_artifacts(entry.info.run_id, "encoder/encoder.safetensors")
    assert Path(stored).read_bytes() == b"weights"

    set_note(client, entry.info.run_id, "newer _Written by")
    assert client.get_run(entry.info.run_id).data.tags[NOTE].startswith("newer")
    client.set_tag(entry.info.run_id, NOTE, "My own words.")
    set_note(client, entry.info.run_id, described)
    assert client.get_run(entry.info.run_id).data.tags[NOTE] == "My own words."


def test_a_run_that_fails_says_so_and_registers_nothing(tmp_path: Path):
    def fail():
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        train(tmp_path, TrackingConfig(picture_interval=None, register="retina"), At(4, fail), interval=None)
    assert read_state(tmp_path / "tiny") == "failed"
    assert "stopped before its end" in words((tmp_path / "tiny" / "dashboard.html").read_text())
    client, entry = the_run(tmp_path)
    assert (entry.info.status, entry.data.tags["state"]) == ("FAILED", "stopped before its end")
    assert "dashboard.html" in {item.path for item in client.list_artifacts(entry.info.run_id)}
    assert not client.search_registered_models()


def test_a_step_that_was_not_finite_is_what_has_stopped_the_run(tmp_path: Path):
    def stop():
        fault = {"step": 4, "action": "stop", "norm": float("nan"), "ranks": []}
        (tmp_path / "tiny" / "faults.jsonl").write_text(json.dumps(fault) + "\n")
        raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        train(tmp_path, TrackingConfig(mlflow=False, picture_interval=None), At(4, stop))
    assert read_state(tmp_path / "tiny") == "not finite"
    assert "No: it diverged" in words((tmp_path / "tiny" / "dashboard.html").read_text())


def test_a_page_that_cannot_be_made_costs_a_warning(tmp_path: Path, monkeypatch, caplog):
    def broken(*_):
        raise KeyError("nobody thought of it")

    monkeypatch.setattr(module, "page", broken)
    train(tmp_path, TrackingConfig(mlflow=False, picture_interval=None))
    assert [record.message.split(": ")[1] for record in caplog.records] == ["KeyError"] * 2
    assert read_state(tmp_path / "tiny") == "finished"


def test_a_registry_that_is_not_there_costs_a_warning_and_no_run(tmp_path: Path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise NotImplementedError("this store has no registry")

    monkeypatch.setattr(MlflowClient, "create_model_version", refuse)
    with caplog.at_level(logging.WARNING):
        train(tmp_path, TrackingConfig(picture_interval=None, register="retina"), interval=None)
    (warning,) = [record.message for record in caplog.records]
    assert "refused a record: NotImplementedError: this store has no registry" in warning
    assert the_run(tmp_path)[1].info.status == "FINISHED"


def test_a_server_that_is_down_stops_neither_run_nor_page(tmp_path: Path, caplog):
    config = TrackingConfig(picture_interval=None, register="retina", tracking_uri="http://me:hunter2@127.0.0.1:9")
    train(tmp_path, config)
    assert "were not delivered" in caplog.text
    assert "hunter2" not in caplog.text
    assert "finished" in words((tmp_path / "tiny" / "dashboard.html").read_text())
