"""One evaluation from config to results."""

import json
import logging
import os
import time
from pathlib import Path

import torch
from composer.utils import dist, get_device

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.config import EvaluateConfig
from maskedclip_composer.evaluation.data import SPLITS, LabelledData, load_labelled
from maskedclip_composer.evaluation.finetune import finetune
from maskedclip_composer.evaluation.loading import check_readable
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.probe import extract_features, fit_probe
from maskedclip_composer.evaluation.ranks import DIST_TIMEOUT, rank
from maskedclip_composer.evaluation.report import Outcome, log_to_mlflow, save_outcome, save_summary, table
from maskedclip_composer.export.encoder import LoadedEncoder, load_encoder

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig) -> str:
    """Run the protocols of `config`, write and log their results, and return the table to print.

    Results are saved after every seed, so an evaluation that is stopped leaves the finished ones, in a results.json
    that says `"complete": false`. Started again, it begins anew: nothing there tells whether the encoder, which may be
    the newest checkpoint of a run, still has the weights of then.

    Raises:
        UserError: The run name is that of a complete evaluation, or encoder, data or config do not work together.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.initialize_dist(get_device(None), timeout=DIST_TIMEOUT)
    encoder = load_encoder(config.checkpoint, image_size=config.image_size)
    folder = _claim_folder(config, encoder)
    data = load_labelled(config.data, cache=config.data_cache)
    check_readable(data, encoder.image_size, config.workers)
    outcomes: list[Outcome] = []
    for outcome in _outcomes(config, encoder, data):
        outcomes.append(outcome)
        skipped = [data.classes[index] for index in outcome.metrics["skipped"]]
        if skipped and len(outcomes) == 1:
            log.warning("left out of the means, because test has no image of them: %s", ", ".join(skipped))
        if rank() == 0:
            save_outcome(folder / outcome.name, outcome, data)
            save_summary(folder, config, encoder.description, data, outcomes, complete=False)
    if rank() == 0:
        save_summary(folder, config, encoder.description, data, outcomes, complete=True)
        log_to_mlflow(folder, config, encoder.description, outcomes)
    return f"{table(outcomes, data)}\n\n{folder}"


def _outcomes(config: EvaluateConfig, encoder: LoadedEncoder, data: LabelledData):
    if config.probe is not None:
        yield from _probe_outcomes(config, encoder, data)
    if config.finetune is not None:
        yield from _finetune_outcomes(config, encoder, data)


def _probe_outcomes(config: EvaluateConfig, encoder: LoadedEncoder, data: LabelledData):
    assert config.probe is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = time.monotonic()
    train, val, test = (
        extract_features(
            encoder, getattr(data, split), batch_size=config.probe.batch_size, workers=config.workers, device=device
        )
        for split in SPLITS
    )
    # With all images nothing in the probe is random, so a second seed would be the first again.
    for seed in config.seeds if config.fraction < 1 else config.seeds[:1]:
        rows = data.train.subset(config.fraction, seed)
        fit = fit_probe(config.probe, (train[rows], data.train.targets[rows]), (val, data.val.targets))
        if not fit.converged:
            log.warning("the probe's solver stopped at probe.max_iterations=%d", config.probe.max_iterations)
        probabilities = fit.model.predict_proba(test)
        yield Outcome(
            protocol="probe",
            seed=seed,
            train_images=len(rows),
            probabilities=probabilities,
            metrics=classification_metrics(probabilities, data.test.targets),
            val_roc=list(fit.val_roc.values()),
            details={"c": fit.c, "seconds": round(time.monotonic() - start, 1)},
        )
        start = time.monotonic()


def _finetune_outcomes(config: EvaluateConfig, encoder: LoadedEncoder, data: LabelledData):
    assert config.finetune is not None
    for seed in config.seeds:
        start = time.monotonic()
        rows = data.train.subset(config.fraction, seed)
        fit = finetune(config.finetune, encoder, data, rows=rows, seed=seed, workers=config.workers)
        yield Outcome(
            protocol="finetune",
            seed=seed,
            train_images=len(rows),
            probabilities=fit.probabilities,
            metrics=classification_metrics(fit.probabilities, data.test.targets),
            val_roc=fit.val_roc,
            details={
                "best_epoch": fit.best_epoch,
                "steps": fit.steps,
                "seconds": round(time.monotonic() - start, 1),
            },
        )


def _claim_folder(config: EvaluateConfig, encoder: LoadedEncoder) -> Path:
    source = config.checkpoint.partition(":")[2] or Path(config.checkpoint).absolute().stem
    if source == "encoder":
        source = Path(config.checkpoint).absolute().parent.name
    name = config.run_name or f"evaluate-{source}-{Path(config.data).name}-{config.fraction:g}"
    folder = Path(config.output) / name
    results = folder / "results.json"
    if results.exists():
        if json.loads(results.read_text()).get("complete", True):
            raise UserError(
                f"{folder} holds the results of an earlier evaluation.\nGive another run_name=, or move it away."
            )
        if rank() == 0:
            log.warning("%s holds an evaluation that was stopped; it is done anew", folder)
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    return folder
