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
    DASHBOARD: "dashboard.html: all of this with curves and pictures",
    "model_card.md": "model_card.md",
    "pictures": "pictures/: what the objectives have learnt",
    "config.yaml": "config.yaml",
    "provenance.json": "provenance.json: code and packages",
    "faults.jsonl": "faults.jsonl: steps that were not finite",
}


def note(run: Run, answers: Sequence[Answer], more: str = "") -> str:
    """Return the Markdown.

    Args:
        run: The run.
        answers: To the five questions.
        more: What else is said, after them.
    """
    rows = [
        f"| {plain(one.question)} | {MARKS[one.level]} **{plain(one.verdict)}** | {plain(one.number)} |"
        for one in answers
    ]
    table = "\n".join(["| | | |", "|---|---|---|", *rows])
    step = f"{run.step:,}" + (f" of {run.total_steps:,}" if run.total_steps else "")
    there = [
        f"- {what}" for name, what in _ARTIFACTS.items() if name == "dashboard.html" or (run.folder / name).exists()
    ]
    parts = [f"**{WORDS[run.state]}**, step {step}, {now()}", table]
    parts += [f"Not evaluated yet:\n\n    {one.command}" for one in answers if one.command]
    parts += [more] if more else []
    return "\n\n".join([*parts, "Artifacts:\n\n" + "\n".join(there), _OWN]) + "\n"


def set_note(client: MlflowClient, run_id: str, text: str) -> None:
    """Describe a run, unless somebody has described it in words of their own."""
    known = client.get_run(run_id).data.tags.get(NOTE, "")
    if not known or _OWN in known:
        client.set_tag(run_id, NOTE, text)
