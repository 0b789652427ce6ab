"""Results as files, in MLflow, and as a table."""

import io
import json
import logging
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.config import artifact_root
from maskedclip_composer.callbacks.mlflow_store import default_tracking_uri, log_artifact, open_client
from maskedclip_composer.callbacks.redaction import redact, redact_text
from maskedclip_composer.callbacks.run_record import device_name, flatten, git_state, package_versions
from maskedclip_composer.callbacks.tracking import REQUEST_LIMITS, VALUE_LENGTH
from maskedclip_composer.config import to_plain
from maskedclip_composer.evaluation.config import EvaluateConfig
from maskedclip_composer.evaluation.curves import confusion_picture, pr_picture, roc_picture
from maskedclip_composer.evaluation.data import LabelledData
from maskedclip_composer.evaluation.metrics import Metrics

log = logging.getLogger(__name__)

AVERAGED = ("roc", "prc", "accuracy", "balanced_accuracy", "quadratic_kappa")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One protocol with one seed on the test split.

    Attributes:
        protocol: probe or finetune.
        seed: Of the draw and the training.
        train_images: Images of the training split that were used.
        probabilities: Of the test images, in the split's order.
        metrics: On the test split.
        val_roc: Macro ROC on validation: per epoch, or per strength of the probe.
        details: What was chosen on validation, and what it cost.
    """

    protocol: str
    seed: int
    train_images: int
    probabilities: Float[np.ndarray, "images classes"]
    metrics: Metrics
    val_roc: list[float]
    details: dict[str, Any]

    @property
    def name(self) -> str:
        """Folder and MLflow run of this outcome."""
        return f"{self.protocol}-seed{self.seed}"


def save_outcome(folder: Path, outcome: Outcome, data: LabelledData) -> None:
    """Write predictions.csv, roc.png, pr.png and confusion.png of one outcome to `folder`."""
    scores, targets, classes = outcome.probabilities, data.test.targets, data.classes
    pictures = {
        "roc.png": roc_picture(scores, targets, classes, outcome.metrics),
        "pr.png": pr_picture(scores, targets, classes, outcome.metrics),
        "confusion.png": confusion_picture(scores, targets, classes),
    }
    for name, figure in pictures.items():
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        write_whole(folder / name, picture.getvalue())
    records = pd.DataFrame(
        {
            "record": [data.test.photographs.describe(index) for index in range(len(targets))],
            "label": [classes[target] for target in targets],
        }
    )
    predictions = pd.concat([records, pd.DataFrame(scores, columns=pd.Index(classes))], axis=1)
    write_whole(folder / "predictions.csv", predictions.to_csv(index=False))


def save_summary(
    folder: Path,
    config: EvaluateConfig,
    encoder: str,
    data: LabelledData,
    outcomes: list[Outcome],
    *,
    complete: bool,
) -> None:
    """Write results.json and results.md of all outcomes so far; `complete` says whether these are all."""
    content = {
        "complete": complete,
        "encoder": encoder,
        "config": redact(to_plain(config)),
        "provenance": git_state(Path(__file__).parent) | {"versions": package_versions(), "device": device_name()},
        "classes": list(data.classes),
        "images": {split.name: len(split) for split in (data.train, data.val, data.test)},
        "outcomes": [
            {
                "protocol": outcome.protocol,
                "seed": outcome.seed,
                "train_images": outcome.train_images,
                "test": _without_nan(outcome.metrics),
                "val_roc": outcome.val_roc,
                **outcome.details,
            }
            for outcome in outcomes
        ],
    }
    write_whole(folder / "results.json", json.dumps(content, indent=2) + "\n")
    text = f"# {folder.name}\n\nEncoder: {encoder}\n\nData: {redact_text(config.data)}\n\n{table(outcomes, data)}\n"
    if not complete:
        text += "\nIncomplete: the evaluation is still running, or was stopped.\n"
    write_whole(folder / "results.md", text)


def averages(outcomes: list[Outcome]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Return, per protocol and metric, the mean and the sample standard deviation over seeds (None for one seed)."""
    result: dict[str, dict[str, tuple[float, float | None]]] = {}
    for protocol in dict.fromkeys(outcome.protocol for outcome in outcomes):
        own = [outcome.metrics for outcome in outcomes if outcome.protocol == protocol]
        result[protocol] = {
            key: (
                statistics.fmean(metrics[key] for metrics in own),
                statistics.stdev([metrics[key] for metrics in own]) if len(own) > 1 else None,
            )
            for key in AVERAGED
        }
    return result


