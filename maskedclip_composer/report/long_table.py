"""Every group with all its metrics, intervals and costs."""

from collections.abc import Mapping

from maskedclip_composer.evaluation.metrics import METRIC_NAMES, TITLES
from maskedclip_composer.report.groups import Key, Results
from maskedclip_composer.report.summary import Summary
from maskedclip_composer.report.table import Row, Table, count, extent, percent, words


def long_tables(results: Results, summaries: Mapping[Key, Summary]) -> list[Table]:
    """Return one table per protocol: a row per task, amount and encoder."""
    names = [name for name in METRIC_NAMES if any(name in summary.mean for summary in summaries.values())]
    columns = [("", "Encoder"), ("", "Seeds"), ("Images", "train"), ("Images", "test")]
    columns += [("Images", "contaminated"), ("", "Steps"), *(("", TITLES[name]) for name in names)]
    tables = []
    for protocol in results.protocols:
        rows = []
        for key, summary in summaries.items():
            if key.protocol != protocol:
                continue
            entries = [words(key.encoder), count(len(summary.seeds))]
            entries += [extent(summary.train_images), count(len(results.splits[key.task].one_hot))]
            entries += [count(summary.contaminated, "unknown"), extent(summary.steps)]
            entries += [
                percent(summary.mean.get(name), summary.deviation.get(name), summary.intervals.get(name), spread=True)
                for name in names
            ]
            rows.append(Row(section=key.amount.name, task=results.task_title(key.task), entries=entries))
        notes = [
            "In per cent: mean over seeds ± sample standard deviation over seeds [95 % interval of the mean by "
            "resampling the test patients].",
            "Contaminated: test photographs that pre-training has seen. Steps: of the optimiser, or of the solver.",
        ]
        title = f"All metrics, {results.protocol_title(protocol)}"
        tables.append(Table(title=title, protocol=protocol, columns=columns, rows=rows, notes=notes))
    return tables
