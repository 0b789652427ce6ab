"""The model card: front matter for the hub, and a body in which every value comes from the run's files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from maskedclip_composer.cards import model_facts, model_results, run_facts
from maskedclip_composer.cards.biases import bias_lines
from maskedclip_composer.cards.front_matter import front_matter
from maskedclip_composer.cards.markdown import Markdown, code, plain
from maskedclip_composer.cards.model_terms import model_terms, model_terms_lines
from maskedclip_composer.cards.paths import without_folders
from maskedclip_composer.cards.prompt_pack import pack_of
from maskedclip_composer.cards.run_files import RunFiles
from maskedclip_composer.cards.training_data import StreamData

if TYPE_CHECKING:
    from maskedclip_composer.cards.evaluations import Evaluation

_TEMPLATE = "model_card.md.jinja"


def model_card(
    run: RunFiles, streams: Sequence[StreamData], evaluations: "Sequence[Evaluation]", told: Sequence[str]
) -> str:
    """Return the card.

    Args:
        run: The run.
        streams: What it was trained on.
        evaluations: What suites have measured of it.
        told: Why other suites are not shown.
    """
    terms = model_terms(run, streams)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # it is Markdown: `plain` escapes every value instead
        finalize=plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["raw"] = _within_quotes
    timm = model_facts.timm_lines(run)
    said = run.encoder.said if run.encoder else {}
    body = environment.get_template(_TEMPLATE).render(
        name=run.name,
        lead=model_facts.lead(run, streams),
        glance=model_facts.glance(run, streams, terms, evaluations),
        architecture=model_facts.architecture(run),
        objectives=model_facts.objectives(run),
        start=model_facts.start(run),
        width=run.encoder.width if run.encoder else None,
        has_texts=bool(run.objectives.keys() & model_facts.TWO_TOWERS),
        timm=timm,
        image_size=said.get("image_size", ""),
        mean=code(said.get("mean", "")),
        std=code(said.get("std", "")),
        data=model_facts.data(streams),
        terms=_block(model_terms_lines(terms)),
        contamination=model_results.contamination(streams, evaluations),
        results=model_results.results(evaluations, told),
        cost=run_facts.cost(run),
        reproducibility=run_facts.reproducibility(run, streams),
        faults=run_facts.faults(run),
        biases=_block(bias_lines(streams)),
        citations=model_facts.citations(streams),
        absent=_block(
            [f"- {plain(without_folders(reason))}" for reason in _absent(run, streams)] or ["Nothing is missing."]
        ),
    )
    pack = pack_of(run)
    data = front_matter(run, streams, terms, evaluations, pack.language if pack else None)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _absent(run: RunFiles, streams: Sequence[StreamData]) -> list[str]:
    reasons = [why for file, why in run.absent.items() if file != "origin.json" or model_facts.needs_origin(run)]
    reasons += [f"{stream.name} stream: {stream.absent}" for stream in streams if stream.absent]
    reasons += [
        f"{stream.name} stream: report.json of the preparation is not in the run's folder, so what the sets say of "
        "their source, terms and citation, and how photographs were prepared, are not known"
        for stream in streams
        if not stream.absent and not stream.options
    ]
    reasons += [
        f"{stream.name} stream: its index lists {stream.samples:,} photographs, the manifest {stream.read.total:,}; "
        "the rest may be anything"
        for stream in streams
        if not stream.absent and not stream.is_all_listed
    ]
    reasons += [
        "energy: nothing in training measures it",
        "age, sex and origin of patients, and the cameras: manifests have no such columns",
    ]
    return reasons


def _block(lines: Sequence[str]) -> Markdown:
    return Markdown("\n".join(lines))


def _within_quotes(value: object) -> Markdown:
    """Return a name to stand in a string of the example code, without what would end the string or the block."""
    return Markdown("".join(letter for letter in str(value) if letter.isalnum() or letter in " ._-+/"))
