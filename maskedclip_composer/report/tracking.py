"""The report beside the suite's run in MLflow."""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import Metric

from maskedclip_composer.callbacks.mlflow_store import log_artifact, open_client, with_credentials
from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.callbacks.tracking import METRICS_PER_REQUEST, REQUEST_LIMITS

log = logging.getLogger(__name__)

_FOLDER = "report"


def log_report(
    run: Mapping[str, str], files: Sequence[Path], metrics: Mapping[str, float], tracking_uri: str | None
) -> None:
    """Store files as artifacts `report/` of a run, and metrics with it, or warn: they are on disk by then.

    Args:
        run: `Suite.mlflow`.
        files: What was written.
        metrics: Characters of their names that MLflow does not take become underscores.
        tracking_uri: Address with credentials; None looks for one in MLFLOW_TRACKING_URI.
    """
    for name, value in REQUEST_LIMITS.items():
        os.environ.setdefault(name, value)
    # The suite keeps no credentials, so the address that it was made of has to be found again.
    uri = with_credentials(run["tracking_uri"], tracking_uri)
    try:
        client = open_client(uri)
        for path in files:
            log_artifact(client, run["run_id"], path, _FOLDER)
        now = time.time_ns() // 1_000_000
        values = [Metric(re.sub(r"[^\w.\- :/]", "_", name), value, now, 0) for name, value in metrics.items()]
        for start in range(0, len(values), METRICS_PER_REQUEST):
            client.log_batch(run["run_id"], metrics=values[start : start + METRICS_PER_REQUEST])
    except Exception as error:  # MLflow raises its own, SQLAlchemy's and requests' errors
        reason = redact_text(f"{type(error).__name__}: {error}".splitlines()[0])
        log.warning(f"MLflow at {redact_text(uri)} failed ({reason}); the report is in {files[0].parent}")
