"""Which checkpoint is best: by suites of which the answer is known."""

import json
import shutil
from pathlib import Path

import pytest

from maskedclip_composer.dashboard.downstream import BY_TEST, BY_VALIDATION, choose, downstream
from maskedclip_composer.dashboard.run import read_run
from maskedclip_composer.dashboard.suites import evaluated_runs, find_suites, note_suite, read_suite
from maskedclip_composer.dashboard.write import comparisons_of
from maskedclip_composer.errors import UserError
from tests.dashboard.written import write_run, write_suite


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "runs" / "tiny")
    (folder / "checkpoints").mkdir()
    return folder


def three(run: Path) -> dict[str, str]:
    """A random network, a checkpoint, and what the run has ended with."""
    return {"random": f"random:{run}", "early": f"{run}/checkpoints/ep1-ba10-rank0.pt", "final": str(run)}


def test_the_best_on_validation_is_chosen_and_told_with_its_score_on_test(run: Path):
    roc = {"random": 0.6, "early": 0.9, "final": 0.8}
    suite = write_suite(run.parent / "eval", three(run), roc, val_roc={"random": 0.6, "early": 0.7, "final": 0.75})
    (comparison,) = read_suite(suite, run)
    choice = choose(comparison)
    assert choice.best is not None
    assert (choice.best.encoder, choice.rule, choice.rivals) == ("final", BY_VALIDATION, 2)
    answer = downstream(read_run(run), [comparison])
    assert answer.number == "ROC 80.0 [78.0, 82.0] on APTOS 2019, test"
    assert answer.verdict == "final; no clear winner of 2"  # the other one is above its interval
    assert any("better on 1 of 1 task than random" in line for line in answer.lines)


def test_without_validation_the_best_on_test_is_chosen_and_the_page_says_so(run: Path):
    suite = write_suite(run.parent / "eval", three(run), {"random": 0.6, "early": 0.9, "final": 0.8}, val_roc={})
    (comparison,) = read_suite(suite, run)
    choice = choose(comparison)
    assert choice.best is not None
    assert (choice.best.encoder, choice.rule) == ("early", BY_TEST)
    answer = downstream(read_run(run), [comparison])
    assert (answer.verdict, answer.level) == ("early", "good")


def test_one_that_is_not_shown_to_be_better_than_the_baseline_is_not_praised(run: Path):
    suite = write_suite(run.parent / "eval", three(run), {"random": 0.79, "early": 0.7, "final": 0.8}, p=0.4)
    answer = downstream(read_run(run), read_suite(suite, run))
    assert (answer.verdict, answer.level) == ("final; not shown to be better than random", "watch")


def test_one_alone_is_no_choice(run: Path):
    suite = write_suite(run.parent / "eval", {"mine": str(run / "encoder.safetensors")}, {"mine": 0.8})
    answer = downstream(read_run(run), read_suite(suite, run))
    assert (answer.verdict, answer.level) == ("mine: the only one evaluated", "unknown")


def test_without_a_suite_there_is_a_command(run: Path):
    answer = downstream(read_run(run), comparisons_of(read_run(run)))
    assert answer.verdict == "Not evaluated yet"
    assert f"checkpoints.tiny={run}" in answer.command
    assert "composer evaluate.py yamls/evaluate.yaml" in answer.command


def test_the_largest_amount_counts_and_means_are_over_all_tasks(run: Path):
    roc = {"random": 0.6, "early": 0.7, "final": 0.8}
    suite = write_suite(run.parent / "eval", three(run), roc, tasks=("APTOS", "ODIR"))
    shutil.rmtree(suite / "cells" / "ODIR" / "probe" / "100%" / "early" / "seed1")
    (comparison,) = read_suite(suite, run)
    assert comparison.amount == "100%"
    assert [one.encoder for one in comparison.encoders] == ["random", "final"]
    assert comparison.unfinished == ["early"]
    final = comparison.encoders[1]
    assert set(final.scores) == {"APTOS 2019", "ODIR 2019"}
    assert final.mean_roc == pytest.approx(0.8)
    assert [(one.is_own, one.is_final) for one in comparison.encoders] == [(False, False), (True, True)]


def test_without_a_report_there_are_no_intervals_and_the_tile_says_how_to_get_them(run: Path):
    roc = {"random": 0.6, "early": 0.7, "final": 0.8}
    suite = write_suite(run.parent / "eval", three(run), roc, report=False)
    answer = downstream(read_run(run), read_suite(suite, run))
    assert answer.number == "ROC 80.0 on APTOS 2019, test"
    assert any("python -m maskedclip_composer.report" in line for line in answer.lines)


def test_suites_are_found_beside_the_run_where_they_were_noted_and_where_they_are_given(run: Path, tmp_path: Path):
    beside = write_suite(run.parent / "eval", three(run), {"final": 0.8})
    far = write_suite(tmp_path / "far" / "eval", three(run), {"final": 0.8})
    other = write_suite(tmp_path / "other", three(run), {"final": 0.8})
    note_suite(run, far)
    note_suite(run, far)
    assert {path.resolve() for path in find_suites(run)} == {beside, far}
    assert find_suites(run, [other])[0] == other
    assert json.loads((run / "evaluated_by.json").read_text()) == ["../../far/eval"]
    with pytest.raises(UserError, match="holds no suite"):
        find_suites(run, [tmp_path])


def test_sources_are_taken_from_where_the_suite_was_started(run: Path, tmp_path: Path, monkeypatch):
    suite = write_suite(run.parent / "eval", {"mine": "runs/tiny", "other": "runs/absent"}, {"mine": 0.8})
    monkeypatch.chdir("/")
    assert [one.is_own for one in read_suite(suite, run)[0].encoders] == [True]
    assert evaluated_runs(suite) == []
    monkeypatch.chdir(tmp_path)
    assert evaluated_runs(suite) == [Path("runs/tiny")]


def test_a_suite_of_other_runs_or_a_damaged_one_says_nothing(run: Path, tmp_path: Path):
    assert read_suite(write_suite(tmp_path / "eval", {"timm": "timm:vit"}, {"timm": 0.8}), run) == []
    for text in ("{", "[]", '{"encoders": {}}', '{"encoders": {"a": {"source": "' + str(run) + '"}}}'):
        (tmp_path / "eval" / "suite.json").write_text(text)
        assert read_suite(tmp_path / "eval", run) == []
