"""`report.html`: one file that needs no other, for a browser, a phone or MLflow's viewer of artifacts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from maskedclip_composer.callbacks.redaction import redact, redact_text
from maskedclip_composer.report.caveats import missing_groups
from maskedclip_composer.report.efficiency import panel_figure, render
from maskedclip_composer.report.embed import data_uri, shrink_to_fit
from maskedclip_composer.report.groups import Key, Results
from maskedclip_composer.report.headline import Finding
from maskedclip_composer.report.summary import Summary
from maskedclip_composer.report.table import Table

# Of the pictures of single encoders, before base64 makes them a third larger; tables and figures take about 1 MB.
_PICTURE_BYTES = 6_000_000
_PICTURES = {
    "confusion": "Confusion matrix",
    "roc": "ROC curves",
    "pr": "Precision-recall curves",
    "reliability": "Reliability",
    "gallery": "Gallery",
}


@dataclass(frozen=True)
class Picture:
    """An image in the page; `uri` is None where it was left out."""

    alt: str
    uri: str | None


@dataclass(frozen=True, kw_only=True)
class Task:
    """Details of a task; pictures by protocol and encoder."""

    title: str
    facts: dict[str, str]
    classes: list[tuple[str, str, int]]
    pictures: list[tuple[str, list[Picture]]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the page says beyond the suite itself; tables as `report.write` makes them."""

    title: str
    scope: str
    findings: list[Finding]
    warnings: list[str]
    main: list[Table]
    ablation: list[Table]
    comparisons: list[Table]
    long: list[Table]
    draws: int
    baseline: str


def page(results: Results, summaries: Mapping[Key, Summary], contents: Contents) -> str:
    """Return the page. Every text of the suite is escaped, and credentials in addresses are hidden."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "heads": _heads,
        "once": _once,
        "flatten": _flatten,
        "protocol_title": results.protocol_title,
    }
    encoders = {
        name: {
            "source": redact_text(facts.source),
            "description": redact_text(facts.description),
            "fingerprint": facts.fingerprint,
        }
        for name, facts in results.suite.encoders.items()
    }
    return environment.get_template("page.html").render(
        contents=contents,
        missing=missing_groups(results),
        curves=[
            (results.protocol_title(protocol), [_panel(results, summaries, protocol, task) for task in results.tasks])
            for protocol in results.protocols
        ],
        tasks=_tasks(results),
        encoders=encoders,
        protocols={results.protocol_title(name): redact(value) for name, value in results.suite.protocols.items()},
        provenance=redact(results.suite.provenance),
    )


def _panel(results: Results, summaries: Mapping[Key, Summary], protocol: str, task: str) -> Picture:
    largest = results.amounts(protocol)[-1]
    told = [
        f"{encoder} {100 * summaries[key].mean['roc']:.1f}"
        for encoder in results.encoders
        if (key := Key(task=task, protocol=protocol, amount=largest, encoder=encoder)) in summaries
    ]
    alt = f"{results.protocol_title(protocol)}: ROC by amount of training data on {results.task_title(task)}"
    svg = render(panel_figure(results, summaries, protocol, task), "svg")
    return Picture(f"{alt}. At {largest.name}: {', '.join(told) or 'nothing'}.", data_uri(svg, "image/svg+xml"))


def _tasks(results: Results) -> list[Task]:
    found = {task: sorted((results.folder / "pictures" / task).glob("*/*/*.png")) for task in results.tasks}
    encoded = shrink_to_fit([path for paths in found.values() for path in paths], _PICTURE_BYTES)
    tasks = []
    for task, facts in results.suite.tasks.items():
        images = ", ".join(f"{count:,} {split}" for split, count in facts.images.items())
        said = {"Labels": facts.kind, "Photographs": images, "Fingerprint": facts.fingerprint}
        if facts.source:
            said["Source"] = redact_text(facts.source)
        counts = results.splits[task].one_hot.sum(axis=0).tolist() if task in results.splits else [0] * len(facts.names)
        tasks.append(
            Task(
                title=results.task_title(task),
                facts=said,
                classes=list(zip(facts.classes, facts.names, counts, strict=True)),
                pictures=_pictures(results, task, found[task], encoded),
            )
        )
    return tasks


def _pictures(
    results: Results, task: str, paths: Sequence[Path], encoded: Mapping[Path, bytes | None]
) -> list[tuple[str, list[Picture]]]:
    """Put pictures of the same protocol and encoder together, in the suite's order."""
    together = []
    for protocol in results.suite.protocols:
        for encoder in results.encoders:
            name = f"{results.protocol_title(protocol)}, {encoder}"
            own = {path.stem: path for path in paths if path.parts[-3:-1] == (protocol, encoder)}
            pictures = []
            for stem, caption in _PICTURES.items():
                if stem in own:
                    content = encoded[own[stem]]
                    uri = None if content is None else data_uri(content, "image/webp")
                    pictures.append(Picture(f"{caption}: {results.task_title(task)}, {name}", uri))
            if pictures:
                together.append((name, pictures))
    return together


def _heads(table: Table) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Return the upper headings with the columns and rows each spans, and the lower ones that stand below those."""
    upper: list[tuple[str, int, int]] = []
    lower = []
    for index, (over, name) in enumerate(table.columns):
        if not over:
            upper.append((name, 1, 2))
            continue
        lower.append(name)
        if index and table.columns[index - 1][0] == over:
            upper[-1] = (over, upper[-1][1] + 1, 1)
        else:
            upper.append((over, 1, 1))
    return upper, lower


def _once(tables: Sequence[Table]) -> list[Table]:
    """Leave out the notes that a table before has said."""
    said: set[str] = set()
    shortened = []
    for table in tables:
        shortened.append(replace(table, notes=[note for note in table.notes if note not in said]))
        said |= set(table.notes)
    return shortened


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return dotted names with their values."""
    flat: list[tuple[str, str]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat += _flatten(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return flat
