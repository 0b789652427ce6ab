"""What suites have measured of a run's encoder: by the report's own code, so that both say the same."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from maskedclip_composer.cards.markdown import Markdown
from maskedclip_composer.cards.paths import without_folders
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.cells import EncoderFacts, load_suite
from maskedclip_composer.evaluation.encoders.fingerprint import fingerprint
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.evaluation.training_run import training_run
from maskedclip_composer.report.caveats import caveats
from maskedclip_composer.report.formats import markdown
from maskedclip_composer.report.groups import Key, Results, load_results
from maskedclip_composer.report.headline import findings
from maskedclip_composer.report.long_table import long_tables
from maskedclip_composer.report.resampling import resample
from maskedclip_composer.report.significance import compare
from maskedclip_composer.report.summary import Summary, summarise

DRAWS = 2000
"""Of test patients, for the intervals: the report's number unless it is told another."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """A task on which the encoder was evaluated.

    Attributes:
        title: Its name in print.
        name: In the suite.
        kind: Of its labels.
        classes: Their names.
        images: Photographs of train, val and test.
        patients: Of the test split; None where a photograph is of an unknown patient.
        contaminated: Test photographs that pre-training has seen; None where unknown.
        source: Of data and split, as the task's yaml says.
        fingerprint: sha256 over names, hashes and labels of all splits.
    """

    title: str
    name: str
    kind: str
    classes: list[str]
    images: dict[str, int]
    patients: int | None
    contaminated: int | None
    source: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A suite that has evaluated the encoder.

    Attributes:
        name: Of the suite.
        encoder: What the suite calls the encoder.
        comparator: The suite's baseline where it is another encoder, with what it is.
        tasks: With a finished cell of the encoder.
        protocols: As recorded, of those.
        summaries: Means, deviations and intervals of the encoder alone.
        tables: All metrics of the encoder and the baseline, in Markdown, one table a protocol.
        findings: Whether it differs from the baseline, as the report says it.
        caveats: What a reader has to know first.
        seeds: Most seeds of a group.
        commit: Of the code that evaluated, if known.
    """

    name: str
    encoder: str
    comparator: tuple[str, str] | None
    tasks: list[TaskResult]
    protocols: dict[str, dict]
    summaries: dict[Key, Summary]
    tables: list[Markdown]
    findings: list[str]
    caveats: list[str]
    seeds: int
    commit: str | None


def read_evaluations(run: Path, suites: Iterable[Path]) -> tuple[list[Evaluation], list[str]]:
    """Read the suites of a run.

    An encoder of a suite is the run's when the hash of its weights is that of the run's `encoder.safetensors`.

    Returns:
        Evaluations, and why others are not shown.

    Raises:
        UserError: The run's encoder cannot be read.
    """
    found: list[Evaluation] = []
    told: list[str] = []
    own: str | None = None
    for folder in suites:
        if not (folder / "suite.json").is_file():
            told.append(f"suite {folder.absolute().name} is not where it was")
            continue
        try:
            suite = load_suite(folder)
            own = own or fingerprint(load(str(run / "encoder.safetensors")))
            names = [name for name, facts in suite.encoders.items() if facts.fingerprint == own]
            if names:
                found.append(_evaluation(load_results(folder), names[0]))
            elif any(is_of(run, facts) for facts in suite.encoders.values()):
                told.append(
                    f"suite {folder.absolute().name} evaluated this run with other weights than encoder.safetensors "
                    "holds now, or at another image size"
                )
            else:
                told.append(f"suite {folder.absolute().name} did not evaluate this run")
        except UserError as error:
            told.append(f"suite {folder.absolute().name} cannot be used: {str(error).splitlines()[0]}")
    return found, told


def is_of(run: Path, facts: EncoderFacts) -> bool:
    """Tell whether an encoder's source lies in the folder of a run."""
    folder = training_run(facts.source)
    return folder is not None and folder.resolve() == run.resolve()


def runs_of(suite: Path) -> list[Path]:
    """Return the folders of the pre-training runs that a suite has evaluated and that are there."""
    folders = [training_run(facts.source) for facts in load_suite(suite).encoders.values()]
    return list(dict.fromkeys(folder for folder in folders if folder is not None))


def _evaluation(results: Results, encoder: str) -> Evaluation:
    suite = results.suite
    shown = [suite.baseline, encoder] if suite.baseline in suite.encoders and suite.baseline != encoder else [encoder]
    own = replace(
        results,
        suite=replace(suite, encoders={name: suite.encoders[name] for name in shown}),
        groups={key: seeds for key, seeds in results.groups.items() if key.encoder in shown},
        missing=[cell for cell in results.missing if cell.encoder in shown],
    )
    if not any(key.encoder == encoder for key in own.groups):
        raise UserError(f"{results.folder.absolute().name} has no finished cell of this run")
    resampled = resample(own, DRAWS)
    summaries = summarise(own, resampled)
    mine = {key: summary for key, summary in summaries.items() if key.encoder == encoder}
    return Evaluation(
        name=results.folder.absolute().name,
        encoder=encoder,
        comparator=(suite.baseline, without_folders(suite.encoders[suite.baseline].description))
        if len(shown) > 1
        else None,
        tasks=[_task(own, encoder, task) for task in own.tasks if any(key.task == task for key in mine)],
        protocols={name: suite.protocols[name] for name in own.protocols},
        summaries=mine,
        # Below a heading of the card: one level further down than in the report.
        tables=[Markdown(markdown(table).replace("## ", "#### ", 1)) for table in long_tables(own, summaries)],
        findings=[found.sentence for found in findings(own, compare(own, summaries, resampled, shown[0]), shown[0])]
        if len(shown) > 1
        else [],
        caveats=caveats(own, summaries),
        seeds=max(len(summary.seeds) for summary in mine.values()),
        commit=suite.provenance.get("git_commit"),
    )


def _task(results: Results, encoder: str, task: str) -> TaskResult:
    facts, patients = results.suite.tasks[task], results.splits[task].patients
    return TaskResult(
        title=results.task_title(task),
        name=task,
        kind=facts.kind,
        classes=facts.names,
        images=facts.images,
        patients=len(set(patients)) if all(patients) else None,
        contaminated=results.suite.encoders[encoder].contaminated.get(task),
        source=without_folders(facts.source),
        fingerprint=facts.fingerprint,
    )
