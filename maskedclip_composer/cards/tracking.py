"""Cards beside the run of MLflow that they are of."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from maskedclip_composer.callbacks.mlflow_store import log_artifact, open_client, remembered_run, with_credentials
from maskedclip_composer.callbacks.redaction import redact_text

log = logging.getLogger(__name__)


def log_cards(run: Path, cards: Sequence[Path], tracking_uri: str | None) -> None:
    """Store cards as artifacts of the MLflow run that a run's folder names; a server that fails costs a warning.

    Args:
        run: The run's folder; without `mlflow_run.json` in it there is nothing to do.
        cards: What was written.
        tracking_uri: Address with credentials, which a run's folder does not keep; None looks for one in
            MLFLOW_TRACKING_URI.
    """
    file = run / "mlflow_run.json"
    run_id = remembered_run(file)
    if run_id is None:
        return
    try:
        known = str(json.loads(file.read_text())["tracking_uri"])
        client = open_client(with_credentials(known, tracking_uri))
        for path in cards:
            log_artifact(client, run_id, path)
    except Exception as error:  # MLflow raises its own, SQLAlchemy's and requests' errors
        reason = redact_text(f"{type(error).__name__}: {error}".splitlines()[0])
        log.warning(f"MLflow of {run} failed ({reason}); the cards are in the folder")
