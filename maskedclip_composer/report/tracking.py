"""The report beside the suite's run in MLflow."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskedclip_composer.callbacks.mlflow_store import log_artifact, open_client
from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.callbacks.tracking import REQUEST_LIMITS

log = logging.getLogger(__name__)

_FOLDER = "report"


def log_report(run: Mapping[str, str], files: Sequence[Path]) -> None:
    """Store files as artifacts `report/` of a run, or warn: they are on disk by then.

    Args:
        run: `Suite.mlflow`.
        files: What was written.
    """
    for name, value in REQUEST_LIMITS.items():
        os.environ.setdefault(name, value)
    uri = run["tracking_uri"]
    try:
        client = open_client(uri)
        for path in files:
            log_artifact(client, run["run_id"], path, _FOLDER)
    except Exception as error:  # MLflow raises its own, SQLAlchemy's and requests' errors
        reason = redact_text(f"{type(error).__name__}: {error}".splitlines()[0])
        log.warning(f"MLflow at {redact_text(uri)} failed ({reason}); the report is in {files[0].parent}")
