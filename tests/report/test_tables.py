import csv
import io
import json
import re

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from maskedclip_composer.evaluation.statistics.bootstrap import interval, resampling_weights
from maskedclip_composer.report.formats import latex, markdown, records
from maskedclip_composer.report.groups import load_results
from maskedclip_composer.report.long_table import long_tables
from maskedclip_composer.report.paper_tables import ablation_tables, main_tables
from maskedclip_composer.report.resampling import _SEED, resample
from maskedclip_composer.report.significance import compare, comparison_tables
from maskedclip_composer.report.summary import summarise
from maskedclip_composer.report.table import Entry, Row, difference, mark_best, p_value, percent
from tests.evaluation.statistics.whole import paired_difference, seed_mean_scores
from tests.report.conftest import AMOUNTS, ENCODERS, SEEDS, labels, probabilities

DRAWS = 200
MINE = "mine <b>&|_1"


@pytest.fixture(scope="module")
def results(whole):
    return load_results(whole)


@pytest.fixture(scope="module")
def resampled(results):
    return resample(results, DRAWS)


@pytest.fixture(scope="module")
def summaries(results, resampled):
    return summarise(results, resampled)


def saved(task: str, encoder: str, protocol: str, fraction: float) -> np.ndarray:
    """Probabilities of all seeds, as they are on disk."""
    return np.stack([probabilities(task, encoder, protocol, fraction, seed) for seed in SEEDS]).astype(np.float32)


def scores(task: str, encoder: str, protocol: str, fraction: float) -> tuple[list[float], list[float]]:
    """ROC and PRC of each seed, straight from scikit-learn; ODIR's last class has no photograph."""
    one_hot, _ = labels(task)
    counted = [0, 1, 2]
    both = [
        (
            roc_auc_score(one_hot[:, counted], seed[:, counted]),
            average_precision_score(one_hot[:, counted], seed[:, counted]),
        )
        for seed in saved(task, encoder, protocol, fraction)
    ]
    roc, prc = zip(*both, strict=True)
    return list(roc), list(prc)


def line(tables, protocol: str, **wanted) -> dict:
    """The one record that has these values."""
    found = [
        record
        for table in tables
        for record in records(table)
        if record["Protocol"] == protocol
        and all(record[name.replace("_", " ")] == value for name, value in wanted.items())
    ]
    assert len(found) == 1
    return found[0]


def test_main_table_has_means_deviations_and_the_average_over_tasks(results, summaries):
    tables = main_tables(results, summaries, quoted=False)
    record = line(tables, "probe", Labels="50%", Encoder=MINE)
    means = {}
    for task, title in (("aptos", "APTOS2019"), ("odir", "ODIR-5K")):
        for name, values in zip(("ROC", "PRC"), scores(task, MINE, "probe", 0.5), strict=True):
            means[title, name] = np.mean(values)
            assert record[f"{title} {name}"] == pytest.approx(np.mean(values))
            assert record[f"{title} {name} sd"] == pytest.approx(np.std(values, ddof=1))
    for name in ("ROC", "PRC"):
        assert record[f"Avg {name}"] == pytest.approx((means["APTOS2019", name] + means["ODIR-5K", name]) / 2)
    assert (record["Images paired"], record["Images unpaired"]) == (140_000, 200_000)
    assert line(tables, "probe", Labels="50%", Encoder="twin of MAE")["Images paired"] is None


def test_the_interval_is_of_the_mean_over_seeds_with_one_set_of_draws_per_task(results, summaries):
    record = line(main_tables(results, summaries, quoted=False), "finetune", Labels="10%", Encoder="MAE")
    for task, title in (("aptos", "APTOS2019"), ("odir", "ODIR-5K")):
        one_hot, patients = labels(task)
        weights = resampling_weights(one_hot, patients, draws=DRAWS, seed=_SEED)
        skipped = [] if task == "aptos" else [3]
        roc, prc = seed_mean_scores(saved(task, "MAE", "finetune", 0.1), one_hot, weights, skipped)
        for name, drawn in (("ROC", roc), ("PRC", prc)):
            low, high = interval(drawn)
            assert record[f"{title} {name} low"] == pytest.approx(low)
            assert record[f"{title} {name} high"] == pytest.approx(high)
            assert low < record[f"{title} {name}"] < high


def test_sections_are_the_amounts_ascending_and_rows_the_encoders_in_order(results, summaries):
    for table in main_tables(results, summaries, quoted=False):
        assert [row.section for row in table.rows] == [amount.name for amount in AMOUNTS for _ in ENCODERS]
        assert [row.entries[0].text for row in table.rows] == 3 * list(ENCODERS)


