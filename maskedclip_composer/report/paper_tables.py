"""The two tables of the paper, from a suite: encoders against tasks, and the parts of the recipe against tasks."""

from collections.abc import Mapping, Sequence

import numpy as np

from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.report.groups import Key, Results
from maskedclip_composer.report.quoted import SOURCE, Quoted, quoted_table
from maskedclip_composer.report.summary import Summary
from maskedclip_composer.report.table import Entry, Row, Table, about, check, images, mark_best, percent, words

Summaries = Mapping[Key, Summary]

# As the paper writes them.
PARTS = {"mim": "MIM", "lg_clip": "LG-CLIP", "bridge": "Bridge", "mfd": "MFD"}
_SCORES = ("roc", "prc")


def main_tables(results: Results, summaries: Summaries, *, quoted: bool) -> list[Table]:
    """Return Table 1 for each protocol: encoders by tasks, amounts as sections."""
    columns = [("", "Encoder"), ("Images", "paired"), ("Images", "unpaired"), *_task_columns(results)]
    tables = []
    for protocol in results.protocols:
        rows: list[Row] = []
        for amount in results.amounts(protocol):
            own = []
            for encoder in results.encoders:
                facts = results.suite.encoders[encoder]
                first = [words(encoder), images(facts.paired), images(facts.unpaired)]
                own += _measured(results, summaries, protocol, amount, encoder, first)
            rows += mark_best(own, range(3, len(columns)))
            for line in (
                quoted_table("table1", amount.name, results.tasks) if quoted and results.is_finetuning(protocol) else []
            ):
                rows.append(_quoted(results, amount, line, [about(line.paired), about(line.unpaired)]))
        tables.append(_table(f"Table 1, {results.protocol_title(protocol)}: encoders", protocol, columns, rows))
    return tables


def ablation_tables(results: Results, summaries: Summaries, *, quoted: bool) -> list[Table]:
    """Return Table 2 for each protocol: encoders whose recipe is known, fewest parts first; none without such."""
    known = [name for name, facts in results.suite.encoders.items() if facts.recipe]
    known.sort(key=lambda name: [results.suite.encoders[name].recipe.get(part, False) for part in reversed(PARTS)])
    columns = [("", "Encoder"), *(("Recipe", title) for title in PARTS.values()), *_task_columns(results)]
    tables = []
    for protocol in results.protocols if known else []:
        rows: list[Row] = []
        for amount in results.amounts(protocol):
            own = []
            for encoder in known:
                recipe = results.suite.encoders[encoder].recipe
                first = [words(encoder), *(check(recipe.get(part, False)) for part in PARTS)]
                own += _measured(results, summaries, protocol, amount, encoder, first)
            rows += mark_best(own, range(5, len(columns)))
            for line in (
                quoted_table("table2", amount.name, results.tasks)
                if quoted and own and results.is_finetuning(protocol)
                else []
            ):
                rows.append(_quoted(results, amount, line, [check(part in line.parts) for part in PARTS]))
        if rows:
            tables.append(_table(f"Table 2, {results.protocol_title(protocol)}: ablation", protocol, columns, rows))
    return tables


def averages(
    results: Results, summaries: Summaries, protocol: str, amount: Amount, encoder: str
) -> tuple[float, float] | None:
    """Return the means of ROC and PRC over all tasks; None where a task is missing, since other tasks are not alike."""
    keys = [Key(task=task, protocol=protocol, amount=amount, encoder=encoder) for task in results.tasks]
    if not all(key in summaries and "roc" in summaries[key].mean for key in keys):
        return None
    roc, prc = (float(np.mean([summaries[key].mean[score] for key in keys])) for score in _SCORES)
    return roc, prc


def _task_columns(results: Results) -> list[tuple[str, str]]:
    headings = [*(results.task_title(task) for task in results.tasks), "Avg"]
    return [(heading, score.upper()) for heading in headings for score in _SCORES]


def _measured(
    results: Results, summaries: Summaries, protocol: str, amount: Amount, encoder: str, first: list[Entry]
) -> list[Row]:
    """Return the row of an encoder, or no row where it has no cell."""
    entries = []
    for task in results.tasks:
        summary = summaries.get(Key(task=task, protocol=protocol, amount=amount, encoder=encoder))
        entries += [_entry(summary, score) for score in _SCORES]
    if all(entry.values[""] is None for entry in entries):
        return []
    average = averages(results, summaries, protocol, amount, encoder) or (None, None)
    return [Row(section=amount.name, entries=[*first, *entries, *(percent(value, spread=False) for value in average)])]


def _entry(summary: Summary | None, score: str) -> Entry:
    if summary is None:
        return percent(None, spread=False)
    return percent(summary.mean.get(score), summary.deviation.get(score), summary.intervals.get(score), spread=False)


def _quoted(results: Results, amount: Amount, line: Quoted, after_name: list[Entry]) -> Row:
    scores = [line.scores.get(task, (None, None)) for task in results.tasks]
    scores.append(line.average_over(results.tasks) or (None, None))
    entries = [percent(value, spread=False) for pair in scores for value in pair]
    return Row(section=amount.name, entries=[words(f"{line.name} (quoted)"), *after_name, *entries], quoted=True)


def _table(title: str, protocol: str, columns: Sequence[tuple[str, str]], rows: list[Row]) -> Table:
    notes = [
        "In per cent, means over seeds. Bold: the best of its column at the same amount of labels, underlined: the "
        "second, by the printed numbers; neither says that the difference is more than chance.",
        "Avg is the mean over all tasks; it is left out where a task is missing.",
    ]
    if any(row.quoted for row in rows):
        notes.append(f"Rows marked (quoted): {SOURCE}. Splits, seeds and shares of labels may differ from ours.")
    return Table(title=title, protocol=protocol, columns=list(columns), rows=rows, notes=notes)
