"""MLflow for runs that outlive their tracking server."""

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from composer.core import State
from composer.loggers import Logger, LoggerDestination
from composer.utils import dist
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from maskedclip_composer.callbacks.mlflow_store import (
    REQUEST_LIMITS,
    find_run,
    log_artifact,
    open_client,
    remember_run,
    remembered_run,
)
from maskedclip_composer.callbacks.redaction import redact_text

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
RETRY_SECONDS = 30.0
CLOSE_SECONDS = 60.0
MAX_PENDING_METRICS = 200_000  # about 100 MB; older ones are given up, metrics.jsonl has them
METRICS_PER_REQUEST = 1000  # MLflow 2.22 refuses more, and more than 100 parameters
PARAMS_PER_REQUEST = 100
VALUE_LENGTH = 500  # what every MLflow server since 1.0 takes

Record = Callable[[MlflowClient, str], object]


class FaultTolerantMLFlowLogger(LoggerDestination):
    """Send metrics, parameters, tags and files to MLflow from a thread of its own.

    A server that is down at the start, dies midway or hangs never stops or slows the training: the thread warns once,
    keeps what is pending in memory, and tries again every 30 s and when the run ends, which it delays by a minute at
    most. A record that a living server refuses is dropped with a warning.

    This is not a subclass of Composer's MLFlowLogger (0.32.1), which connects in its constructor and there takes the
    run down with the server, gives up what its asynchronous requests could not deliver, waits at the end for all their
    retries, and marks a crashed run FINISHED.

    The id of the MLflow run is kept in `mlflow_run.json` of the run folder, and no other is ever continued: on a shared
    server other people's runs may have the same name. A resumed run continues it if it is in this experiment of this
    server; a run that starts from step 0 does so only when it is still RUNNING, that is, was killed before its first
    checkpoint. Steps that are repeated after a kill are not sent again. Only rank 0 sends.
    MLflow's variables MLFLOW_HTTP_REQUEST_TIMEOUT and MLFLOW_HTTP_REQUEST_MAX_RETRIES are honoured when set.

    Args:
        tracking_uri: Where to send; credentials in it are never printed.
        experiment: Created when absent.
        artifact_root: Artifacts of a new experiment go there; None leaves it to the server.
        run_name: Name and tag of the run.
        run_folder: Keeps `mlflow_run.json`.
        tags: Further tags.
        fallback: Where the metrics are to be found when they could not be delivered; named in warnings.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        experiment: str,
        artifact_root: str | None,
        run_name: str,
        run_folder: Path,
        tags: dict[str, str],
        fallback: Path,
    ):
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.artifact_root = artifact_root
        self.run_name = run_name
        self.run_file = run_folder / "mlflow_run.json"
        self.tags = tags
        self.fallback = fallback
        self.run_id: str | None = None  # known once the server has answered
        self._enabled = dist.get_global_rank() == 0
        self._metrics: deque[Metric] = deque(maxlen=MAX_PENDING_METRICS)
        self._records: deque[Record] = deque()
        self._at_end: set[Path] = set()
        self._last: list[Record] = []
        self._patience = CLOSE_SECONDS
        self._sending: list[Metric] = []
        self._known_params: set[str] = set()
        self._known_steps: dict[str, int] = {}  # per metric, the last step that an earlier process has sent
        self._client: MlflowClient | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._is_down = False
        self._resumed = False
        self._failed = True  # until the training has reached its end
        if self._enabled:
            for name, value in REQUEST_LIMITS.items():
                os.environ.setdefault(name, value)

    def add(self, record: Record) -> None:
        """Queue whatever is to be done with the client and the run's id; it may be called twice, and only rank 0 does.

        A record is dropped with a warning when it raises though the server lives.
        """
        if self._enabled:
            self._records.append(record)

    def add_at_end(self, record: Record, *, patience: float = CLOSE_SECONDS) -> None:
        """Queue what is to be done after everything else, if the training comes to its end.

        Args:
            record: As in `add`.
            patience: Seconds that the end of the run may be delayed by while the server answers.
        """
        self._last.append(record)
        self._patience = max(self._patience, patience)

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Queue metrics; characters that MLflow does not allow in names become underscores."""
        if self._enabled:
            now = time.time_ns() // 1_000_000
            self._metrics.extend(
                Metric(re.sub(r"[^\w.\- :/]", "_", name), float(value), now, step or 0)
                for name, value in metrics.items()
            )

    def log_hyperparameters(self, hyperparameters: dict[str, Any]) -> None:
        """Queue parameters; those that the run already has, from before a resume, keep their value."""
        self.add(lambda client, run_id: self._send_params(client, run_id, hyperparameters))

    def set_tags(self, tags: dict[str, str]) -> None:
        """Queue tags; a tag may change."""
        entities = [RunTag(name, value) for name, value in tags.items()]
        self.add(lambda client, run_id: client.log_batch(run_id, tags=entities))

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Queue a local file; it must stay where it is."""
        self.add(lambda client, run_id: log_artifact(client, run_id, path, folder))

    def log_at_end(self, path: Path) -> None:
        """Queue a local file when the run ends, once however often it is named."""
        self._at_end.add(path)

    def fit_start(self, state: State, logger: Logger) -> None:
        """Start to send: not earlier, so that a run that Composer refuses leaves no trace."""
        if self._enabled and self._thread is None:
            self._resumed = state.timestamp.batch.value > 0
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()

    def fit_end(self, state: State, logger: Logger) -> None:
        """Note that the training has come to its end, so that the run ends FINISHED and not FAILED."""
        self._failed = False

    def post_close(self) -> None:
        """Deliver what is left, end the run, and say what could not be delivered."""
        if self._thread is None:
            return
        for path in sorted(self._at_end):
            self.log_artifact(path)
        for record in [] if self._failed else self._last:
            self.add(record)
        self._closing.set()
        # The thread tries once more and then ends, so only a server that takes what it is sent is waited for so long.
        self._thread.join(max(CLOSE_SECONDS, self._patience) if not self._failed else CLOSE_SECONDS)
        self._thread = None
        if left := len(self._metrics) + len(self._sending) + len(self._records):
            log.warning(
                f"{left} metrics and records of {self.run_name} were not delivered to MLflow at {self._address}. "
                f"All metrics are in {self.fallback}."
            )

    @property
    def _address(self) -> str:
        return redact_text(self.tracking_uri)

    def _work(self) -> None:
        is_last = False
        while not is_last:
            self._closing.wait(RETRY_SECONDS if self._is_down else FLUSH_SECONDS if self.run_id else 0)
            is_last = self._closing.is_set()
            try:
                client, run_id = self._connect()
                self._deliver(client, run_id)
                if is_last:
                    client.set_terminated(run_id, "FAILED" if self._failed else "FINISHED")
            except Exception as error:  # whatever it is, the training is worth more
                self._note_down(error)
            else:
                self._note_up()

    def _connect(self) -> tuple[MlflowClient, str]:
        if self._client is None:
            self._client = open_client(self.tracking_uri)
        if self.run_id is None:
            self.run_id = self._continue_or_create_run(self._client)
            log.info(f"MLflow run {self.run_id} of experiment {self.experiment} at {self._address}")
        return self._client, self.run_id

    def _continue_or_create_run(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.experiment)
        experiment_id = found.experiment_id if found else client.create_experiment(self.experiment, self.artifact_root)
        if run := self._earlier_run(client, experiment_id):
            client.update_run(run.info.run_id, status="RUNNING")
            self._known_params = set(run.data.params)
            # `run.data.metrics` has values without steps; its message has the last step of each, at no further request.
            message: Any = run.data.to_proto()
            self._known_steps = {metric.key: metric.step for metric in message.metrics}
            return run.info.run_id
        tags = self.tags | {"run_name": self.run_name}
        run_id = client.create_run(experiment_id, tags=tags, run_name=self.run_name).info.run_id
        remember_run(self.run_file, run_id, self.tracking_uri, self.experiment)
        return run_id

    def _earlier_run(self, client: MlflowClient, experiment_id: str) -> Run | None:
        run_id = remembered_run(self.run_file)
        if run_id is None:
            return None
        run = find_run(client, run_id)
        if run is None or run.info.experiment_id != experiment_id:
            log.warning(
                f"MLflow run {run_id} of {self.run_file} is not in experiment {self.experiment} at {self._address}, "
                "so a new run is started."
            )
            return None
        return run if self._resumed or run.info.status == "RUNNING" else None

    def _deliver(self, client: MlflowClient, run_id: str) -> None:
        while self._records:
            self._attempt(self._records[0], client, run_id)
            self._records.popleft()
        while self._sending or self._metrics:
            # Moved aside first: a full deque drops its oldest entries while a request is on its way.
            while self._metrics and len(self._sending) < METRICS_PER_REQUEST:
                metric = self._metrics.popleft()
                if metric.step > self._known_steps.get(metric.key, -1):
                    self._sending.append(metric)
            self._attempt(lambda client, run_id: client.log_batch(run_id, metrics=self._sending), client, run_id)
            self._sending = []

    def _attempt(self, record: Record, client: MlflowClient, run_id: str) -> None:
        """Send one record. Raise when the server is down; warn and go on when it lives but refuses this record."""
        try:
            record(client, run_id)
        except Exception:
            client.get_run(run_id)
            try:
                record(client, run_id)
            except Exception as error:
                client.get_run(run_id)
                log.warning(f"MLflow at {self._address} refused a record: {_summary(error)}")

    def _send_params(self, client: MlflowClient, run_id: str, params: dict[str, Any]) -> None:
        fresh = iter(
            Param(name, str(value)[:VALUE_LENGTH]) for name, value in params.items() if name not in self._known_params
        )
        while batch := list(islice(fresh, PARAMS_PER_REQUEST)):
            client.log_batch(run_id, params=batch)

    def _note_down(self, error: Exception) -> None:
        if not self._is_down:
            log.warning(
                f"MLflow at {self._address} cannot be reached: {_summary(error)}\n"
                f"The run goes on; its metrics are kept in {self.fallback}. "
                f"Trying again every {RETRY_SECONDS:.0f} s and at the end."
            )
        self._is_down = True

    def _note_up(self) -> None:
        if self._is_down:
            log.warning(f"MLflow at {self._address} answers again; what was pending has been delivered.")
        self._is_down = False


def _summary(error: Exception) -> str:
    """Return the first line of an error, without credentials."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {redact_text(lines[0])[:300]}"
