"""The terms of a run's model: of all that it was trained on, and of the weights that it started from."""

from collections.abc import Sequence
from pathlib import Path

from maskedclip_composer.cards.model_facts import starting_weights
from maskedclip_composer.cards.run_files import RunFiles, read_run
from maskedclip_composer.cards.terms import Part, Terms
from maskedclip_composer.cards.terms_section import meaning, terms_section
from maskedclip_composer.cards.training_data import StreamData, read_streams


def model_terms(run: RunFiles, streams: Sequence[StreamData]) -> Terms:
    """Return the terms of the data and of the starting weights: theirs are unknown, for no file of a run tells them."""
    started_from = [Part(f"starting weights: {name}", "") for name in starting_weights(run)]
    return Terms.of([part for stream in streams for part in stream.parts] + started_from)


def model_terms_lines(terms: Terms) -> list[str]:
    """Say in Markdown what they are for the weights."""
    return [meaning(terms), "", *terms_section(terms, "This model, to be as careful as its data want it")]


def terms_page(folder: Path) -> str:
    """Return a page of the terms alone, as the model card of the run tells them.

    Args:
        folder: The run's.

    Raises:
        UserError: It is no run's folder.
    """
    run = read_run(folder)
    lines = model_terms_lines(model_terms(run, read_streams(run)))
    return "\n".join(["# Terms of what the model was trained on", "", *lines]).rstrip() + "\n"
