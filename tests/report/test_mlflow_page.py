"""The suite as MLflow's own pages show it, in a browser."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskedclip_composer.callbacks.config import MlflowConfig
from maskedclip_composer.evaluation.cells import load_outcomes, load_suite, save_results, save_suite
from maskedclip_composer.evaluation.config import EvaluateConfig
from maskedclip_composer.evaluation.tracking import SuiteTracker
from maskedclip_composer.report.write import write_report
from tests.browser import look, mlflow_server, needs_browser

pytestmark = [needs_browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def tracked(whole, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A finished suite in MLflow, with its report; only a few cells, since each is a run."""
    output = tmp_path_factory.mktemp("runs")
    folder = output / "nightly"
    shutil.copytree(whole, folder)
    for place in folder.glob("cells/*/*/*/*/seed[12]"):
        shutil.rmtree(place)
    (folder / "config.yaml").write_text("checkpoints: {}\n")
    cells = list(load_outcomes(folder))
    save_results(folder, cells)
    suite = replace(load_suite(folder), planned=[cell for cell, _ in cells])
    config = EvaluateConfig(
        checkpoints={"MAE": "runs/mae"},
        tasks=["aptos"],
        protocols=["linear_probe"],
        output=str(output),
        run_name="nightly",
        tracking=MlflowConfig(tracking_uri=f"sqlite:///{output}/mlflow.db", experiment="downstream"),
    )
    place = SuiteTracker(config, suite, suite.planned).close()
    save_suite(folder, replace(suite, mlflow=place))
    write_report(folder, draws=200)
    return folder, place


@pytest.fixture(scope="module")
def server(tracked) -> Iterator[str]:
    with mlflow_server(tracked[1]["tracking_uri"], tracked[0].parent) as address:
        yield address


def test_the_experiment_has_one_line_for_the_suite_which_holds_all_cells(tracked, server, tmp_path):
    page, _ = look(f"{server}/#/experiments/1", tmp_path, "--dump-dom")
    text = re.sub(r"<[^>]+>", " ", page)
    assert "downstream" in text
    assert "nightly" in text
    cells = len(list(load_outcomes(tracked[0])))
    assert re.search(rf"\b{cells + 1}\s+matching runs", text)
    # The cells are folded away under the suite.
    assert "aptos finetune" not in text


def test_the_suites_run_shows_averages_and_its_settings(tracked, server, tmp_path):
    page, _ = look(f"{server}/#/experiments/1/runs/{tracked[1]['run_id']}", tmp_path, "--dump-dom")
    text = re.sub(r"<[^>]+>", " ", page)
    assert "avg_roc/finetune/100pct/MAE" in text
    assert "avg_prc/probe/10pct/mine _b____1" in text  # the encoder is called "mine <b>&|_1"
    assert "checkpoints.MAE" in text
    assert "Finished" in text


def test_the_report_opens_in_the_artifact_viewer(tracked, server, tmp_path):
    address = f"{server}/#/experiments/1/runs/{tracked[1]['run_id']}/artifacts/report/report.html"
    picture = tmp_path / "page.png"
    look(address, tmp_path, f"--screenshot={picture}")
    page, _ = look(address, tmp_path, "--dump-dom")
    assert re.search(r'<iframe[^>]*id="html"', page)
    # Where the frame is, text and the warnings' red are drawn; an empty frame is white.
    frame = np.asarray(Image.open(picture).convert("RGB"), dtype=int)[300:950, 450:1450]
    assert (frame.max(axis=2) < 100).mean() > 0.005
    assert ((frame[..., 0] - frame[..., 1]) > 60).any()
