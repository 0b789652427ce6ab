"""All files of a report."""

import math
from collections.abc import Mapping
from pathlib import Path

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.errors import UserError
from maskedclip_composer.report.caveats import caveats, missing_groups
from maskedclip_composer.report.efficiency import efficiency_figure, render
from maskedclip_composer.report.formats import file_name, write_tables
from maskedclip_composer.report.groups import Key, Results, load_results
from maskedclip_composer.report.headline import findings, scope
from maskedclip_composer.report.long_table import long_tables
from maskedclip_composer.report.page import Contents, page
from maskedclip_composer.report.paper_tables import ablation_tables, averages, main_tables
from maskedclip_composer.report.resampling import resample
from maskedclip_composer.report.significance import LEVEL, compare, comparison_tables
from maskedclip_composer.report.summary import Summary, summarise

# 95 % ends are the 2.5th of a hundred values at each side: below this they are hardly estimated.
_FEWEST_DRAWS = 200


def write_report(
    folder: Path,
    *,
    baseline: str | None = None,
    quoted: bool = False,
    draws: int = 2000,
    title: str | None = None,
    tracking_uri: str | None = None,
) -> Path:
    """Write SUITE/report/ from a suite's finished cells, send it to the suite's MLflow run, and return the page.

    table1, table2, differences and metrics as .md, .csv, .json and .tex; figure2-PROTOCOL as .png and .svg;
    report.html with all of it. A server that fails costs a warning.

    Args:
        folder: Of the suite.
        baseline: Encoder that the others are compared with; None takes the suite's.
        quoted: Lay the paper's numbers beside the measured ones.
        draws: Of test patients, for intervals and p values.
        title: Of the page; None names the suite.
        tracking_uri: Of MLflow with its credentials, which a suite does not keep; None looks for them in
            MLFLOW_TRACKING_URI.

    Raises:
        UserError: There is no suite, no finished cell or a damaged one, the baseline is not in the suite, or the draws
            are too few.
    """
    results = load_results(folder)
    baseline = baseline or results.suite.baseline
    if baseline not in results.suite.encoders:
        raise UserError(f"baseline={baseline} is no encoder of {folder}.\nUse one of: {', '.join(results.encoders)}.")
    _check_draws(draws, len(results.tasks))
    resampled = resample(results, draws)
    summaries = summarise(results, resampled)
    comparisons = compare(results, summaries, resampled, baseline)
    contents = Contents(
        title=title or f"Evaluation {folder.absolute().name}",
        scope=scope(results),
        findings=findings(results, comparisons, baseline),
        warnings=caveats(results, summaries),
        main=main_tables(results, summaries, quoted=quoted),
        ablation=ablation_tables(results, summaries, quoted=quoted),
        comparisons=comparison_tables(results, comparisons, baseline),
        long=long_tables(results, summaries),
        draws=draws,
        baseline=baseline,
    )
    place = folder / "report"
    tables = {
        "table1": contents.main,
        "table2": contents.ablation,
        "differences": contents.comparisons,
        "metrics": contents.long,
    }
    files = [file for name, part in tables.items() if part for file in write_tables(place, name, part)]
    for protocol in results.protocols:
        figure = efficiency_figure(results, summaries, protocol)
        for form in ("png", "svg"):
            files.append(place / f"figure2-{file_name(protocol)}.{form}")
            write_whole(files[-1], render(figure, form))
    write_whole(place / "warnings.md", _warnings_text(results, contents.warnings))
    write_whole(place / "report.html", page(results, summaries, contents))
    files = [place / "report.html", place / "warnings.md", *files]
    if results.suite.mlflow.get("run_id"):
        from maskedclip_composer.report.tracking import log_report  # MLflow takes seconds to import

        log_report(results.suite.mlflow, files, _averages(results, summaries), tracking_uri)
    return files[0]


def _check_draws(draws: int, tasks: int) -> None:
    """Refuse so few draws that the smallest p, 2 / (draws + 1), can never pass Holm's correction."""
    fewest = max(_FEWEST_DRAWS, math.ceil(2 * tasks / LEVEL))
    if draws < fewest:
        raise UserError(
            f"draws={draws} are too few: with {tasks} tasks no difference could ever be found.\n"
            f"Use {fewest} or more; 2000 is usual."
        )


def _averages(results: Results, summaries: Mapping[Key, Summary]) -> dict[str, float]:
    """Return the averages of table 1 under names for MLflow, which takes no per cent sign."""
    found: dict[str, float] = {}
    for protocol, amount in results.settings:
        for encoder in results.encoders:
            both = averages(results, summaries, protocol, amount, encoder)
            for score, value in zip(("roc", "prc"), both or (), strict=False):
                found[f"avg_{score}/{protocol}/{amount.name.replace('%', 'pct')}/{encoder}"] = value
    return found


def _warnings_text(results: Results, sentences: list[str]) -> str:
    """Return what the page warns of, for those who take the tables without it."""
    missing = "".join(f"\n    - {line}" for line in missing_groups(results))
    lines = [f"- {sentence}" + (missing if index == 0 else "") for index, sentence in enumerate(sentences)]
    return "# Warnings\n\n" + ("\n".join(lines) or "None.") + "\n"
