"""What a reader of the numbers has to know first."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from maskedclip_composer.report.groups import Key, Results
from maskedclip_composer.report.headline import listing
from maskedclip_composer.report.summary import Summary

# Half-width of an interval of ROC from which a task's test split is called small: most gaps between good encoders in
# print are narrower.
_WIDE = 0.03


def caveats(results: Results, summaries: Mapping[Key, Summary]) -> list[str]:
    """Return sentences, the gravest first; none where all is well."""
    return [
        *_incomplete(results),
        *results.suite.notes,
        *_contaminated(results),
        *_skipped(results, summaries),
        *_small(results, summaries),
        *_single_seeds(results, summaries),
    ]


def missing_groups(results: Results) -> list[str]:
    """Return one line per group with missing cells: what it is and which seeds."""
    seeds: dict[Key, list[int]] = defaultdict(list)
    for cell in results.missing:
        seeds[Key.of(cell)].append(cell.seed)
    return [
        f"{key.encoder}, {results.task_title(key.task)}, {results.protocol_title(key.protocol)}, {key.amount.name}: "
        f"seed {', '.join(map(str, sorted(numbers)))}"
        for key, numbers in seeds.items()
    ]


def _incomplete(results: Results) -> list[str]:
    done = sum(len(cells) for cells in results.groups.values())
    if missing := len(results.missing):
        return [
            f"Incomplete: {missing} of {done + missing} cells {'is' if missing == 1 else 'are'} missing. "
            "Means are over the seeds that are finished, and Avg is left out where a task is missing."
        ]
    if not results.suite.complete:
        return [f"Incomplete: the evaluation is still running, or was stopped; {done} cells are finished."]
    return []


def _contaminated(results: Results) -> list[str]:
    lines, unknown = [], []
    for encoder, facts in results.suite.encoders.items():
        counts = {task: facts.contaminated.get(task) for task in results.tasks}
        seen = [
            f"{count:,} of {results.suite.tasks[task].images.get('test', 0):,} of {results.task_title(task)}"
            for task, count in counts.items()
            if count
        ]
        if seen:
            lines.append(f"Contaminated: the pre-training of {encoder} has seen test photographs: {listing(seen)}.")
        if None in counts.values():
            tasks = [results.task_title(task) for task, count in counts.items() if count is None]
            unknown.append(f"{encoder} ({'all tasks' if len(tasks) == len(counts) else listing(tasks)})")
    if unknown:
        lines.append(f"Whether pre-training has seen test photographs is unknown for {listing(unknown)}.")
    return lines


def _skipped(results: Results, summaries: Mapping[Key, Summary]) -> list[str]:
    lines = []
    for task in results.tasks:
        own = [set(summary.skipped) for key, summary in summaries.items() if key.task == task]
        if not own or not set.union(*own):
            continue
        facts, one_hot = results.suite.tasks[task], results.splits[task].one_hot
        reasons: dict[str, list[str]] = defaultdict(list)
        for index in sorted(set.union(*own)):
            positives = int(one_hot[:, index].sum())
            if positives == 0:
                reason = "no test photograph has them"
            elif positives == len(one_hot):
                reason = "every test photograph has them"
            else:
                reason = "no training photograph has them"
            reasons[reason].append(facts.names[index])
        told = "; ".join(f"{listing(names)} ({reason})" for reason, names in reasons.items())
        where = "" if set.intersection(*own) == set.union(*own) else " in some cells"
        lines.append(f"Left out of the means of {results.task_title(task)}{where}: {told}.")
    return lines


def _small(results: Results, summaries: Mapping[Key, Summary]) -> list[str]:
    lines = []
    for task in results.tasks:
        widths = [summary.half_width for key, summary in summaries.items() if key.task == task]
        if widths and (typical := float(np.median(widths))) >= _WIDE:
            lines.append(
                f"Small test split: {results.task_title(task)} has {len(results.splits[task].one_hot):,} photographs; "
                f"an interval of ROC typically reaches {100 * typical:.1f} points to either side."
            )
    return lines


def _single_seeds(results: Results, summaries: Mapping[Key, Summary]) -> list[str]:
    protocols = [
        results.protocol_title(protocol)
        for protocol in results.protocols
        if all(len(summary.seeds) == 1 for key, summary in summaries.items() if key.protocol == protocol)
    ]
    return [f"One seed only, so no spread over seeds: {listing(protocols)}."] if protocols else []
