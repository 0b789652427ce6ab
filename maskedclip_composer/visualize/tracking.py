"""Pictures beside the run of their model in MLflow."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from maskedclip_composer.callbacks.mlflow_store import REQUEST_LIMITS, log_artifact, open_client
from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.errors import UserError

log = logging.getLogger(__name__)

FOLDER = "pictures"
RUN_FILE = "mlflow_run.json"


def tracked_run(folder: Path | None, source: str) -> tuple[str, str]:
    """Return id and store of the MLflow run that trained a model.

    Args:
        folder: The model's run folder.
        source: The model, for the message.

    Raises:
        UserError: It has none.
    """
    file = None if folder is None else folder / RUN_FILE
    try:
        if file is None:
            raise FileNotFoundError("it is no run folder, and no file in one")
        run = json.loads(file.read_text())
        return str(run["run_id"]), str(run["tracking_uri"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--log: {source} does not say which MLflow run it is of ({error}).\n"
            "Leave --log out, or give a run folder that train.py wrote with tracking.mlflow=true."
        ) from error


def log_pictures(run: tuple[str, str], files: Sequence[Path]) -> bool:
    """Store files as artifacts `pictures/` of a run, or warn: they are on disk by then.

    A run folder keeps no credentials: MLFLOW_TRACKING_URI brings them where it is of the same address.

    Returns:
        Whether the store took them.
    """
    run_id, uri = run
    for name, value in REQUEST_LIMITS.items():
        os.environ.setdefault(name, value)
    given = os.environ.get("MLFLOW_TRACKING_URI")
    uri = given if given and redact_text(given) == uri else uri
    try:
        client = open_client(uri)
        for path in files:
            log_artifact(client, run_id, path, FOLDER)
    except Exception as error:  # MLflow raises its own, SQLAlchemy's and requests' errors
        reason = redact_text(f"{type(error).__name__}: {error}".splitlines()[0])
        log.warning(f"MLflow at {redact_text(uri)} failed ({reason}); the pictures are in {files[0].parent}")
        return False
    return True
