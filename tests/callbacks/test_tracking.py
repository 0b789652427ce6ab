import json
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from composer.core import Callback, State
from composer.loggers import Logger
from mlflow import MlflowClient
from mlflow.entities import Run
from werkzeug.serving import make_server

from maskedclip_composer.callbacks import tracking
from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.callbacks.mlflow_store import default_tracking_uri, open_client
from tests.callbacks.test_metrics_file import read
from tests.callbacks.tiny import make_trainer, run

STEPS = 6
FORK = multiprocessing.get_context("fork")  # a fresh interpreter would import for ten seconds


@pytest.fixture(autouse=True)
def _swift(monkeypatch):
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.1)
    for name, value in (tracking.REQUEST_LIMITS | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


class Server:
    """An MLflow server in a process of its own, which can be killed and come back at the same address."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = FORK.Process(target=self._serve, daemon=True)
        self.process.start()

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(answers)

    def die(self) -> None:
        self.process.kill()
        self.process.join()

    def _serve(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        # What `mlflow server --backend-store-uri … --artifacts-destination …` hands to its workers.
        os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{self.folder / 'server.db'}"
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
        os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = str(self.folder / "server_artifacts")
        os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
        os.chdir(self.folder)
        from mlflow.server import app

        make_server("127.0.0.1", self.port, app, threaded=True).serve_forever()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.die()


class AtStep(Callback):
    """Call something when a step has ended."""

    def __init__(self, step: int, action):
        self.step = step
        self.action = action

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value == self.step:
            self.action()


def the_run(uri: str, experiment: str = "maskedclip") -> tuple[MlflowClient, Run]:
    client = open_client(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (entry,) = client.search_runs([found.experiment_id])
    return client, entry


def steps_of(client: MlflowClient, entry: Run, metric: str = "loss/train/total") -> list[int]:
    return sorted(item.step for item in client.get_metric_history(entry.info.run_id, metric))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_without_settings_is_in_the_outputs_database(tmp_path: Path, monkeypatch, caplog):
    working_directory = tmp_path / "elsewhere"
    working_directory.mkdir()
    monkeypatch.chdir(working_directory)
    config = TrackingConfig(experiment="retina", tags={"recipe": "maskedclip"}, picture_interval="1ep")
    run(make_trainer(tmp_path, config)[0])

    client, entry = the_run(f"sqlite:///{tmp_path / 'mlflow.db'}", "retina")
    assert entry.info.status == "FINISHED"
    assert entry.info.run_name == "tiny"
    assert entry.data.tags["recipe"] == "maskedclip"
    assert entry.data.tags["run_name"] == "tiny"
    assert entry.data.params["data.image_size"] == "32"
    for name in ("total", "mim", "lg_clip", "mfd"):
        assert steps_of(client, entry, f"loss/train/{name}") == list(range(STEPS))
    assert {"lr-AdamW/group0", "diagnostics/lg_clip/logit_scale", "diagnostics/host_memory_gib"} <= set(
        entry.data.metrics
    )
    pictures = [item.path for item in client.list_artifacts(entry.info.run_id, "pictures")]
    assert pictures == ["pictures/ba0000003.png", "pictures/ba0000006.png"]
    assert Path(client.download_artifacts(entry.info.run_id, pictures[0])).is_relative_to(tmp_path / "mlartifacts")
    assert list(working_directory.iterdir()) == []
    assert not caplog.records


def test_the_same_metrics_are_in_mlflow_and_in_the_file(tmp_path: Path):
    run(make_trainer(tmp_path, TrackingConfig(picture_interval=None))[0])
    client, entry = the_run(f"sqlite:///{tmp_path / 'mlflow.db'}")
    sent = {item.step: item.value for item in client.get_metric_history(entry.info.run_id, "loss/train/total")}
    kept = {line["batch"] - 1: line["loss/train/total"] for line in read(tmp_path) if "loss/train/total" in line}
    assert sent == kept


def test_opening_a_database_keeps_the_logging_of_the_process(tmp_path: Path, capfd):
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        level = logging.getLogger().level
        run(make_trainer(tmp_path, TrackingConfig(picture_interval=None))[0])
        assert handler in logging.getLogger().handlers
        assert logging.getLogger().level == level
    finally:
        logging.getLogger().removeHandler(handler)
    assert "alembic" not in capfd.readouterr().err


def test_a_server_that_is_down_at_the_start_costs_one_warning(tmp_path: Path, caplog):
    config = TrackingConfig(tracking_uri="http://me:hunter2@127.0.0.1:9", picture_interval="1ep")
    began = time.monotonic()
    run(make_trainer(tmp_path, config)[0])
    assert time.monotonic() - began < 20
    down, lost = (record.message for record in caplog.records)
    assert "http://***@127.0.0.1:9 cannot be reached" in down
    assert "metrics.jsonl" in down
    assert "were not delivered" in lost
    assert "hunter2" not in caplog.text
    assert [line["batch"] for line in read(tmp_path) if "loss/train/total" in line] == [1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / "tiny" / "pictures").iterdir())) == 2


def test_a_server_that_hangs_does_not_slow_the_training(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        config = TrackingConfig(tracking_uri=f"http://127.0.0.1:{silent.getsockname()[1]}", picture_interval=None)
        trainer, _ = make_trainer(tmp_path, config)
        began = time.monotonic()
        trainer.fit()
        trained = time.monotonic() - began
        trainer.close()
        closed = time.monotonic() - began - trained
    assert trained < 1
    assert closed < 6
    assert "cannot be reached" in caplog.text
    assert read(tmp_path)[-1]["batch"] == STEPS


def test_a_server_that_dies_midway_gets_everything_when_it_is_back(server: Server, tmp_path: Path, caplog):
    def die():
        wait_for(lambda: loggers[1].run_id is not None)
        wait_for(lambda: steps_of(*the_run(server.uri)) == [0, 1])
        server.die()

    def come_back():
        wait_for(lambda: "cannot be reached" in caplog.text)
        server.start()

    config = TrackingConfig(tracking_uri=server.uri, picture_interval="2ba")
    trainer, loggers = make_trainer(tmp_path, config, callbacks=(AtStep(2, die), AtStep(5, come_back)))
    run(trainer)
    client, entry = the_run(server.uri)
    assert entry.info.status == "FINISHED"
    assert steps_of(client, entry) == list(range(STEPS))
    stored = tmp_path / "server_artifacts"
    assert sorted(path.name for path in stored.rglob("*.png")) == ["ba0000002.png", "ba0000004.png", "ba0000006.png"]
    assert any(stored.rglob("config.yaml"))
    assert [record.message.split(" ")[3:5] for record in caplog.records if record.name == tracking.__name__] == [
        ["cannot", "be"],
        ["answers", "again;"],
    ]


def test_a_server_that_dies_for_good_leaves_the_run_whole_on_disk(server: Server, tmp_path: Path, caplog):
    config = TrackingConfig(tracking_uri=server.uri, picture_interval="2ba")
    trainer, loggers = make_trainer(
        tmp_path, config, callbacks=(AtStep(1, lambda: wait_for(lambda: loggers[1].run_id)), AtStep(3, server.die))
    )
    began = time.monotonic()
    run(trainer)
    assert time.monotonic() - began < 20
    assert "were not delivered" in caplog.text
    assert [line["batch"] for line in read(tmp_path) if "loss/train/total" in line] == [1, 2, 3, 4, 5, 6]
    server.start()
    _, entry = the_run(server.uri)
    assert entry.info.status == "RUNNING"  # nobody could tell the server; a resumed run mends it


def test_a_killed_run_is_continued_and_ends_finished(tmp_path: Path):
    config = TrackingConfig(picture_interval=None)
    uri = default_tracking_uri(tmp_path)

    def train_until_killed():
        def kill():
            wait_for(lambda: loggers[1].run_id and not loggers[1]._metrics and not loggers[1]._sending)
            os.kill(os.getpid(), signal.SIGKILL)

        trainer, loggers = make_trainer(tmp_path, config, save=True, callbacks=(AtStep(5, kill),))
        trainer.fit()

    process = FORK.Process(target=train_until_killed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    _, killed = the_run(uri)
    assert killed.info.status == "RUNNING"

    remembered = json.loads((tmp_path / "tiny" / "mlflow_run.json").read_text())
    assert remembered == {"run_id": killed.info.run_id, "tracking_uri": uri, "experiment": "maskedclip"}

    run(make_trainer(tmp_path, config, save=True, resolved_config={"seed": 4, "new": True})[0])
    client, entry = the_run(uri)  # one run alone
    assert entry.info.run_id == killed.info.run_id
    assert entry.info.status == "FINISHED"
    assert steps_of(client, entry) == list(range(STEPS))  # the fifth step was taken twice
    assert [line["batch"] for line in read(tmp_path) if "loss/train/total" in line] == [1, 2, 3, 4, 5, 6]
    assert entry.data.params["seed"] == "3"  # MLflow's parameters cannot change
    assert entry.data.params["new"] == "true"


def test_runs_of_one_name_on_one_server_stay_apart(tmp_path: Path):
    config = TrackingConfig(picture_interval=None, tracking_uri=f"sqlite:///{tmp_path / 'shared.db'}")
    client = open_client(str(config.tracking_uri))

    def train(person: str, duration: str) -> Run:
        run(make_trainer(tmp_path / person, config, save=True, duration=duration)[0])
        return client.get_run(json.loads((tmp_path / person / "tiny" / "mlflow_run.json").read_text())["run_id"])

    first = train("alice", "1ep")
    client.update_run(first.info.run_id, status="RUNNING")  # as a killed run, or one that goes on, leaves it
    other = train("bob", "1ep")
    assert other.info.run_id != first.info.run_id
    assert client.get_run(first.info.run_id).info.status == "RUNNING"

    resumed = train("alice", "2ep")  # Bob's is the newest of that name
    assert resumed.info.run_id == first.info.run_id
    assert steps_of(client, resumed) == list(range(STEPS))
    assert steps_of(client, other) == list(range(STEPS // 2))


def test_a_run_that_the_server_does_not_have_is_begun_anew(tmp_path: Path, caplog):
    ids = []
    for server, duration in (("old", "1ep"), ("new", "2ep")):
        config = TrackingConfig(picture_interval=None, tracking_uri=f"sqlite:///{tmp_path / server}.db")
        run(make_trainer(tmp_path, config, save=True, duration=duration)[0])
        _, entry = the_run(str(config.tracking_uri))
        assert json.loads((tmp_path / "tiny" / "mlflow_run.json").read_text())["run_id"] == entry.info.run_id
        ids.append(entry.info.run_id)
    (warning,) = [record.message for record in caplog.records if record.name == tracking.__name__]
    assert f"MLflow run {ids[0]}" in warning
    assert ids[1] not in warning


def test_a_run_from_the_start_does_not_continue_one_that_has_ended(tmp_path: Path):
    config = TrackingConfig(picture_interval=None)
    for _ in range(2):
        run(make_trainer(tmp_path, config, duration="1ba")[0])
    client = open_client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = client.get_experiment_by_name("maskedclip")
    assert found is not None
    assert len(client.search_runs([found.experiment_id])) == 2


def test_a_failed_run_ends_failed(tmp_path: Path):
    def fail():
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        run(make_trainer(tmp_path, TrackingConfig(picture_interval=None), callbacks=(AtStep(4, fail),))[0])
    client, entry = the_run(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert entry.info.status == "FAILED"
    assert steps_of(client, entry) == [0, 1, 2, 3]


def test_what_a_living_server_refuses_is_dropped_with_a_warning(tmp_path: Path, caplog):
    trainer, loggers = make_trainer(tmp_path, TrackingConfig(picture_interval=None))
    tracker = loggers[1]
    assert isinstance(tracker, tracking.FaultTolerantMLFlowLogger)
    tracker.log_artifact(tmp_path / "absent.png")
    (tmp_path / "grows.txt").write_text("x")
    tracker.log_at_end(tmp_path / "grows.txt")
    tracker.log_metrics({"recall@5": 0.5}, step=7)
    run(trainer)
    (warning,) = [record.message for record in caplog.records]
    assert "refused a record" in warning
    assert "absent.png" in warning
    client, entry = the_run(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert entry.info.status == "FINISHED"
    assert entry.data.metrics["recall_5"] == 0.5
    assert "grows.txt" in [artifact.path for artifact in client.list_artifacts(entry.info.run_id)]


def test_the_environment_names_the_server_unless_the_config_does(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    _, loggers = make_trainer(tmp_path, TrackingConfig())
    assert loggers[1].tracking_uri == "http://host:5000"
    _, loggers = make_trainer(tmp_path, TrackingConfig(tracking_uri="http://other:5000"))
    assert loggers[1].tracking_uri == "http://other:5000"
    assert not (tmp_path / "mlflow.db").exists()


def test_a_users_limits_of_requests_are_kept(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    make_trainer(tmp_path, TrackingConfig())
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


def test_mlflow_can_be_switched_off(tmp_path: Path):
    run(make_trainer(tmp_path, TrackingConfig(mlflow=False))[0])
    assert not (tmp_path / "mlflow.db").exists()
    assert (tmp_path / "tiny" / "config.yaml").is_file()
    assert len(list((tmp_path / "tiny" / "pictures").iterdir())) == 2


def test_what_comes_last_may_take_longer_where_it_is_allowed_to(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.05)
    trainer, loggers = make_trainer(tmp_path, TrackingConfig(picture_interval=None))
    tracker = loggers[1]
    assert isinstance(tracker, tracking.FaultTolerantMLFlowLogger)
    seen = []

    def slow(client: MlflowClient, run_id: str) -> None:
        time.sleep(0.5)
        seen.append((run_id, client.get_run(run_id).info.status))

    tracker.add_at_end(slow, patience=60.0)
    run(trainer)
    assert seen == [(tracker.run_id, "RUNNING")]
    assert the_run(f"sqlite:///{tmp_path / 'mlflow.db'}")[1].info.status == "FINISHED"
