"""From a suite in MLflow to the pre-training runs that it evaluates.

A tag and links in the description, not a nested run: MLflow 2.22 gives a run one parent, in whose table it is folded
away, and shows it nowhere else. A suite compares encoders of several runs, has an experiment of its own, and has its
cells nested below it; it is a line that is looked for, not a detail of one of those runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from maskedclip_composer.callbacks.markdown import plain
from maskedclip_composer.callbacks.mlflow_store import find_run, remembered_run
from maskedclip_composer.evaluation.cells import EncoderFacts, Suite
from maskedclip_composer.evaluation.source import training_run

EVALUATES = "evaluates"
"""Tag with the ids of the MLflow runs of the encoders, joined by commas."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """An encoder's pre-training run.

    Attributes:
        folder: Of the run.
        run_id: In MLflow; None where the run was not tracked.
        experiment_id: Likewise; None also where the run is in another store than the suite.
    """

    folder: Path
    run_id: str | None
    experiment_id: str | None


def link_runs(client: MlflowClient, encoders: Mapping[str, EncoderFacts]) -> dict[str, Link]:
    """Return the pre-training run of each encoder that has one."""
    links = {}
    for name, facts in encoders.items():
        folder = training_run(facts.source)
        if folder is None:
            continue
        run_id = remembered_run(folder / "mlflow_run.json")
        run = None
        if run_id is not None:
            try:
                run = find_run(client, run_id)
            except MlflowException:  # a store that does not take ids of another one
                run = None
        links[name] = Link(folder=folder, run_id=run_id, experiment_id=run.info.experiment_id if run else None)
    return links


def evaluated_ids(links: Mapping[str, Link]) -> str:
    """Return the tag."""
    return ",".join(dict.fromkeys(link.run_id for link in links.values() if link.run_id))


def describe_suite(suite: Suite, links: Mapping[str, Link]) -> str:
    """Return the description in Markdown: what is compared, with links to the runs that made it."""
    lines = [f"{len(suite.encoders)} encoders on {', '.join(suite.tasks)} by {', '.join(suite.protocols)}:", ""]
    for name in suite.encoders:
        link = links.get(name)
        where = ""
        if link is not None:
            title = plain(link.folder.absolute().name)
            page = f"#/experiments/{link.experiment_id}/runs/{link.run_id}"
            run = f"run [{title}]({page})" if link.experiment_id else f"run {title}"
            where = f", of the pre-training {run}"
        baseline = ", the baseline" if name == suite.baseline else ""
        lines.append(f"- **{plain(name)}**{where}{baseline}")
    report = "Artifacts: report/report.html has the tables, figures and tests; the runs nested below are the cells."
    return "\n".join([*lines, "", report]) + "\n"
