"""A suite in MLflow: one run for the whole, a nested one per cell."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from maskedclip_composer.callbacks.config import artifact_root
from maskedclip_composer.callbacks.flatten import flatten
from maskedclip_composer.callbacks.mlflow_store import (
    default_tracking_uri,
    find_run,
    log_artifact,
    open_client,
    remember_run,
    remembered_run,
)
from maskedclip_composer.callbacks.redaction import redact, redact_text
from maskedclip_composer.callbacks.tracking import PARAMS_PER_REQUEST, REQUEST_LIMITS, VALUE_LENGTH
from maskedclip_composer.config import to_plain
from maskedclip_composer.evaluation.cells import Cell, Outcome, Suite, load_outcome, model_folder, picture_folder
from maskedclip_composer.evaluation.config import EvaluateConfig
from maskedclip_composer.evaluation.links import EVALUATES, describe_suite, evaluated_ids, link_runs
from maskedclip_composer.evaluation.metrics import METRIC_NAMES

log = logging.getLogger(__name__)

_CELL = "maskedclip.cell"


class SuiteTracker:
    """Logs cells as they are done. The results are on disk by then: a server that fails costs a warning.

    A suite that is continued continues its run; cells that the server did not get are logged at the end.

    Args:
        config: Of this process.
        suite: Whole.
        cells: Those of it that this process sees to. Others may be another process's, which is logging them.
    """

    def __init__(self, config: EvaluateConfig, suite: Suite, cells: Sequence[Cell]):
        self._config = config
        self._suite = suite
        self._cells = list(cells)
        self._folder = config.folder
        self._uri = config.tracking.tracking_uri or default_tracking_uri(Path(config.output))
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._run = ""
        self._logged: set[str] = set()
        self._is_down = not config.tracking.mlflow
        if config.tracking.mlflow:
            for name, value in REQUEST_LIMITS.items():
                os.environ.setdefault(name, value)
            self._attempt(self._open)

    def log(self, cell: Cell, outcome: Outcome) -> None:
        """Log one cell, unless the server has failed before."""
        if not self._is_down:
            self._attempt(lambda: self._log(cell, outcome))

    def close(self) -> dict[str, str]:
        """Log what is missing, end the run, and return where it is; empty without one."""
        if not self._config.tracking.mlflow:
            return {}
        self._is_down = False
        self._attempt(self._finish)
        if not self._run:
            return {}
        experiment = self._config.tracking.experiment
        return {"tracking_uri": redact_text(self._uri), "experiment": experiment, "run_id": self._run}

    def _attempt(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # MLflow raises its own, SQLAlchemy's and requests' errors
            self._is_down = True
            reason = redact_text(f"{type(error).__name__}: {error}".splitlines()[0])
            log.warning(f"MLflow at {redact_text(self._uri)} failed ({reason}); the results are in {self._folder}")

    def _open(self) -> None:
        tracking = self._config.tracking
        client = self._client = open_client(self._uri)
        found = client.get_experiment_by_name(tracking.experiment)
        self._experiment = (
            found.experiment_id
            if found
            else client.create_experiment(tracking.experiment, artifact_root(self._uri, Path(self._config.output)))
        )
        file = self._folder / "mlflow_run.json"
        known = remembered_run(file)
        run = find_run(client, known) if known else None
        if run is not None and run.info.experiment_id == self._experiment:
            self._run = run.info.run_id
            client.set_terminated(self._run, "RUNNING")
            self._logged = self._cells_of_run(client)
        else:
            tags = self._tags() | redact(tracking.tags)
            run = client.create_run(self._experiment, run_name=self._folder.name, tags=tags)
            self._run = run.info.run_id
            remember_run(file, self._run, self._uri, tracking.experiment)
        known_params = client.get_run(self._run).data.params
        plain = flatten(redact(to_plain(self._config)))
        # A parameter cannot change: a suite that is continued with more encoders keeps what it was started with.
        params = [Param(key, value[:VALUE_LENGTH]) for key, value in plain.items() if key not in known_params]
        for start in range(0, len(params), PARAMS_PER_REQUEST):
            client.log_batch(self._run, params=params[start : start + PARAMS_PER_REQUEST])
        log_artifact(client, self._run, self._folder / "config.yaml")
        links = link_runs(client, self._suite.encoders)
        if ids := evaluated_ids(links):
            client.set_tag(self._run, EVALUATES, ids)
        client.set_tag(self._run, "mlflow.note.content", describe_suite(self._suite, links))

    def _tags(self) -> dict[str, str]:
        """Return what tells suites apart in MLflow's table."""
        commit = self._suite.provenance.get("git_commit")
        parts = {"encoders": self._suite.encoders, "tasks": self._suite.tasks, "protocols": self._suite.protocols}
        tags = {name: ", ".join(names)[:VALUE_LENGTH] for name, names in parts.items()}
        return tags | ({"mlflow.source.git.commit": str(commit)} if commit else {})

    def _cells_of_run(self, client: MlflowClient) -> set[str]:
        """Return the cells that are whole on the server; our own that are not are removed, to be logged again."""
        own = {cell.name for cell in self._cells}
        logged: set[str] = set()
        token = None
        while True:
            page = client.search_runs(
                [self._experiment], f"tags.`mlflow.parentRunId` = '{self._run}'", max_results=1000, page_token=token
            )
            for run in page:
                name = run.data.tags.get(_CELL, "")
                if run.info.status == "FINISHED":
                    logged.add(name)
                elif name in own:
                    client.delete_run(run.info.run_id)
            token = page.token
            if not token:
                return logged

    def _log(self, cell: Cell, outcome: Outcome) -> None:
        client = self._client
        assert client is not None
        tags = {"mlflow.parentRunId": self._run, _CELL: cell.name}
        run = client.create_run(self._experiment, run_name=cell.name, tags=tags).info.run_id
        identity = {"encoder": cell.encoder, "task": cell.task, "protocol": cell.protocol, "amount": cell.amount.name}
        params = identity | {"seed": cell.seed, "train_images": outcome.train_images, "steps": outcome.steps}
        scores: dict[str, Any] = dict(outcome.metrics)
        metrics = [Metric(f"test/{name}", scores[name], _now(), 0) for name in METRIC_NAMES if name in scores]
        metrics += [Metric("val/roc", value, _now(), step) for step, value in enumerate(outcome.val_roc, start=1)]
        client.log_batch(
            run,
            metrics=[metric for metric in metrics if metric.value == metric.value],  # without NaN
            params=[Param(key, str(value)) for key, value in params.items()],
        )
        if self._suite.is_pictured(cell):
            for path in sorted((self._folder / picture_folder(cell)).glob("*.png")):
                log_artifact(client, run, path)
            for path in sorted((self._folder / model_folder(cell)).glob("*")):
                log_artifact(client, run, path, "classifier")
        client.set_terminated(run)
        self._logged.add(cell.name)

    def _finish(self) -> None:
        if not self._run:
            self._open()
        assert self._client is not None
        self._logged = self._cells_of_run(self._client)
        for cell in self._cells:
            if cell.name not in self._logged and (outcome := load_outcome(self._folder, cell)) is not None:
                self._log(cell, outcome)
        log_artifact(self._client, self._run, self._folder / "results.csv")
        self._client.set_terminated(self._run)


def _now() -> int:
    return time.time_ns() // 1_000_000
