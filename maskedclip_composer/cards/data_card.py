"""The data card of a run: what its streams read, counted from the manifests in its folder."""

from collections.abc import Sequence
from typing import Any

from maskedclip_composer.cards import set_sections
from maskedclip_composer.cards.markdown import plain, table
from maskedclip_composer.cards.prompt_pack import pack_of
from maskedclip_composer.cards.run_files import RunFiles
from maskedclip_composer.cards.set_sections import Section
from maskedclip_composer.cards.terms import Terms
from maskedclip_composer.cards.terms_section import terms_section
from maskedclip_composer.cards.training_data import StreamData

FEWEST = 10
"""Photographs that a text must be of to be shown: a run's card is published, and a text may tell who somebody is."""


def data_card(run: RunFiles, streams: Sequence[StreamData]) -> str:
    """Return the card. It names no photograph and no patient, and no text that few photographs have."""
    terms = Terms.of(part for stream in streams for part in stream.parts)
    subject = "The collection that this run read, and to be safe a model that was trained on it"
    sections = [
        Section("Streams", _streams(streams)),
        Section("Terms", terms_section(terms, subject)),
        *([Section("Prompts", _prompts(run))] if "paired" in run.streams else []),
    ]
    said = (
        "What the run read, counted from the manifests that lay beside its shards. Photographs of the retina for "
        "research; not for use on patients. Photographs and patients are not named here: `data/` in the run's "
        "folder has the manifests."
    )
    parts = [f"# Data of the run {plain(run.name)}", said, set_sections.joined(sections, 2)]
    parts += [f"## Stream: {plain(stream.name)}\n\n{_stream(stream)}" for stream in streams]
    return "\n\n".join(parts) + "\n"


def _streams(streams: Sequence[StreamData]) -> list[str]:
    rows = [
        (
            stream.name,
            f"{stream.samples:,}" if stream.samples is not None else "not recorded",
            stream.sha256 or "not recorded",
            stream.absent or f"{stream.read.total:,}",
        )
        for stream in streams
    ]
    lines = table(("stream", "photographs in the index", "index, sha256", "photographs in the manifest"), rows)
    unlike = [stream.name for stream in streams if not stream.absent and not stream.is_all_listed]
    if unlike:
        said = (
            f"**The manifest and the index of {plain(' and '.join(unlike))} differ**: what the manifest does not list "
        )
        lines += ["", f"{said}may be anything, and below only what it lists is counted."]
    return lines


def _prompts(run: RunFiles) -> list[str]:
    prompts: dict[str, Any] = (run.manifest or {}).get("prompts") or {}
    settings = run.section("data", "prompts")
    if not prompts:
        return ["Not recorded: data_manifest.json names no prompt pack."]
    rows = [("pack", prompts.get("pack")), ("version", prompts.get("version")), ("sha256", prompts.get("sha256"))]
    rows += [
        ("expert descriptions", settings.get("expert")),
        ("template", settings.get("template") or "the pack's own"),
    ]
    pack = pack_of(run)
    absent = "not recorded: the pack of this sha256 is not here"
    rows += [
        ("language", pack.language if pack else absent),
        ("licence of the wording", pack.licence if pack else absent),
    ]
    said = "Categories are worded anew at every access by a pack; other texts are taken as they are."
    return [said, "", *table(("", ""), rows)]


def _stream(stream: StreamData) -> str:
    if stream.absent:
        return f"Not recorded: {plain(stream.absent)}."
    sections = [
        set_sections.sources(stream.read, stream.abouts),
        set_sections.counts(stream.read),
        set_sections.texts(stream.read, fewest=FEWEST),
        set_sections.quality(stream.read),
        set_sections.left_out(stream.left_out),
        _identical(stream),
        _kept(stream),
        _held_back(stream),
        set_sections.notes(stream.abouts),
        _preparation(stream),
    ]
    return set_sections.joined(sections, 3)


def _identical(stream: StreamData) -> Section | None:
    if not stream.identical:
        return None
    groups, conflicts = stream.identical
    said = f"Groups of photographs that are the same file: {groups:,}; with labels that conflict: {conflicts:,}."
    return Section("Byte-identical photographs", [said])


def _kept(stream: StreamData) -> Section | None:
    if not stream.kept:
        return None
    rows = [(name, test, f"{count:,}") for (name, test), count in sorted(stream.kept.items())]
    said = "A model that was trained on them has seen them: results on these test sets are no fair ones."
    title = f"Photographs of downstream test sets KEPT for pre-training: {sum(stream.kept.values()):,}"
    return Section(title, [said, "", *table(("data set", "test set", "photographs"), rows)])


def _held_back(stream: StreamData) -> Section | None:
    if not stream.held_back:
        return None
    rows = [(folder or ".", f"{count:,}") for folder, count in sorted(stream.held_back.items())]
    said = (
        "Prepared together with what the stream reads, and not read by it: other splits, streams and downstream sets."
    )
    return Section(
        f"Not read by this stream: {stream.held_back.total():,}", [said, "", *table(("folder", "photographs"), rows)]
    )


def _preparation(stream: StreamData) -> Section:
    if not stream.options:
        said = "Not recorded: report.json of the preparation is not in the run's folder, as in runs before it was kept."
        return Section("Preparation", [said])
    return set_sections.preparation(stream.options)
