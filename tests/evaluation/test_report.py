import dataclasses
import json
import logging

import numpy as np
import pandas as pd
import pytest

from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.evaluation.compare import compare
from maskedclip_composer.evaluation.config import EvaluateConfig, ProbeConfig
from maskedclip_composer.evaluation.curves import pr_picture, roc_picture
from maskedclip_composer.evaluation.data import load_labelled
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.report import (
    Outcome,
    averages,
    log_to_mlflow,
    save_outcome,
    save_summary,
    table,
)


@pytest.fixture(scope="module")
def data(mds):
    return load_labelled(str(mds))


@pytest.fixture(scope="module")
def outcomes(data):
    rng = np.random.default_rng(0)
    scores = [rng.dirichlet(np.ones(3), len(data.test)) for _ in range(2)]
    return [
        Outcome(
            protocol="probe",
            seed=seed,
            train_images=7,
            probabilities=rows,
            metrics=classification_metrics(rows, data.test.targets),
            val_roc=[0.5],
            details={"c": 1.0},
        )
        for seed, rows in enumerate(scores)
    ]


def config(**options) -> EvaluateConfig:
    return EvaluateConfig(checkpoint="a", data="b", probe=ProbeConfig(), **options)


def test_averages_and_table(outcomes, data):
    mean, deviation = averages(outcomes)["probe"]["roc"]
    values = [outcome.metrics["roc"] for outcome in outcomes]
    assert mean == pytest.approx(np.mean(values))
    assert deviation == pytest.approx(np.std(values, ddof=1))
    assert f"{100 * mean:.1f} ± {100 * deviation:.1f}" in table(outcomes, data)
    assert table(outcomes, data).splitlines()[-1].endswith("| 7 | 18 | 21 |")
    assert averages(outcomes[:1])["probe"]["roc"] == (values[0], None)


def test_files_hold_what_is_needed_to_score_again(outcomes, data, tmp_path):
    save_outcome(tmp_path / "probe-seed0", outcomes[0], data)
    names = {file.name for file in (tmp_path / "probe-seed0").iterdir()}
    assert names == {"predictions.csv", "roc.png", "pr.png", "confusion.png"}
    predictions = pd.read_csv(tmp_path / "probe-seed0" / "predictions.csv", dtype={"label": str})
    again = classification_metrics(
        predictions[list(data.classes)].to_numpy(), predictions["label"].map(data.classes.index).to_numpy()
    )
    assert again["roc"] == pytest.approx(outcomes[0].metrics["roc"])


def test_results_are_json_without_nan_and_without_credentials(outcomes, data, tmp_path):
    metrics = outcomes[0].metrics | {"roc_per_class": [float("nan"), 1.0, 1.0]}
    outcome = dataclasses.replace(outcomes[0], metrics=metrics)
    secret = EvaluateConfig(checkpoint="a", data="s3://me:hidden@host/b", probe=ProbeConfig())
    save_summary(tmp_path, secret, "encoder", data, [outcome], complete=True)
    text = (tmp_path / "results.json").read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert content["outcomes"][0]["test"]["roc_per_class"] == [None, 1.0, 1.0]
    assert content["images"] == {"train": 36, "val": 18, "test": 21}
    assert "hidden" not in text + (tmp_path / "results.md").read_text()


def test_incomplete_results_say_so_wherever_they_are_shown(outcomes, data, tmp_path):
    for complete in (False, True):
        save_summary(tmp_path, config(), "encoder", data, outcomes[:1], complete=complete)
        assert json.loads((tmp_path / "results.json").read_text())["complete"] is complete
        assert ("Incomplete" in (tmp_path / "results.md").read_text()) is not complete
        assert (f"{tmp_path.name} (incomplete)" in compare([tmp_path])) is not complete


def test_curves_enclose_the_areas_that_their_legends_name(outcomes, data):
    outcome = outcomes[0]
    roc = roc_picture(outcome.probabilities, data.test.targets, data.classes, outcome.metrics).axes[0]
    lines = {line.get_label(): line for line in roc.lines if not line.get_label().startswith("_")}
    assert len(lines) == 3
    for index, name in enumerate(data.classes):
        area = outcome.metrics["roc_per_class"][index]
        line = lines[f"{name} {area:.3f}"]
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(area)
    pr = pr_picture(outcome.probabilities, data.test.targets, data.classes, outcome.metrics).axes[0]
    for index, line in enumerate(pr.lines):
        recall, precision = line.get_xdata(), line.get_ydata()
        area = -np.sum(np.diff(recall) * precision[:-1])
        assert area == pytest.approx(outcome.metrics["prc_per_class"][index])


def test_many_classes_and_an_absent_one_are_drawn(data):
    rng = np.random.default_rng(1)
    targets = np.concatenate([np.arange(38), np.arange(38)])
    scores = rng.dirichlet(np.ones(39), len(targets))
    metrics = classification_metrics(scores, targets)
    names = tuple(f"class {index}" for index in range(39))
    axes = roc_picture(scores, targets, names, metrics).axes[0]
    assert len(axes.get_legend().get_texts()) == 38


def test_a_dead_server_costs_a_warning_without_its_password(outcomes, data, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    tracking = TrackingConfig(tracking_uri="http://me:hidden@127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        log_to_mlflow(tmp_path, config(output=str(tmp_path), tracking=tracking), "encoder", outcomes)
    assert "the results are in" in caplog.text
    assert "hidden" not in caplog.text
