"""Open an MLflow store without its side effects on the process and the working directory."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.redaction import redact_text

log = logging.getLogger(__name__)

# What creating or migrating a database says, about fifty lines at level INFO; two migrations log under names of
# their own and set their own level, so that only a filter silences them (mlflow 2.22).
CHATTER = (
    "alembic.runtime.migration",
    "mlflow.store.db.utils",
    "89d4b8295536_create_latest_metrics_table_py",
    "2b4d017a5e9b_add_model_registry_tables_to_db_py",
)
# A request that hangs may take so long; MLflow's own 120 s and 7 retries would hold the end of a run for minutes.
REQUEST_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
LOCK_TIMEOUT = 120  # seconds; creating a database takes about ten on a busy machine
RETRIES = "urllib3.connectionpool"  # a line per attempt while a server is down


def default_tracking_uri(output: Path) -> str:
    """Return the environment's MLFLOW_TRACKING_URI, else the database in `output`, whose folder is created."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    output.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{output.resolve() / 'mlflow.db'}"


def with_credentials(redacted: str, *given: str | None) -> str:
    """Return an address with its credentials, which nothing keeps: the one of `given` or of the environment.

    Args:
        redacted: The address as it was written down.
        given: Addresses that may be the same with credentials.
    """
    known = (*given, os.environ.get("MLFLOW_TRACKING_URI"))
    return next((uri for uri in known if uri and redact_text(uri) == redacted), redacted)


def open_client(tracking_uri: str) -> MlflowClient:
    """Return a client of a server or a database; a database is created or migrated when need be.

    Raises:
        mlflow.exceptions.MlflowException: The store cannot be opened; SQLAlchemy's own errors for a database.
    """
    for name in CHATTER:
        logging.getLogger(name).addFilter(_is_warning)
    logging.getLogger(RETRIES).addFilter(_is_not_mlflow)
    with _one_at_a_time(tracking_uri), _kept_root_logger(), _no_stray_folder(Path("mlruns")):
        return MlflowClient(tracking_uri)


def log_artifact(client: MlflowClient, run_id: str, path: Path, folder: str | None = None) -> None:
    """Store a local file with a run; `folder` is a folder of the run's artifacts.

    MlflowClient 2.22 sends files that a server is to store to the process-wide tracking URI instead of its own.
    """
    place = client.get_run(run_id).info.artifact_uri or ""
    if place.startswith("mlflow-artifacts:"):
        address = MlflowArtifactsRepository.resolve_uri(place, client.tracking_uri)
        HttpArtifactRepository(address).log_artifact(str(path), folder)
    else:
        client.log_artifact(run_id, str(path), folder)


def remember_run(path: Path, run_id: str, tracking_uri: str, experiment: str) -> None:
    """Write which MLflow run the folder of `path` belongs to. Only the id is read again; the rest is for people."""
    content = {"run_id": run_id, "tracking_uri": redact_text(tracking_uri), "experiment": experiment}
    try:
        write_whole(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        log.warning(f"{path} cannot be written ({error}). If this run is resumed, MLflow will show a second one.")


def remembered_run(path: Path) -> str | None:
    """Return the run id that `remember_run` wrote; None when there is none."""
    if not path.is_file():
        return None
    try:
        return str(json.loads(path.read_text())["run_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning(f"{path} is damaged ({error!r}), so a new MLflow run is started.")
        return None


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run; None when the store does not have it or has deleted it.

    Raises:
        mlflow.exceptions.MlflowException: The store does not answer.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        # The second is a file store's answer to an id that is not of its kind.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def _is_not_mlflow(record: logging.LogRecord) -> bool:
    return "/api/2.0/mlflow" not in record.getMessage()


@contextmanager
def _one_at_a_time(tracking_uri: str) -> Iterator[None]:
    """Let one process at a time open a sqlite file: two that create its tables at once leave it broken for good."""
    if not tracking_uri.startswith("sqlite:///"):
        yield
        return
    with FileLock(tracking_uri.removeprefix("sqlite:///") + ".lock", timeout=LOCK_TIMEOUT):
        yield


@contextmanager
def _kept_root_logger() -> Iterator[None]:
    """Undo what a migration does: it reads a logging configuration that replaces the root logger's handlers."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def _no_stray_folder(folder: Path) -> Iterator[None]:
    """Remove the empty folder that MLflow makes in the working directory even when no artifact goes there."""
    existed = folder.exists()
    try:
        yield
    finally:
        if not existed:
            with suppress(OSError):  # absent, or somebody has put something into it
                folder.rmdir()