def table(outcomes: list[Outcome], data: LabelledData) -> str:
    """Return a Markdown table with one line per protocol."""
    lines = ["| protocol | seeds | ROC | PRC | train | val | test |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for protocol, values in averages(outcomes).items():
        own = [outcome for outcome in outcomes if outcome.protocol == protocol]
        cells = [protocol, str(len(own)), _spread(*values["roc"]), _spread(*values["prc"])]
        cells += [str(own[0].train_images), str(len(data.val)), str(len(data.test))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def log_to_mlflow(folder: Path, config: EvaluateConfig, encoder: str, outcomes: list[Outcome]) -> None:
    """Log one MLflow run with the averages and one nested run per outcome with its scores and pictures.

    The results are on disk by then, so a tracking server that fails costs a warning, not the evaluation.
    """
    if not config.tracking.mlflow:
        return
    output = Path(config.output)
    uri = config.tracking.tracking_uri or default_tracking_uri(output)
    for name, value in REQUEST_LIMITS.items():
        os.environ.setdefault(name, value)
    try:
        client = open_client(uri)
        found = client.get_experiment_by_name(config.tracking.experiment)
        experiment_id = (
            found.experiment_id
            if found
            else client.create_experiment(config.tracking.experiment, artifact_root(uri, output))
        )
        parent = _log_averages(client, experiment_id, folder, config, encoder, outcomes)
        for outcome in outcomes:
            _log_outcome(client, experiment_id, parent, folder, config, outcome)
        client.set_terminated(parent)
    except Exception as error:  # MLflow raises its own, SQLAlchemy's and requests' errors
        reason = redact_text(f"{type(error).__name__}: {error}".splitlines()[0])
        log.warning(f"MLflow at {redact_text(uri)} failed ({reason}); the results are in {folder}")


def _log_averages(
    client: MlflowClient,
    experiment_id: str,
    folder: Path,
    config: EvaluateConfig,
    encoder: str,
    outcomes: list[Outcome],
) -> str:
    tags = dict(config.tracking.tags) | {"encoder": encoder, "data": redact_text(config.data)}
    run_id = client.create_run(experiment_id, run_name=folder.name, tags=tags).info.run_id
    params = [Param(key, value[:VALUE_LENGTH]) for key, value in flatten(redact(to_plain(config))).items()]
    metrics = []
    for protocol, values in averages(outcomes).items():
        for key, (mean, spread) in values.items():
            metrics.append(Metric(f"{protocol}/test/{key}", mean, _now(), 0))
            if spread is not None:
                metrics.append(Metric(f"{protocol}/test/{key}_sd", spread, _now(), 0))
    client.log_batch(run_id, metrics=metrics, params=params)
    for name in ("results.json", "results.md"):
        log_artifact(client, run_id, folder / name)
    return run_id


def _log_outcome(
    client: MlflowClient, experiment_id: str, parent: str, folder: Path, config: EvaluateConfig, outcome: Outcome
) -> None:
    run = client.create_run(experiment_id, run_name=outcome.name, tags={"mlflow.parentRunId": parent})
    details = {"protocol": outcome.protocol, "seed": outcome.seed, "train_images": outcome.train_images}
    params = details | {"fraction": config.fraction} | outcome.details
    metrics = [Metric(f"test/{key}", outcome.metrics[key], _now(), 0) for key in AVERAGED]
    if "positive_prc" in outcome.metrics:
        metrics.append(Metric("test/positive_prc", outcome.metrics["positive_prc"], _now(), 0))
    metrics += [Metric("val/roc", value, _now(), step) for step, value in enumerate(outcome.val_roc, start=1)]
    client.log_batch(run.info.run_id, metrics=metrics, params=[Param(key, str(value)) for key, value in params.items()])
    for path in sorted((folder / outcome.name).iterdir()):
        log_artifact(client, run.info.run_id, path)
    client.set_terminated(run.info.run_id)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _without_nan(metrics: Metrics) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        key: [None if np.isnan(item) else item for item in value] if isinstance(value, list) else value
        for key, value in metrics.items()
    }


def _spread(mean: float, deviation: float | None) -> str:
    return f"{100 * mean:.1f}" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"
