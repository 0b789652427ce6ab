"""`dashboard.html`: one file that needs no other, for a browser or MLflow's viewer of artifacts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.dashboard.answer import MARKS, Answer, number
from maskedclip_composer.dashboard.chart import COLOURS, draw
from maskedclip_composer.dashboard.charts import charts
from maskedclip_composer.dashboard.collapse import collapse
from maskedclip_composer.dashboard.cost import cost
from maskedclip_composer.dashboard.downstream import choose, downstream, roc_text
from maskedclip_composer.dashboard.learning import learning
from maskedclip_composer.dashboard.run import Run
from maskedclip_composer.dashboard.speed import speed
from maskedclip_composer.dashboard.state import WORDS, now
from maskedclip_composer.dashboard.suites import Comparison, Evaluated
from maskedclip_composer.report.embed import data_uri, shrink_to_fit

_PICTURE_BYTES = 400_000
_FAULTS = 20
"""Faults that the page lists, the newest; the file has all."""
# In the order in which a reader asks for them.
_FILES = {
    "encoder.safetensors": "the image encoder, which evaluation and users take",
    "model_card.md": "what the model is, and what it is not for",
    "checkpoints": "to go on from, newest last",
    "metrics.jsonl": "every metric, a line per step",
    "config.yaml": "the settings, as resolved",
    "provenance.json": "code, packages, device",
    "data_manifest.json": "which data, with hashes",
    "data": "what the data say of themselves",
    "pictures": "all pictures",
    "faults.jsonl": "steps that were not finite",
    "origin.json": "which weights the run started from",
}


@dataclass(frozen=True)
class Figure:
    """A picture in the page; `uri` is None where it was left out."""

    name: str
    uri: str | None


def answers(run: Run, comparisons: Sequence[Comparison]) -> list[Answer]:
    """Answer the five questions."""
    return [learning(run), collapse(run), speed(run), cost(run), downstream(run, comparisons)]


def page(run: Run, comparisons: Sequence[Comparison]) -> str:
    """Return the page. Every text of the run is escaped, and credentials in addresses are hidden."""
    # Texts of the charts are escaped where they are drawn.
    drawn = [(chart, Markup(draw(chart)), _legend(chart.lines)) for chart in charts(run)]
    return (
        _environment()
        .get_template("dashboard.html")
        .render(
            run=run,
            subtitle=_subtitle(run),
            state=WORDS[run.state],
            written=now(),
            answers=answers(run, comparisons),
            charts=drawn,
            choices=[choose(comparison) for comparison in comparisons],
            pictures=_pictures(run),
            faults=[_fault(fault) for fault in run.faults[-_FAULTS:][::-1]],
            num_faults=len(run.faults),
            files=_files(run),
            facts=_facts(run),
        )
    )


@cache  # templates are compiled once for all pages of a run
def _environment() -> Environment:
    here = Path(__file__).parent
    environment = Environment(
        # The report's style sheet is the page's too.
        loader=FileSystemLoader([here, here.parent / "report"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"roc": roc_text, "mark": MARKS.get, "score": _score}
    return environment


def objectives(run: Run) -> str:
    """Return what the run learns by."""
    given = run.setting("objectives") or {}
    return " + ".join(name for name, settings in given.items() if settings is not None) or "objectives unknown"


def progress(run: Run) -> str:
    """Return how far the run is."""
    duration = run.setting("trainer", "max_duration")
    if run.total_steps:
        return f"step {run.step:,} of {run.total_steps:,}"
    return f"step {run.step:,}" + (f", to go to {duration}" if duration else "")


def _subtitle(run: Run) -> str:
    parts = [
        progress(run),
        objectives(run),
        str(run.provenance.get("device", "")),
        str(run.setting("parallelism") or ""),
    ]
    return " · ".join(part for part in parts if part)


def _score(encoder: Evaluated, task: str) -> str:
    score = encoder.scores[task]
    return roc_text(score.mean, score.low, score.high)


def _legend(lines: Sequence[Any]) -> list[tuple[str, int]]:
    return [(line.name, index % COLOURS) for index, line in enumerate(lines)] if len(lines) > 1 else []


def _pictures(run: Run) -> list[Figure]:
    encoded = shrink_to_fit(run.pictures, _PICTURE_BYTES)
    return [
        Figure(path.name, None if content is None else data_uri(content, "image/webp"))
        for path, content in encoded.items()
    ]


def _fault(fault: dict[str, Any]) -> dict[str, str]:
    losses: dict[str, float] = {}
    for report in fault.get("ranks") or []:
        losses |= {name: value for name, value in (report.get("losses") or {}).items() if not abs(value) < float("inf")}
    norm = fault.get("norm")
    what = [f"loss {name}" for name in losses if name != "total"]
    what += [] if norm is None or abs(norm) < float("inf") else ["gradient norm"]
    return {
        "step": str(fault.get("step", "")),
        "time": str(fault.get("time", "")),
        "action": str(fault.get("action", "")),
        "what": ", ".join(what) or "loss",
        "norm": "" if norm is None else number(float(norm)),
    }


def _files(run: Run) -> list[tuple[str, str]]:
    found = []
    for name, what in _FILES.items():
        path = run.folder / name
        if not path.exists():
            continue
        if name == "checkpoints":
            kept = [item.name for item in sorted(path.iterdir(), key=lambda item: item.stat().st_mtime)]
            kept = [item for item in kept if item.startswith(("ep", "latest"))]
            what = f"{what}: {', '.join(kept) or 'none yet'}"
        found.append((name, what))
    return found


def _facts(run: Run) -> list[tuple[str, str]]:
    facts = [("Folder", str(run.folder.absolute()))]
    if run.mlflow:
        facts.append(("MLflow", f"{run.mlflow.get('experiment', '')}, run {run.mlflow.get('run_id', '')}"))
        facts.append(("MLflow's store", str(run.mlflow.get("tracking_uri", ""))))
    for stream in ("paired", "unpaired"):
        part = run.manifest.get(stream)
        if isinstance(part, dict):
            facts.append((f"Data, {stream}", f"{part.get('samples', '?')} photographs, {part.get('path', '')}"))
    commit = run.provenance.get("git_commit")
    if commit:
        facts.append(("Commit", f"{commit}{', with changes' if run.provenance.get('git_dirty') else ''}"))
    return [(name, redact_text(value)) for name, value in facts]
