"""Writes a cell's classifier with all that is known of it, and reads it back before it counts as written."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.cards.paths import without_folders
from maskedclip_composer.evaluation.cells import Cell, Outcome, Suite, model_folder, without_nan
from maskedclip_composer.evaluation.classifier_card import classifier_card
from maskedclip_composer.evaluation.classifier_file import (
    CLASSIFIER_FILE,
    ClassifierFacts,
    load_classifier,
    save_classifier,
)
from maskedclip_composer.evaluation.loading import eval_dataset
from maskedclip_composer.evaluation.preparation import preparation
from maskedclip_composer.evaluation.protocols.base import Fit, Problem
from maskedclip_composer.evaluation.protocols.config import ProtocolConfig

log = logging.getLogger(__name__)

_READ_BACK = 4  # test photographs that the written file scores again


def keep_classifier(
    folder: Path, suite: Suite, cell: Cell, problem: Problem, protocol: ProtocolConfig, fit: Fit, outcome: Outcome
) -> None:
    """Write the classifier of a cell and its README below the suite's folder; of other protocols there is none.

    Raises:
        RuntimeError: What was written gives other probabilities than the cell.
    """
    if fit.network is None and fit.head is None:
        return
    facts = _facts(suite, cell, problem, protocol, fit, outcome)
    place = folder / model_folder(cell)
    file = place / CLASSIFIER_FILE
    save_classifier(file, facts, encoder=problem.encoder, head=fit.head, network=fit.network)
    _read_back(file, problem, outcome, facts.precision)
    write_whole(place / "README.md", classifier_card(facts))


def without_classifier(folder: Path, done: Iterable[Cell], protocols: dict[str, ProtocolConfig]) -> None:
    """Warn of cells that were done before their classifiers were asked for: what is done is not done again."""
    lacking = [
        cell
        for cell in done
        if (protocols[cell.protocol].finetune or protocols[cell.protocol].linear_probe)
        and not (folder / model_folder(cell) / CLASSIFIER_FILE).is_file()
    ]
    if lacking:
        log.warning(
            "save_models=true: %d cells are done without their classifiers; for those give another run_name",
            len(lacking),
        )


def _facts(
    suite: Suite, cell: Cell, problem: Problem, protocol: ProtocolConfig, fit: Fit, outcome: Outcome
) -> ClassifierFacts:
    encoder, data, known = problem.encoder, problem.data, suite.encoders[cell.encoder]
    recipe, recipe_source = preparation(data)
    finetune, probe = protocol.finetune, protocol.linear_probe
    if finetune is not None:
        by = "macro ROC" if finetune.select_by == "roc" else "the mean of macro F1, macro ROC and kappa"
        selection = f"epoch {fit.details['best_epoch']} of {finetune.epochs}, the best on validation by {by}"
        val_roc = fit.val_roc[fit.details["best_epoch"] - 1]
    else:
        assert probe is not None
        selection = f"C = {fit.details['c']:g} of {probe.c_grid}, the best on validation by macro ROC"
        val_roc = max(fit.val_roc)
    several = data.kind == "multilabel"
    return ClassifierFacts(
        architecture=encoder.architecture,
        image_size=encoder.image_size,
        mean=tuple(encoder.mean),
        std=tuple(encoder.std),
        pooling=_pooling(encoder.architecture.get("kind", ""), trained=fit.network is not None),
        kind=data.kind,
        classes=tuple(data.classes),
        names=tuple(data.names),
        trained_by="finetune" if finetune is not None else "linear_probe",
        precision=fit.precision,
        rule="every label whose probability is above 0.5"
        if several
        else "the most probable class, the first of equals",
        selection=selection,
        recipe=recipe,
        recipe_source=recipe_source,
        task={"name": cell.task, "title": problem.task.title, "source": problem.task.source},
        protocol={"name": cell.protocol, "title": protocol.title, "source": protocol.source},
        seed=cell.seed,
        amount=cell.amount.name,
        train_images=outcome.train_images,
        encoder={
            "name": cell.encoder,
            "source": without_folders(known.source),  # the file is passed on; suite.json has the paths
            "description": without_folders(known.description),
            "sha256": known.fingerprint,
        },
        val_roc=val_roc,
        test={key: without_nan(value) for key, value in outcome.metrics.items()},
        made_with=suite.provenance,
    )


def _pooling(kind: str, *, trained: bool) -> str:
    if kind == "timm":
        return "timm's own pooling of the architecture; for a plain ViT the mean patch token"
    return "the mean patch token" + (", then a norm that was trained with the head" if trained else ", after the norm")


def _read_back(file: Path, problem: Problem, outcome: Outcome, precision: str) -> None:
    dataset: Any = eval_dataset(problem.photographs["test"], problem.encoder.image_size)
    images = torch.stack([dataset[row]["image"] for row in range(min(_READ_BACK, len(dataset)))])
    classifier = load_classifier(file, device="cuda" if torch.cuda.is_available() else "cpu")
    found, expected = classifier.probabilities(images), outcome.probabilities[: len(images)]
    # A GPU multiplies in other orders, and in half precision, for another number of photographs.
    exact = precision == "fp32" and classifier.device.type == "cpu"
    if not np.allclose(found, expected, atol=1e-3 if exact else 5e-2):
        raise RuntimeError(f"{file} gives other probabilities than the cell: {found.tolist()}, not {expected.tolist()}")
