"""The five answers in short, as the description that MLflow shows on a run's page."""

from collections.abc import Sequence

from mlflow import MlflowClient

from maskedclip_composer.callbacks.markdown import plain
from maskedclip_composer.dashboard.answer import MARKS, Answer
from maskedclip_composer.dashboard.run import Run
from maskedclip_composer.dashboard.state import WORDS, now
from maskedclip_composer.dashboard.write import DASHBOARD

NOTE = "mlflow.note.content"
_OWN = "_Written by maskedclip_composer and replaced while the run goes on; a description of your own is kept._"
_ARTIFACTS = {
    DASHBOARD: ": all of this with curves and pictures",
    "model_card.md": "",
    "pictures": ": what the objectives have learnt",
    "config.yaml": "",
    "provenance.json": ": code and packages",
    "faults.jsonl": ": steps that were not finite",
}
_HERE = "#here/"
"""Stands for the address of the run's artifacts until that is known."""


def note(run: Run, answers: Sequence[Answer]) -> str:
    """Return the Markdown.

    Args:
        run: The run.
        answers: To the five questions.
    """
    lines = [
        f"- {plain(one.question)} {MARKS[one.level]} **{plain(one.verdict)}**, {plain(one.number)}" for one in answers
    ]
    step = f"{run.step:,}" + (f" of {run.total_steps:,}" if run.total_steps else "")
    there = [
        f"- [{name}]({_HERE}{name}){what}"
        for name, what in _ARTIFACTS.items()
        if name == DASHBOARD or (run.folder / name).exists()
    ]
    parts = [f"**{WORDS[run.state]}**, step {step}, {now()}", "\n".join(lines)]
    parts += [f"For the last one:\n\n    {one.command}" for one in answers if one.command]
    return "\n\n".join([*parts, "Artifacts:\n\n" + "\n".join(there), _OWN]) + "\n"


def set_note(client: MlflowClient, run_id: str, text: str) -> None:
    """Describe a run, unless somebody has described it in words of their own."""
    run = client.get_run(run_id)
    known = run.data.tags.get(NOTE, "")
    if not known or _OWN in known:
        here = f"#/experiments/{run.info.experiment_id}/runs/{run_id}/artifacts/"
        client.set_tag(run_id, NOTE, text.replace(_HERE, here))
