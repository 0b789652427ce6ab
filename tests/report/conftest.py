"""A synthetic suite: known encoders on a single-label and a multi-label task, with gaps that tests punch themselves."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from maskedclip_composer.evaluation.cells import (
    Cell,
    EncoderFacts,
    Outcome,
    Suite,
    TaskFacts,
    save_outcome,
    save_suite,
    save_test_split,
)
from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.evaluation.metrics import classification_metrics

ENCODERS = {"MAE": 0.6, "mine <b>&|_1": 1.6, "twin of MAE": 0.6}
AMOUNTS = (Amount(fraction=0.1), Amount(fraction=0.5), Amount(fraction=1.0))
PROTOCOLS = ("finetune", "probe")
SEEDS = (0, 1, 2)
TRAIN_IMAGES = {0.1: 12, 0.5: 60, 1.0: 120}


def suite(**options) -> Suite:
    """Return what the cells share."""
    encoders = {
        "MAE": EncoderFacts(
            source="runs/mae", description="MAE, 200 epochs", fingerprint="a" * 64, recipe={"mim": True},
            paired=0, unpaired=340_000, contaminated={"aptos": 0, "odir": 3},
        ),
        "mine <b>&|_1": EncoderFacts(
            source="s3://me:hidden@host/run", description="a <script>alert(1)</script> of ours", fingerprint="b" * 64,
            recipe={"mim": True, "lg_clip": True, "bridge": True, "mfd": True}, paired=140_000, unpaired=200_000,
            contaminated={"aptos": 0, "odir": 0},
        ),
        "twin of MAE": EncoderFacts(source="timm:x", description="as MAE", fingerprint="c" * 64),
    }  # fmt: skip
    tasks = {
        "aptos": TaskFacts(
            title="APTOS2019", kind="ordinal", classes=["0", "1", "2"], names=["no", "mild", "severe"],
            images={"train": 120, "val": 30, "test": 90}, untrained=[], fingerprint="d" * 64, source="Kaggle 2019",
        ),
        "odir": TaskFacts(
            title="ODIR-5K", kind="multilabel", classes=["N", "D", "G", "X"],
            names=["normal", "diabetes", "glaucoma", "never seen"],
            images={"train": 120, "val": 30, "test": 60}, untrained=["X"], fingerprint="e" * 64,
        ),
    }  # fmt: skip
    facts = {
        "complete": True,
        "baseline": "MAE",
        "encoders": encoders,
        "tasks": tasks,
        "protocols": {
            "finetune": {"title": "Fine-tuning", "finetune": {"epochs": 50, "lr": 5e-4}},
            "probe": {"title": "Linear probe", "linear_probe": {"c_grid": [0.1, 1.0]}, "finetune": None},
        },
        "planned": list(cells()),
        "notes": [],
        "provenance": {"git_commit": "0123abc", "versions": {"torch": "2.7.0"}, "device": "1 x CPU"},
    }
    return Suite(**(facts | options))


def labels(task: str) -> tuple[np.ndarray, list[str]]:
    """Return the test labels of a task and its patients, two photographs each in aptos, unknown in odir."""
    rng = np.random.default_rng(len(task))
    if task == "aptos":
        return np.eye(3, dtype=bool)[rng.permutation(np.arange(90) % 3)], [f"p{index // 2}" for index in range(90)]
    one_hot = rng.random((60, 4)) < 0.4
    one_hot[:, 3] = False
    return one_hot, [""] * 60


def probabilities(task: str, encoder: str, protocol: str, fraction: float, seed: int) -> np.ndarray:
    """Return scores that are the better the more labels there are; the twin's are the baseline's own."""
    one_hot, _ = labels(task)
    rng = np.random.default_rng([len(task), PROTOCOLS.index(protocol), int(100 * fraction), seed])
    logits = rng.normal(size=one_hot.shape) + ENCODERS[encoder] * (0.6 + fraction) * one_hot
    if task == "odir":
        return 1 / (1 + np.exp(1 - logits))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def cells():
    """Yield all cells of the suite."""
    for task in ("aptos", "odir"):
        for protocol in PROTOCOLS:
            for amount in AMOUNTS:
                for encoder in ENCODERS:
                    for seed in SEEDS:
                        yield Cell(encoder=encoder, task=task, protocol=protocol, amount=amount, seed=seed)


@cache  # computing the metrics of all cells takes seconds, and every test wants the same
def outcome(cell: Cell) -> Outcome:
    """Return what came of a cell."""
    one_hot, _ = labels(cell.task)
    assert cell.amount.fraction is not None
    scores = probabilities(cell.task, cell.encoder, cell.protocol, cell.amount.fraction, cell.seed)
    scores = scores.astype(np.float32).astype(np.float64)  # as they are saved
    facts = suite().tasks[cell.task]
    return Outcome(
        metrics=classification_metrics(scores, one_hot, facts.kind),
        train_images=TRAIN_IMAGES[cell.amount.fraction],
        steps=100 + cell.seed if cell.protocol == "probe" else 350,
        val_roc=[0.5, 0.6],
        details={},
        seconds=1.0,
        probabilities=scores,
    )


def write_suite(folder: Path, **options) -> Path:
    """Write the whole suite."""
    facts = suite(**options)
    save_suite(folder, facts)
    for task, task_facts in facts.tasks.items():
        one_hot, patients = labels(task)
        codes = [[code for code, has in zip(task_facts.classes, row, strict=True) if has] for row in one_hot]
        save_test_split(folder, task, [f"r{index}" for index in range(len(codes))], patients, codes)
    for cell in cells():
        save_outcome(folder, cell, outcome(cell))
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """Read only."""
    return write_suite(tmp_path_factory.mktemp("suites") / "whole")


@pytest.fixture
def folder(tmp_path) -> Path:
    """One to change."""
    return write_suite(tmp_path / "suite")
