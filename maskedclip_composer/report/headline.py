"""What was compared and what came of it, in sentences that claim no more than the tests do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from maskedclip_composer.report.groups import Results
from maskedclip_composer.report.significance import LEVEL, Comparison


def scope(results: Results) -> str:
    """Return which encoders were compared on what, how, and how often."""
    protocols = []
    for protocol in results.protocols:
        amounts = listing([amount.name for amount in results.amounts(protocol)])
        seeds = sorted({len(cells) for key, cells in results.groups.items() if key.protocol == protocol})
        span = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
        protocols.append(f"{results.protocol_title(protocol)} ({amounts}; {span} {'seed' if span == '1' else 'seeds'})")
    tasks = [
        f"{results.task_title(task)} ({results.suite.tasks[task].images.get('test', 0):,} test photographs)"
        for task in results.tasks
    ]
    return (
        f"{_number(len(results.encoders), 'encoder')}, {listing(results.encoders)}, on "
        f"{_number(len(tasks), 'task')}, {listing(tasks)}, by {listing(protocols)}."
    )


@dataclass(frozen=True)
class Finding:
    """A sentence, and what it says of single encoders."""

    sentence: str
    encoders: list[str] = field(default_factory=list)


def findings(results: Results, comparisons: Sequence[Comparison], baseline: str) -> list[Finding]:
    """Return one finding per protocol about ROC, and what such a finding does not say."""
    if not comparisons:
        return [Finding(f"No encoder could be compared with {baseline}, so nothing is said of differences.")]
    found = [
        _of_protocol(results, [item for item in comparisons if item.key.protocol == protocol], protocol, baseline)
        for protocol in results.protocols
        if any(item.key.protocol == protocol for item in comparisons)
    ]
    caution = (
        f"Counted are differences of ROC with p < {LEVEL:g} after Holm's correction over the tasks of one encoder at "
        "one amount; several encoders and amounts are not corrected for. A difference that is not counted may still "
        "exist: the test splits may be too small to show it."
    )
    return [*found, Finding(caution)]


def listing(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def _of_protocol(results: Results, comparisons: Sequence[Comparison], protocol: str, baseline: str) -> Finding:
    told, silent = [], []
    for encoder in results.encoders:
        own = [item for item in comparisons if item.key.encoder == encoder]
        parts = []
        for verdict in ("better", "worse"):
            counts = []
            for amount in results.amounts(protocol):
                here = [item for item in own if item.key.amount == amount]
                if n := sum(_verdict(item) == verdict for item in here):
                    counts.append(f"{n} of {_number(len(here), 'task')} at {amount.name}")
            parts += [f"{verdict} on {listing(counts)}"] if counts else []
        if parts:
            told.append(f"{encoder}: {'; '.join(parts)}.")
        elif own:
            silent.append(encoder)
    title = results.protocol_title(protocol)
    if not told:
        return Finding(f"{title}: no encoder differs from {baseline} after correction.")
    rest = f" No difference was found for {listing(silent)}." if silent else ""
    return Finding(f"{title}, compared with {baseline}, after correction.{rest}", told)


def _verdict(item: Comparison) -> Literal["better", "worse", ""]:
    if item.holm[0] >= LEVEL:
        return ""
    return "better" if item.roc.difference > 0 else "worse"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
