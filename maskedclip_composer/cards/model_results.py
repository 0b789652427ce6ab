"""What a model card says of downstream results, and whether pre-training has seen their test photographs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskedclip_composer.cards.definitions import METRICS, selection
from maskedclip_composer.cards.markdown import Markdown, plain, table
from maskedclip_composer.cards.model_facts import not_recorded
from maskedclip_composer.cards.paths import without_folders
from maskedclip_composer.cards.training_data import StreamData
from maskedclip_composer.data.records import CONTAMINATED

if TYPE_CHECKING:
    from maskedclip_composer.cards.evaluations import Evaluation

_NEAR = "the same file, or a perceptual hash that differs in at most 32 of 256 bits"


def contamination(streams: Sequence[StreamData], evaluations: "Sequence[Evaluation]") -> Markdown:
    """Return a line for each evaluated task, and what preparation kept out or let in."""
    rows = [
        (
            evaluation.name,
            task.title,
            f"{task.images.get('test', 0):,}",
            "unknown" if task.contaminated is None else f"{task.contaminated:,}",
            _verdict(task.contaminated),
        )
        for evaluation in evaluations
        for task in evaluation.tasks
    ]
    lines = [f"A test photograph counts as seen when a photograph of pre-training is {_NEAR}.", ""]
    head = ("suite", "task", "test photographs", "seen in pre-training", "so the scores are")
    lines += table(head, rows) if rows else ["No suite has evaluated this encoder yet, so no task was compared."]
    for stream in streams:
        refused = sum(count for (status, _, _), count in stream.left_out.missing.items() if status == CONTAMINATED)
        kept = sum(stream.kept.values())
        if refused:
            lines += ["", f"Preparation kept {refused:,} photographs of downstream test sets out of {stream.name}."]
        if kept:
            told = ", ".join(f"{count:,} of {name} that are in {test}" for (name, test), count in stream.kept.items())
            said = f"**Preparation let {kept:,} photographs of downstream test sets into {stream.name}**"
            lines += ["", f"{said}: {plain(told)}."]
    lines += ["", "Patients were not compared: another photograph of a patient of pre-training is not found this way."]
    return _lines(lines)


def _verdict(contaminated: int | None) -> str:
    if contaminated is None:
        return "of unknown fairness: manifests or hashes are missing, or training began with other weights"
    return "too good, by an unknown amount" if contaminated else "not touched by it"


def results(evaluations: "Sequence[Evaluation]", told: Sequence[str]) -> Markdown:
    """Return what each suite has measured, with what the numbers mean."""
    if not evaluations:
        lines = ["No suite has evaluated this encoder yet: `composer evaluate.py` does, and writes this card again."]
    else:
        lines = [
            "In per cent: the mean over seeds ± the sample standard deviation over seeds [95 % interval of the mean by "
            "resampling the test patients]. The same numbers stand in each suite's own report.",
            "",
        ]
        for evaluation in evaluations:
            lines += _suite(evaluation)
        summaries = [summary for evaluation in evaluations for summary in evaluation.summaries.values()]
        used = {name for summary in summaries for name in summary.mean}
        lines += ["### What the metrics are", "", *table(("metric", "definition"), _definitions(used))]
    lines += ["", *(f"- Not shown: {plain(without_folders(reason))}." for reason in told)] if told else []
    return _lines(lines)


def _definitions(used: set[str]) -> list[tuple[str, str]]:
    from maskedclip_composer.evaluation.metrics import TITLES  # torch takes seconds

    return [(TITLES[name], words) for name, words in METRICS.items() if name in used]


def _suite(evaluation: "Evaluation") -> list[str]:
    tasks = [
        (
            task.title,
            task.kind,
            f"{len(task.classes)}: {', '.join(task.classes[:8])}{', ...' if len(task.classes) > 8 else ''}",
            " / ".join(f"{task.images.get(split, 0):,}" for split in ("train", "val", "test")),
            f"{task.patients:,}" if task.patients is not None else "unknown, so photographs are drawn one by one",
            task.source or not_recorded("the task names no source"),
            task.fingerprint[:16],
        )
        for task in evaluation.tasks
    ]
    protocols = [
        (
            settings.get("title") or name,
            settings.get("source", ""),
            selection(settings),
            " ".join(settings.get("deviations") or ["none"]),
        )
        for name, settings in evaluation.protocols.items()
    ]
    commit = evaluation.commit or not_recorded("the code was not in a git checkout")
    lines = [
        f"### Suite {plain(evaluation.name)}",
        "",
        f"This encoder is called {plain(evaluation.encoder)} there. Up to {evaluation.seeds} seeds, numbered from 0; "
        f"evaluated by the code of commit {plain(commit)}.",
    ]
    if evaluation.comparator is not None:
        name, what = evaluation.comparator
        lines[-1] += f" Beside it stands the suite's baseline, {plain(name)}: {plain(what)}."
    lines += ["", *(f"- {plain(without_folders(said))}" for said in (*evaluation.findings, *evaluation.caveats)), ""]
    head = ("task", "labels", "classes", "photographs: train / val / test", "test patients", "source", "split, sha256")
    lines += [*table(head, tasks), ""]
    lines += [*table(("protocol", "follows", "chosen on validation", "deviations"), protocols), ""]
    for text in evaluation.tables:
        lines += [text, ""]
    return lines


def _lines(lines: Sequence[str]) -> Markdown:
    return Markdown("\n".join(lines))