def test_best_is_bold_and_second_underlined_ties_alike(results, summaries):
    text = markdown(main_tables(results, summaries, quoted=True)[0])
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in text.splitlines() if row.startswith("| 10%")
    ]
    for column in range(5, 11):
        assert [row[column][:2] for row in rows[:3]] == ["<u", "**", "<u"]  # the twin equals MAE
        assert all(re.fullmatch(r"[\d.]+|-", row[column]) for row in rows[3:])  # quoted numbers do not compete
    roc = np.mean(scores("aptos", MINE, "finetune", 0.1)[0])
    assert rows[1][5] == f"**{100 * roc:.1f}**"
    assert rows[1][2] == r"mine \<b\>&\|\_1"


def test_quoted_rows_are_the_papers_and_only_for_its_protocol_amounts_and_tasks(results, summaries):
    tables = main_tables(results, summaries, quoted=True)
    record = line(tables, "finetune", Labels="100%", Encoder="RETFound (quoted)")
    assert (record["APTOS2019 ROC"], record["APTOS2019 PRC"]) == (0.95, 0.744)
    assert record["ODIR-5K ROC"] is None
    assert record["Avg ROC"] is None  # the paper has no ODIR
    assert record["Source"] == "quoted from arXiv 2507.17239, not measured here"
    assert record["Images unpaired"] == 900_000
    quoted = {
        (row["Protocol"], row["Labels"]) for table in tables for row in records(table) if "quoted" in row["Source"]
    }
    assert quoted == {("finetune", "10%"), ("finetune", "100%")}
    assert not any(row.quoted for table in main_tables(results, summaries, quoted=False) for row in table.rows)
    assert any("not measured here" in note for note in tables[0].notes)
    assert not any("quoted" in note for note in tables[1].notes)


def test_ablation_has_the_encoders_of_known_recipe_fewest_parts_first(results, summaries):
    tables = ablation_tables(results, summaries, quoted=True)
    own = [row for row in tables[0].rows if row.section == "10%"]
    assert [row.entries[0].text for row in own] == [
        "MAE", MINE, "MAE+CLIP (quoted)", "+ Bridge (quoted)", "MaskedCLIP (quoted)",
    ]  # fmt: skip
    marks = [[entry.text for entry in row.entries[1:5]] for row in own]
    assert marks[0] == ["✓", "", "", ""]
    assert marks[1] == ["✓"] * 4
    assert marks[3] == ["✓", "✓", "✓", ""]
    assert line(tables, "finetune", Labels="10%", Encoder="+ Bridge (quoted)")["APTOS2019 PRC"] == 0.611


def test_a_suite_without_recipes_has_no_ablation(folder):
    content = json.loads((folder / "suite.json").read_text())
    for facts in content["encoders"].values():
        facts["recipe"] = {}
    (folder / "suite.json").write_text(json.dumps(content))
    results = load_results(folder)
    assert ablation_tables(results, summarise(results, resample(results, 20)), quoted=True) == []


def test_long_table_has_costs_and_every_metric_of_the_task(results, summaries):
    tables = long_tables(results, summaries)
    record = line(tables, "probe", Labels="10%", Task="ODIR-5K", Encoder="MAE")
    assert [record[name] for name in ("Seeds", "Images train", "Images test", "Images contaminated")] == [3, 12, 60, 3]
    assert (record["Steps"], record["Steps max"]) == (100, 102)
    assert record["Quadratic kappa"] is None  # several labels have no order
    one_hot, _ = labels("odir")
    exact = np.mean([((seed > 0.5) == one_hot).all(axis=1).mean() for seed in saved("odir", "MAE", "probe", 0.1)])
    assert record["Exact match"] == pytest.approx(exact)
    text = markdown(tables[1])
    assert "100 to 102" in text
    assert "unknown" in next(row for row in text.splitlines() if "twin" in row)
    roc = scores("odir", "MAE", "probe", 0.1)[0]
    low, high = record["ROC low"], record["ROC high"]
    told = rf"{100 * np.mean(roc):.1f} ± {100 * np.std(roc, ddof=1):.1f} \[{100 * low:.1f}, {100 * high:.1f}\]"
    assert told in text


