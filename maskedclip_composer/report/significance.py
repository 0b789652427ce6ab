"""Every encoder against the baseline, task by task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from maskedclip_composer.evaluation.cells import Outcome
from maskedclip_composer.evaluation.statistics.delong import delong_test
from maskedclip_composer.evaluation.statistics.holm import holm
from maskedclip_composer.evaluation.statistics.paired import Contrast, contrast
from maskedclip_composer.report.groups import Key, Results, amount_order
from maskedclip_composer.report.resampling import Draws, mean_over_seeds
from maskedclip_composer.report.summary import Summary
from maskedclip_composer.report.table import Row, Table, difference, p_value, words

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One encoder minus the baseline on one task.

    Attributes:
        key: Of the encoder.
        roc: Difference with interval and p by resampling patients.
        prc: Likewise.
        delong: p of ROC by DeLong's test.
        holm: Adjusted p of `roc` and of `prc` over the tasks of the same encoder, protocol and amount.
        holm_delong: Likewise of `delong`.
    """

    key: Key
    roc: Contrast
    prc: Contrast
    delong: float
    holm: tuple[float, float] = (1.0, 1.0)
    holm_delong: float = 1.0


def compare(
    results: Results, summaries: Mapping[Key, Summary], resampled: Mapping[Key, Mapping[int, Draws]], baseline: str
) -> list[Comparison]:
    """Compare each encoder with the baseline wherever both have a cell and leave out the same classes."""
    families: dict[tuple[str, str, str], list[Comparison]] = {}
    for key, summary in summaries.items():
        other = key.of_encoder(baseline)
        if key.encoder != baseline and other in summaries and summaries[other].skipped == summary.skipped:
            family = families.setdefault((key.protocol, key.amount.name, key.encoder), [])
            family.append(_compare(results, summaries, resampled, key, other))
    return [comparison for family in families.values() for comparison in _adjust(family)]


def comparison_tables(results: Results, comparisons: Sequence[Comparison], baseline: str) -> list[Table]:
    """Return one table per protocol that has a comparison."""
    columns = [("", "Encoder")]
    columns += [("ROC", name) for name in ("difference", "p", "p Holm", "p DeLong", "p DeLong Holm")]
    columns += [("PRC", name) for name in ("difference", "p", "p Holm")]
    notes = [
        f"Differences to {baseline} in percentage points [95 % interval], p by resampling the test patients, the same "
        "draws for both; the seeds are not resampled, so this is about these runs on other patients.",
        "Holm: adjusted over the tasks of one encoder at one amount of labels; several encoders or amounts are further "
        "tests, which it does not count.",
        "DeLong's test assumes independent images; where a patient has several, its p is too small.",
        "Two encoders are not compared where their means leave out different classes.",
    ]
    tables = []
    for protocol in results.protocols:
        own = [item for item in comparisons if item.key.protocol == protocol]
        own.sort(key=lambda item: (amount_order(item.key.amount), results.tasks.index(item.key.task)))
        if own:
            title = f"Differences to {baseline}, {results.protocol_title(protocol)}"
            rows = [_row(results, item) for item in own]
            tables.append(Table(title=title, protocol=protocol, columns=columns, rows=rows, notes=notes))
    return tables


def _row(results: Results, item: Comparison) -> Row:
    entries = [words(item.key.encoder)]
    entries += [difference(item.roc.difference, (item.roc.low, item.roc.high)), p_value(item.roc.p)]
    entries += [p_value(item.holm[0]), p_value(item.delong), p_value(item.holm_delong)]
    entries += [difference(item.prc.difference, (item.prc.low, item.prc.high)), p_value(item.prc.p)]
    entries += [p_value(item.holm[1])]
    return Row(section=item.key.amount.name, task=results.task_title(item.key.task), entries=entries)


def _compare(
    results: Results,
    summaries: Mapping[Key, Summary],
    resampled: Mapping[Key, Mapping[int, Draws]],
    key: Key,
    other: Key,
) -> Comparison:
    ours, theirs = (mean_over_seeds(resampled[name], summaries[name].seeds) for name in (key, other))
    mine, base = summaries[key].mean, summaries[other].mean
    test = delong_test(
        _stack(results.groups[key]),
        _stack(results.groups[other]),
        results.splits[key.task].one_hot,
        summaries[key].skipped,
    )
    return Comparison(
        key=key,
        roc=contrast(mine["roc"] - base["roc"], ours.roc - theirs.roc),
        prc=contrast(mine["prc"] - base["prc"], ours.prc - theirs.prc),
        delong=test.p,
    )


def _adjust(family: list[Comparison]) -> list[Comparison]:
    roc, prc = holm([item.roc.p for item in family]), holm([item.prc.p for item in family])
    delong = holm([item.delong for item in family])
    return [
        replace(item, holm=(roc[index], prc[index]), holm_delong=delong[index]) for index, item in enumerate(family)
    ]


def _stack(outcomes: Mapping[int, Outcome]) -> np.ndarray:
    return np.stack([outcomes[seed].probabilities for seed in sorted(outcomes)])
