"""What suites have measured stands in the card of the run whose weights they measured."""

import json
import logging

import pytest

from maskedclip_composer.cards.evaluations import read_evaluations
from maskedclip_composer.cards.suites import remembered
from maskedclip_composer.cards.write import rewrite_cards, write_cards
from maskedclip_composer.errors import UserError
from maskedclip_composer.report.groups import load_results
from maskedclip_composer.report.resampling import resample
from maskedclip_composer.report.summary import summarise
from tests.cards.small import write_suite
from tests.cards.test_model_card import card, cells


def test_numbers_are_those_of_the_report(run, tmp_path):
    suite = write_suite(tmp_path / "suite", run)
    (found,), told = read_evaluations(run, [suite])
    assert told == []
    results = load_results(suite)
    report = summarise(results, resample(results, 2000))
    assert found.summaries == {key: summary for key, summary in report.items() if key.encoder == "mine"}
    assert found.tasks[0].patients == 12
    assert found.comparator == ("untrained", "random")
    text, _ = card(run, suite)
    (summary,) = found.summaries.values()
    low, high = (100 * end for end in summary.intervals["roc"])
    assert f"{100 * summary.mean['roc']:.1f} ± {100 * summary.deviation['roc']:.1f} \\[{low:.1f}, {high:.1f}\\]" in text
    assert "strength of regularisation from 0.1, by macro ROC on validation" in text
    assert "Calibration error | expected calibration error" in text


@pytest.mark.parametrize(
    ("count", "shown", "verdict"),
    [(0, "0", "not touched by it"), (3, "3", "too good"), (None, "unknown", "of unknown fairness")],
)
def test_contamination_is_told_for_each_task(run, tmp_path, count, shown, verdict):
    text, _ = card(run, write_suite(tmp_path / "suite", run, contaminated=count))
    (line,) = [line for line in text.splitlines() if line.startswith("| suite | Our clinic |")]
    assert f"| 24 | {shown} | {verdict}" in line
    assert ("Contaminated: the pre-training of mine" in text) == bool(count)
    glance = cells(text, "test photographs seen in pre-training")[1]
    assert glance.startswith("0, in the 0 of 1" if count is None else f"{count}, in the 1 of 1")


def test_other_weights_of_the_run_and_other_runs_are_not_shown(run, tmp_path):
    of_yesterday = write_suite(tmp_path / "yesterday", run, fingerprint="1" * 64)
    of_others = write_suite(tmp_path / "others", tmp_path, fingerprint="2" * 64)
    (of_others / "broken").mkdir()
    text, _ = card(run, of_yesterday, of_others)
    assert "Not shown: suite yesterday evaluated this run with other weights" in text
    assert "Not shown: suite others did not evaluate this run" in text
    assert "### Suite" not in text
    (run / "encoder.safetensors").unlink()
    assert "Not shown: suite yesterday: there is no encoder.safetensors" in card(run)[0]


def test_suites_are_remembered_wherever_both_are_moved(run, tmp_path):
    suite = write_suite(tmp_path / "runs" / "suite", run)
    write_cards(run, [suite], out=tmp_path / "elsewhere")
    assert remembered(run) == []
    assert "### Suite suite" in (tmp_path / "elsewhere" / "model_card.md").read_text()
    write_cards(run, [suite])
    assert str(tmp_path) not in (run / "suites.json").read_text()
    moved = (tmp_path / "runs").rename(tmp_path / "moved")
    text, _ = card(moved / "small")
    assert "### Suite suite" in text
    (moved / "suite" / "suite.json").unlink()
    text, _ = card(moved / "small")
    assert "Not shown: suite suite is not where it was" in text
    with pytest.raises(UserError, match=r"holds no suite\.json"):
        write_cards(moved / "small", [moved / "suite"])
    (moved / "small" / "suites.json").write_text("{")
    assert "### Suite" not in card(moved / "small")[0]


def test_the_end_of_a_suite_writes_the_cards_of_its_runs_again(run, tmp_path, caplog):
    suite = write_suite(tmp_path / "suite", run)
    assert rewrite_cards(suite, to_mlflow=False) == [run / "model_card.md", run / "data_card.md"]
    assert "### Suite suite" in (run / "model_card.md").read_text()
    (run / "config.yaml").write_text("[")
    with caplog.at_level(logging.WARNING):
        assert rewrite_cards(suite, to_mlflow=False) == []
    assert "were not written again: UserError" in caplog.text
    (run / "config.yaml").unlink()  # no run any more: nothing to write
    assert rewrite_cards(suite, to_mlflow=False) == []


def test_they_go_to_the_runs_own_run_in_mlflow(run, tmp_path, monkeypatch):
    import maskedclip_composer.cards.tracking as tracking

    sent = []
    monkeypatch.setattr(tracking, "open_client", lambda uri: uri)
    monkeypatch.setattr(tracking, "log_artifact", lambda client, run_id, path: sent.append((client, run_id, path.name)))
    suite = write_suite(tmp_path / "suite", run)
    rewrite_cards(suite, to_mlflow=True)
    assert sent == []  # the run has no run there
    record = {"run_id": "abc", "tracking_uri": "https://***@mlflow.example"}
    (run / "mlflow_run.json").write_text(json.dumps(record))
    address = "https://me:word@mlflow.example"
    rewrite_cards(suite, to_mlflow=True, tracking_uri=address)
    assert sent == [(address, "abc", "model_card.md"), (address, "abc", "data_card.md")]