def test_differences_are_the_paired_ones_and_holm_goes_over_the_tasks(results, summaries, resampled):
    tables = comparison_tables(results, compare(results, summaries, resampled, "twin of MAE"), "twin of MAE")
    found = {}
    for task, title in (("aptos", "APTOS2019"), ("odir", "ODIR-5K")):
        one_hot, patients = labels(task)
        weights = resampling_weights(one_hot, patients, draws=DRAWS, seed=_SEED)
        expected = paired_difference(
            saved(task, MINE, "probe", 1.0),
            saved(task, "twin of MAE", "probe", 1.0),
            one_hot,
            weights,
            [] if task == "aptos" else [3],
        )
        record = line(tables, "probe", Labels="100%", Task=title, Encoder=MINE)
        for name, contrast in (("ROC", expected.roc), ("PRC", expected.prc)):
            assert record[f"{name} difference"] == pytest.approx(contrast.difference)
            assert record[f"{name} difference low"] == pytest.approx(contrast.low)
            assert record[f"{name} difference high"] == pytest.approx(contrast.high)
            assert record[f"{name} p"] == pytest.approx(contrast.p)
        found[title] = record
    for name in ("ROC p", "PRC p"):
        first, second = found.values()
        assert first[f"{name} Holm"] == pytest.approx(min(1, max(2 * first[name], second[name])))  # equal p of both
        assert second[f"{name} Holm"] == pytest.approx(min(1, max(2 * second[name], first[name])))
    same = line(tables, "probe", Labels="100%", Task="APTOS2019", Encoder="MAE")
    assert (same["ROC difference"], same["ROC p"], same["ROC p DeLong"]) == (0, 1, 1)


def test_csv_and_json_hold_the_same_unrounded_numbers(whole, results, summaries, tmp_path):
    from maskedclip_composer.report.formats import write_tables

    tables = main_tables(results, summaries, quoted=True)
    files = {path.suffix: path for path in write_tables(tmp_path, "t", tables)}
    rows = json.loads(files[".json"].read_text(), parse_constant=lambda name: pytest.fail(name))
    table = list(csv.DictReader(io.StringIO(files[".csv"].read_text())))
    assert len(rows) == len(table) == sum(len(part.rows) for part in tables)
    for row, cells in zip(rows, table, strict=True):
        for name, value in row.items():
            assert cells[name] == "" if value is None else cells[name]
            if isinstance(value, float):
                assert float(cells[name]) == value
    assert "nan" not in files[".md"].read_text().lower()


def test_latex_is_escaped_has_booktabs_rules_and_as_many_cells_in_each_row(results, summaries):
    for table in [*main_tables(results, summaries, quoted=True), *ablation_tables(results, summaries, quoted=True)]:
        lines = [text for text in latex(table).splitlines() if not text.startswith("%")]
        text = "\n".join(lines)
        for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
            assert text.count(rule) == (len(table.sections) if rule == r"\midrule" else 1)
        rows = [row for row in lines if row.endswith(r"\\")]
        assert len(rows) == len(table.rows) + 2
        for row in rows[1:]:
            assert len(re.findall(r"(?<!\\)&", row)) == len(table.columns)
        assert r"10\%" in text
        assert r"mine $<$b$>$\&$|$\_1" in text
        assert not re.search(r"[✓±]|(?<!\\)%", text)
    roc = np.mean(scores("aptos", MINE, "finetune", 0.1)[0])
    assert rf"\textbf{{{100 * roc:.1f}}}" in latex(main_tables(results, summaries, quoted=False)[0])
    assert r"$\checkmark$" in text


def test_what_is_undefined_is_a_dash_and_never_nan():
    nan = float("nan")
    for entry in (percent(None, spread=True), percent(nan, spread=False), difference(nan), p_value(nan)):
        assert (entry.text, entry.values) == ("-", {"": None})
    assert percent(0.5, None, (nan, nan), spread=True) == Entry("50.0", {"": 0.5})
    assert difference(0.01, (nan, nan)).text == "+1.0"
    assert [p_value(p).text for p in (0.0004, 0.0499, 1.0)] == ["< 0.001", "0.050", "1.000"]


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ([0.5, 0.7, 0.6], ["", "best", "second"]),
        ([0.70004, 0.7, 0.6], ["best", "best", "second"]),  # equal in print
        ([0.7, 0.7], ["", ""]),
        ([0.7, None], ["", ""]),
        ([0.7, None, 1.0], ["second", "", "best"]),
    ],
)
def test_marks(values, marks):
    rows = [Row(section="10%", entries=[percent(value, spread=False)]) for value in values]
    quoted = Row(section="10%", entries=[percent(0.99, spread=False)], quoted=True)
    marked = mark_best([*rows, quoted], [0])
    assert [row.entries[0].mark for row in marked] == [*marks, ""]
