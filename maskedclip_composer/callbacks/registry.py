"""A finished run as a version of a model in MLflow's registry."""

import logging
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from maskedclip_composer.callbacks.mlflow_store import log_artifact
from maskedclip_composer.callbacks.redaction import redact_text

log = logging.getLogger(__name__)

FOLDER = "encoder"
"""Of the run's artifacts, which the version points to."""
NEWEST = "newest"
"""Alias of the version that was registered last."""
UPLOAD_SECONDS = 600.0
"""How long the end of a run may be delayed by the upload: a ViT-L has 1.2 GB."""
_STEP = "step"
_LENGTH = 4900
"""Characters of a description; a database's column has 5000 (mlflow 2.22)."""


def register_version(
    client: MlflowClient, run_id: str, *, name: str, encoder: Path, card: Path, tags: Mapping[str, str]
) -> None:
    """Store the encoder with the run and register it; once for a step, however often it is called.

    Args:
        client: Of the store, whose registry is used.
        run_id: The run.
        name: Of the model; it is created when absent.
        encoder: The exported encoder.
        card: The model card, which becomes the description; without it the description says where to find one.
        tags: Of the version; `step` tells it from other versions of the run.

    Raises:
        mlflow.exceptions.MlflowException: The registry refuses, or there is none.
        FileNotFoundError: The encoder has not been exported.
    """
    if not encoder.is_file():
        raise FileNotFoundError(f"{encoder} is absent, so nothing can be registered as {name}")
    if card.is_file():
        log_artifact(client, run_id, card)
    if any(version.tags.get(_STEP) == tags[_STEP] for version in versions_of_run(client, run_id, name)):
        return
    log_artifact(client, run_id, encoder, FOLDER)
    _create_model(client, name)
    version = client.create_model_version(
        name,
        source=f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}",
        run_id=run_id,
        tags=dict(tags),
        description=describe(card),
        await_creation_for=0,  # a local store has it at once; a server is not waited for
    )
    client.set_registered_model_alias(name, NEWEST, version.version)
    log.info(f"Registered as version {version.version} of the model {name}")


def versions_of_run(client: MlflowClient, run_id: str, name: str | None = None) -> list[ModelVersion]:
    """Return the versions that a run has registered, of one model or of any."""
    found = client.search_model_versions(f"run_id = '{run_id}'")
    return [version for version in found if name is None or version.name == name]


def describe(card: Path) -> str:
    """Return a model card, cut at the end of a line where a registry could not take all of it."""
    try:
        text = redact_text(card.read_text()).strip()
    except OSError:
        return "No model card was written: see the run's description, config.yaml and data_manifest.json."
    if len(text) <= _LENGTH:
        return text
    more = "\n\nThe whole card is the run's artifact model_card.md."
    return text[: _LENGTH - len(more)].rsplit("\n", 1)[0] + more


def _create_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
