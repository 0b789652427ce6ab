"""When a suite has ended: the pages, MLflow runs and registered versions of the runs that it has evaluated."""

import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.entities.model_registry import ModelVersion

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.mlflow_store import find_run, log_artifact, open_client, with_credentials
from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.callbacks.registry import versions_of_run
from maskedclip_composer.callbacks.tracking import METRICS_PER_REQUEST, REQUEST_LIMITS
from maskedclip_composer.dashboard.downstream import choose, roc_text
from maskedclip_composer.dashboard.note import note, set_note
from maskedclip_composer.dashboard.page import answers, page
from maskedclip_composer.dashboard.run import Run, read_run
from maskedclip_composer.dashboard.suites import Comparison, Evaluated, evaluated_runs, note_suite, read_suite
from maskedclip_composer.dashboard.write import DASHBOARD, comparisons_of

log = logging.getLogger(__name__)

BEST = "best"
"""Alias of the registered version that stands best in the last suite that compared several."""


@dataclass(frozen=True)
class Standing:
    """A registered version, and what its encoder has reached in a suite."""

    client: MlflowClient
    version: ModelVersion
    val_roc: float | None
    test_roc: float


def refresh_runs(suite: Path, tracking_uri: str | None = None) -> list[Path]:
    """Bring the pages of all runs that a suite has evaluated up to date, and MLflow with them; return the pages.

    Whatever fails costs a warning: the results are on disk by then.

    Args:
        suite: The suite's folder, with its report.
        tracking_uri: Of MLflow with its credentials, which no folder keeps; None looks for them in
            MLFLOW_TRACKING_URI.
    """
    pages, standings = [], []
    for folder in evaluated_runs(suite):
        try:
            note_suite(folder, suite)
            run = read_run(folder)
            comparisons = comparisons_of(run)
            write_whole(folder / DASHBOARD, page(run, comparisons))
            pages.append(folder / DASHBOARD)
        except (OSError, ValueError) as error:  # a run of somebody else, whose folder is not to be written
            log.warning(f"The dashboard of {folder} is not brought up to date: {error}")
            continue
        if run.mlflow.get("run_id"):
            standings += _tell_mlflow(run, comparisons, read_suite(suite, folder), tracking_uri)
    _name_the_best(standings)
    return pages


def _tell_mlflow(
    run: Run, comparisons: Sequence[Comparison], newest: Sequence[Comparison], tracking_uri: str | None
) -> list[Standing]:
    for name, value in REQUEST_LIMITS.items():
        os.environ.setdefault(name, value)
    uri = with_credentials(str(run.mlflow.get("tracking_uri")), tracking_uri)
    run_id = str(run.mlflow["run_id"])
    try:
        client = open_client(uri)
        if find_run(client, run_id) is None:
            log.warning(
                f"MLflow run {run_id} of {run.folder} is not at {redact_text(uri)}, so it is not told of a suite."
            )
            return []
        log_artifact(client, run_id, run.folder / DASHBOARD)
        set_note(client, run_id, note(run, answers(run, comparisons)))
        _log_scores(client, run_id, run, newest)
        return _tag_versions(client, run_id, newest)
    except Exception as error:  # MLflow raises its own, SQLAlchemy's and requests' errors
        reason = redact_text(f"{type(error).__name__}: {error}".splitlines()[0])
        log.warning(f"MLflow at {redact_text(uri)} failed ({reason}); the dashboard is in {run.folder}")
        return []


def _log_scores(client: MlflowClient, run_id: str, run: Run, newest: Sequence[Comparison]) -> None:
    """Log the final encoder's ROC with the run itself, so that MLflow's table of runs can be sorted by it."""
    now = time.time_ns() // 1_000_000
    metrics = []
    for comparison in newest:
        final = _final(comparison)
        if final is None:
            continue
        place = f"downstream/{comparison.key}/{comparison.amount}"
        scores = {task: score.mean for task, score in final.scores.items()}
        scores |= {"mean": final.mean_roc} if len(scores) > 1 else {}
        metrics += [Metric(_allowed(f"{place}/roc/{name}"), value, now, run.step) for name, value in scores.items()]
    for start in range(0, len(metrics), METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])
    told = [
        f"{choice.best.encoder} by {choice.comparison.protocol}, mean ROC {roc_text(choice.best.mean_roc)} "
        f"({choice.comparison.suite})"
        for choice in map(choose, newest)
        if choice.best is not None
    ]
    if told:
        client.set_tag(run_id, "downstream/best", "; ".join(told)[:5000])


def _tag_versions(client: MlflowClient, run_id: str, newest: Sequence[Comparison]) -> list[Standing]:
    """Tag the versions that the run has registered with what the final encoder has reached."""
    standings = []
    for version in versions_of_run(client, run_id):
        for comparison in newest:
            final = _final(comparison)
            if final is None:
                continue
            scores = "; ".join(
                f"{task} {roc_text(score.mean, score.low, score.high)}" for task, score in final.scores.items()
            )
            name = _allowed(f"roc/{comparison.key}/{comparison.amount}")
            told = f"{scores} (ROC in per cent, test, suite {comparison.suite})"
            client.set_model_version_tag(version.name, version.version, name, told[:5000])
        first = next((final for comparison in newest if (final := _final(comparison)) is not None), None)
        if first is not None:
            standings.append(Standing(client, version, first.val_roc, first.mean_roc))
    return standings


def _name_the_best(standings: Sequence[Standing]) -> None:
    """Give the alias to the best of several versions of one model, by validation where all have a score on it."""
    models: dict[str, list[Standing]] = defaultdict(list)
    for one in standings:
        models[one.version.name].append(one)
    for name, several in models.items():
        if len({one.version.run_id for one in several}) < 2:
            continue
        by_validation = all(one.val_roc is not None for one in several)
        best = max(several, key=lambda one: one.val_roc if by_validation and one.val_roc is not None else one.test_roc)
        try:
            best.client.set_registered_model_alias(name, BEST, best.version.version)
        except Exception as error:  # as above
            log.warning(f"The alias {BEST} of the model {name} could not be set: {redact_text(str(error))}")


def _final(comparison: Comparison) -> Evaluated | None:
    return next((one for one in comparison.encoders if one.is_final), None)


def _allowed(name: str) -> str:
    """Return a name as MLflow takes it."""
    return re.sub(r"[^\w.\- :/]", "_", name.replace("%", "pct"))
