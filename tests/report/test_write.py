import io
import json
import logging
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from maskedclip_composer.callbacks.mlflow_store import open_client
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.cells import load_suite, save_suite
from maskedclip_composer.report.__main__ import main
from maskedclip_composer.report.embed import shrink_to_fit
from maskedclip_composer.report.write import write_report
from tests.report.conftest import suite

TABLES = {
    f"{name}.{form}" for name in ("table1", "table2", "differences", "metrics") for form in ("md", "csv", "json", "tex")
}
FIGURES = {f"figure2-{protocol}.{form}" for protocol in ("finetune", "probe") for form in ("png", "svg")}
DRAWS = 200


class Page(HTMLParser):
    """What the tests ask of a page: its elements with their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def add_pictures(folder: Path) -> None:
    """Two pictures of one cell and one of an encoder that the suite does not have."""
    pixels = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    for place in ("aptos/finetune/MAE/roc", "aptos/finetune/MAE/gallery", "aptos/finetune/somebody/roc"):
        path = folder / "pictures" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def report(whole, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "suite"
    shutil.copytree(whole, folder)
    add_pictures(folder)
    return write_report(folder, quoted=True, draws=DRAWS)


@pytest.fixture(scope="module")
def page(report) -> Page:
    return Page(report.read_text())


def test_all_files_are_written(report):
    assert report.name == "report.html"
    assert {path.name for path in report.parent.iterdir()} == TABLES | FIGURES | {"report.html", "warnings.md"}


def test_the_same_suite_gives_the_same_files(report):
    before = {path.name: path.read_bytes() for path in report.parent.iterdir()}
    write_report(report.parents[1], quoted=True, draws=DRAWS)
    assert {path.name: path.read_bytes() for path in report.parent.iterdir()} == before


def test_the_page_needs_no_other_file_and_runs_nothing(report, page):
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(addresses) == 4 + 2  # panels of two tasks by two protocols, two pictures
    assert all(address.startswith(("data:image/svg+xml;base64,", "data:image/webp;base64,")) for address in addresses)
    assert not page.all("script") + page.all("link") + page.all("iframe")
    assert not re.search(r"url\(|@import|https?://", report.read_text())
    assert report.stat().st_size < 10_000_000


def test_names_are_escaped_and_credentials_hidden(report, page):
    text = report.read_text()
    assert "<b>&|_1" not in text
    assert "mine &lt;b&gt;&amp;|_1" in text
    assert "a <script>alert(1)</script> of ours" in page.text
    assert "hidden" not in "".join(path.read_text() for path in report.parent.iterdir() if path.suffix != ".png")
    assert "s3://***@host/run" in text


def test_headings_stand_in_order_and_headings_of_tables_have_a_scope(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "colgroup", "row", "rowgroup"}
    order = ["Warnings", "Table 1", "Figure 2", "Table 2", "Differences to MAE", "Tasks", "Protocols", "Provenance"]
    order.append("How to read and cite")
    places = [page.text.index(heading) for heading in order]
    assert places == sorted(places)


def test_pictures_have_alternatives_with_their_numbers(report, page):
    table = pd.read_csv(report.with_name("table1.csv"))
    row = table[(table["Protocol"] == "probe") & (table["Labels"] == "100%") & (table["Encoder"] == "MAE")].iloc[0]
    alternatives = [attributes["alt"] for attributes in page.all("img")]
    assert all(alternatives)
    assert any(
        text.startswith("Linear probe: ROC by amount of training data on ODIR-5K. At 100%:")
        and f"MAE {100 * row['ODIR-5K ROC']:.1f}" in text
        for text in alternatives
    )
    assert "ROC curves: APTOS2019, Fine-tuning, MAE" in alternatives
    assert not any("somebody" in text for text in alternatives)


def test_the_page_says_what_was_compared_and_no_more_than_was_found(page):
    assert "3 encoders, MAE, mine <b>&|_1 and twin of MAE, on 2 tasks, APTOS2019 (90 test photographs)" in page.text
    assert "Fine-tuning (10%, 50% and 100%; 3 seeds)" in page.text
    told = "mine <b>&|_1: better on 2 of 2 tasks at 10%, 2 of 2 tasks at 50% and 2 of 2 tasks at 100%."
    assert page.text.count(told) == 2
    assert page.text.count("No difference was found for twin of MAE.") == 2


def test_nothing_is_claimed_where_nothing_differs(folder):
    content = json.loads((folder / "suite.json").read_text())
    del content["encoders"]["mine <b>&|_1"]
    (folder / "suite.json").write_text(json.dumps(content))
    text = Page(write_report(folder, draws=DRAWS).read_text()).text
    assert "Fine-tuning: no encoder differs from MAE after correction." in text
    assert "better" not in text


def test_warnings_name_contamination_skipped_classes_and_small_splits(page):
    assert "the pre-training of MAE has seen test photographs: 3 of 60 of ODIR-5K." in page.text
    assert "unknown for twin of MAE (all tasks)." in page.text
    assert "Left out of the means of ODIR-5K: never seen (no test photograph has them)." in page.text
    assert re.search(r"Small test split: ODIR-5K has 60 photographs; .* typically reaches \d\.\d points", page.text)
    assert "Incomplete" not in page.text


def test_a_half_finished_suite_is_reported_with_what_is_missing(folder):
    save_suite(folder, suite(complete=False))
    for place in ("aptos/probe/10%/MAE/seed1", "aptos/probe/10%/MAE/seed2", "odir/finetune/100%/twin of MAE/seed0"):
        shutil.rmtree(folder / "cells" / place)
    shutil.rmtree(folder / "cells" / "odir" / "probe" / "50%" / "mine <b>&|_1")
    text = Page(write_report(folder, draws=DRAWS).read_text()).text
    assert "Incomplete: 6 of 108 cells are missing." in text
    assert "MAE, APTOS2019, Linear probe, 10%: seed 1, 2" in text
    warnings = (folder / "report" / "warnings.md").read_text()
    assert "    - mine <b>&|_1, ODIR-5K, Linear probe, 50%: seed 0, 1, 2" in warnings
    for path in (folder / "report").iterdir():
        if path.suffix in (".md", ".csv", ".json", ".tex"):
            assert not re.search(r"\bnan\b", path.read_text(), re.IGNORECASE), path
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    table = pd.read_csv(folder / "report" / "table1.csv")
    row = table[(table["Protocol"] == "probe") & (table["Labels"] == "50%") & (table["Encoder"].str.startswith("mine"))]
    assert row[["ODIR-5K ROC", "Avg ROC"]].isna().all(axis=None)
    assert row["APTOS2019 ROC"].notna().all()
    single = table[(table["Protocol"] == "probe") & (table["Labels"] == "10%") & (table["Encoder"] == "MAE")]
    assert single["APTOS2019 ROC sd"].isna().all()  # one seed is left
    assert "| - " in (folder / "report" / "table1.md").read_text()


def test_a_running_suite_with_a_single_cell_is_reported(folder):
    save_suite(folder, suite(complete=False))
    for place in (folder / "cells").glob("*/*/*/*/seed*"):
        if place.relative_to(folder / "cells").as_posix() != "aptos/probe/10%/MAE/seed1":
            shutil.rmtree(place)
    text = Page(write_report(folder, draws=DRAWS).read_text()).text
    assert "Incomplete: 107 of 108 cells are missing." in text
    assert "No encoder could be compared with MAE" in text
    assert "One seed only, so no spread over seeds: Linear probe." in text


def test_what_was_planned_is_missed_and_a_note_says_what_was_not(folder):
    for place in (folder / "cells").glob("*/probe/*/twin of MAE"):
        shutil.rmtree(place)
    write_report(folder, draws=DRAWS)
    assert "18 of 108 cells are missing" in (folder / "report" / "warnings.md").read_text()
    planned = [cell for cell in suite().planned if (cell.protocol, cell.encoder) != ("probe", "twin of MAE")]
    save_suite(folder, suite(planned=planned, notes=["twin of MAE by probe is left out: a reason."]))
    write_report(folder, draws=DRAWS)
    warnings = (folder / "report" / "warnings.md").read_text()
    assert "missing" not in warnings
    assert "- twin of MAE by probe is left out: a reason." in warnings


def test_mistakes_are_told(folder, tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "holds no suite.json" in capsys.readouterr().err
    assert main([str(folder), "--baseline", "somebody"]) == 2
    assert "baseline=somebody is no encoder" in capsys.readouterr().err
    assert main([str(folder), "--draws", "20"]) == 2
    assert "draws=20 are too few" in capsys.readouterr().err
    np.save(folder / "cells/aptos/probe/10%/MAE/seed1/probabilities.npy", np.zeros((3, 3), np.float32))
    with pytest.raises(UserError, match=r"seed1 has probabilities of shape \(3, 3\)"):
        write_report(folder, draws=DRAWS)
    (folder / "tasks" / "aptos.parquet").write_text("no parquet")
    with pytest.raises(UserError, match=r"aptos\.parquet is absent or damaged"):
        write_report(folder, draws=DRAWS)
    shutil.rmtree(folder / "cells")
    with pytest.raises(UserError, match="no finished cell"):
        write_report(folder, draws=DRAWS)


def test_the_command_line_prints_the_warnings_and_where_the_page_is(folder, capsys):
    assert main([str(folder), "--baseline", "twin of MAE", "--draws", str(DRAWS), "--title", "Mine & yours"]) == 0
    printed = capsys.readouterr().out
    assert "- Contaminated: " in printed
    assert printed.splitlines()[-1] == str(folder / "report" / "report.html")
    text = (folder / "report" / "report.html").read_text()
    assert "<h1>Mine &amp; yours</h1>" in text
    assert "Differences to twin of MAE" in text


def test_many_pictures_fit_the_budget_and_damaged_ones_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (450, 600, 3), dtype=np.uint8)).save(path)
    paths[3].write_bytes(b"no picture")
    content = shrink_to_fit(paths, 400_000)
    assert content[paths[3]] is None
    kept = [value for value in content.values() if value]
    assert len(kept) == 4
    assert sum(map(len, kept)) <= 400_000
    whole = shrink_to_fit(paths, 10_000_000)[paths[0]]
    assert whole is not None
    assert Image.open(io.BytesIO(whole)).size == (600, 450)
    assert not any(shrink_to_fit(paths, 100).values())


def test_the_report_goes_to_the_suites_mlflow_run(folder, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = open_client(uri)
    experiment = client.create_experiment("maskedclip", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    save_suite(folder, suite(mlflow={"tracking_uri": uri, "experiment": "maskedclip", "run_id": run}))
    assert load_suite(folder).mlflow["run_id"] == run
    write_report(folder, draws=DRAWS)
    stored = {Path(item.path).name for item in client.list_artifacts(run, "report")}
    assert stored == TABLES | FIGURES | {"report.html", "warnings.md"}


def test_a_dead_server_costs_a_warning_without_its_password(folder, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    save_suite(folder, suite(mlflow={"tracking_uri": "http://me:hidden@127.0.0.1:9", "experiment": "e", "run_id": "1"}))
    with caplog.at_level(logging.WARNING):
        path = write_report(folder, draws=DRAWS)
    assert path.is_file()
    assert "failed" in caplog.text
    assert "the report is in" in caplog.text
    assert "hidden" not in caplog.text
