import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskedclip_composer import __main__ as cli
from maskedclip_composer.dashboard.charts import charts
from maskedclip_composer.dashboard.note import note
from maskedclip_composer.dashboard.page import answers
from maskedclip_composer.dashboard.run import read_run
from maskedclip_composer.dashboard.write import comparisons_of, write_dashboard
from maskedclip_composer.errors import UserError
from tests.dashboard.written import curves, write_run, write_suite


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "tiny")


def test_a_page_has_five_answers_curves_pictures_faults_and_places(run: Path):
    (run / "pictures").mkdir()
    for name in ("ba0000010.png", "ba0000120.png", "phi-ba0000060.png"):
        Image.new("RGB", (300, 200), "red").save(run / "pictures" / name)
    ranks = [{"losses": {"total": float("nan"), "mim": float("nan"), "lg_clip": 2.0}}]
    fault = {"step": 77, "action": "skip", "norm": float("inf"), "time": "2026-01-01", "ranks": ranks}
    (run / "faults.jsonl").write_text(json.dumps(fault) + "\n")
    html = write_dashboard(run).read_text()
    text = words(html)
    questions = ["learning", "collapsing", "How fast", "cost", "best downstream"]
    assert html.count('<section class="tile') == 5
    assert all(question in text for question in questions)
    assert html.count("<svg") == len(charts(read_run(run)))
    assert re.findall(r'alt="([^"]*\.png)"', html) == ["ba0000120.png", "phi-ba0000060.png"]
    assert "1 step was not finite" in text
    assert "77 loss mim, gradient norm" in text
    assert "metrics.jsonl every metric" in text
    assert "step 120 of 120" in text
    assert "4 x NVIDIA H100" in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert "url(" not in html


def test_every_metric_is_drawn_once(run: Path):
    drawn = charts(read_run(run))
    assert len({chart.title for chart in drawn}) == len(drawn)
    # Both groups have the same rate; the clock is no curve.
    hidden = {"lr-AdamW/group1", "time/total"}
    assert sum(len(chart.lines) for chart in drawn) == len(curves().keys() - hidden)


def test_texts_of_others_do_no_harm(tmp_path: Path):
    bad = "<script>alert(1)</script>"
    run = write_run(tmp_path / "tiny", run_name=bad, objectives={bad: {}})
    (run / "data_manifest.json").write_text(json.dumps({"paired": {"samples": 1, "path": "s3://me:hunter2@host/x"}}))
    values = {"diagnostics/<script>/x": np.arange(40.0)}
    write_run(run, values, run_name=bad)
    (run / "data_manifest.json").write_text(json.dumps({"paired": {"samples": 1, "path": "s3://me:hunter2@host/x"}}))
    write_suite(tmp_path / "eval", {bad: str(run)}, {bad: 0.7})
    html = write_dashboard(run).read_text()
    assert "<script" not in html
    assert "hunter2" not in html
    told = read_run(run)
    assert "<script>" not in note(told, answers(told, comparisons_of(told)))


def test_a_folder_with_metrics_alone_has_a_page(run: Path):
    for path in run.iterdir():
        if path.name != "metrics.jsonl":
            path.unlink()
    text = words(write_dashboard(run).read_text())
    assert "total loss" in text
    assert "nothing tells whether it runs" in text


def test_damaged_files_cost_no_page(run: Path):
    for path in (*run.iterdir(), run / "faults.jsonl", run / "state.json", run / "suites.json"):
        path.write_text("{[")
    assert "Nothing to judge yet" in words(write_dashboard(run).read_text())


def test_the_table_names_the_chosen_one_its_rule_and_those_that_are_not_of_the_run(run: Path):
    sources = {"random": f"random:{run}", "final": str(run)}
    write_suite(run.parent / "eval", sources, {"random": 0.6, "final": 0.8}, tasks=("APTOS", "ODIR"))
    html = write_dashboard(run).read_text()
    assert "<mark>final</mark>" in html
    assert re.search(r'class="quoted">\s*<th scope="row">random', html)
    text = words(html)
    assert "80.0 [78.0, 82.0]" in text
    assert "highest mean ROC on validation" in text
    assert "Mean" in text


def test_the_note_has_the_answers_and_links(run: Path):
    found = read_run(run, state="running")
    text = note(found, answers(found, []))
    assert text.count("\n- ") >= 5
    assert "**running**, step 120 of 120" in text
    assert "[dashboard.html](#here/dashboard.html)" in text
    assert "model_card" not in text
    assert "evaluate.py" in text


def test_the_command_writes_the_page_and_says_where(run: Path, tmp_path: Path, capsys):
    suite = write_suite(tmp_path / "far" / "eval", {"final": str(run)}, {"final": 0.8})
    out = tmp_path / "page.html"
    assert cli.main(["dashboard", str(run), "--suite", str(suite), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert "final: the only one evaluated" in words(out.read_text())
    assert cli.main(["dashboard", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'dashboard.html'}\n"


def test_a_given_suite_that_is_of_other_encoders_is_told(run: Path, tmp_path: Path, caplog):
    suite = write_suite(tmp_path / "far" / "eval", {"timm": "timm:vit"}, {"timm": 0.8})
    assert cli.main(["dashboard", str(run), "--suite", str(suite)]) == 0
    assert "no finished cell of an encoder of" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent"], "holds neither config.yaml nor metrics.jsonl"),
        (["tiny", "--suite", "absent"], "--suite absent holds no suite.json"),
        (["tiny", "--out", "tiny/config.yaml/x.html"], "Choose another file with --out"),
    ],
)
def test_what_the_user_can_mend_is_said(run: Path, monkeypatch, capsys, arguments: list[str], said: str):
    monkeypatch.chdir(run.parent)
    assert cli.main(["dashboard", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_no_folder_is_made_for_a_run_that_is_none(tmp_path: Path):
    with pytest.raises(UserError, match="no training run"):
        write_dashboard(tmp_path / "typo")
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_made_without_torch_composer_and_mlflow():
    """They take seconds to import, and the page is asked for often."""
    code = "import sys, maskedclip_composer.dashboard.write; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not {"torch", "composer", "mlflow", "sklearn"} & set(done.stdout.split())
