"""What a model card says of the network and of its data: tables and sentences from a run's files."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from maskedclip_composer.cards.definitions import OBJECTIVES, recipe_name
from maskedclip_composer.cards.markdown import Markdown, code, plain, table
from maskedclip_composer.cards.paths import without_folders
from maskedclip_composer.cards.run_files import RunFiles
from maskedclip_composer.cards.set_sections import listed
from maskedclip_composer.cards.terms import Terms
from maskedclip_composer.cards.terms_section import meaning
from maskedclip_composer.cards.training_data import StreamData

if TYPE_CHECKING:
    from maskedclip_composer.cards.evaluations import Evaluation

TWO_TOWERS = {"lg_clip", "integrity_clip"}
"""Objectives that learn a space of images and texts."""


def not_recorded(reason: str) -> Markdown:
    """Return what stands in the place of a value that no file tells."""
    return Markdown(f"not recorded ({plain(reason)})")


def lead(run: RunFiles, streams: Sequence[StreamData]) -> Markdown:
    """Say in a sentence what the model is."""
    said = [f"{stream.samples:,} {stream.name}" for stream in streams if stream.samples is not None]
    images = f"{' and '.join(said)} photographs" if said else "photographs whose number was not recorded"
    name = plain(run.section("image_encoder").get("name", "a ViT"))
    return Markdown(f"{name}, pre-trained on {images} of the fundus by {plain(recipe_name(run))}.")


def glance(run: RunFiles, streams: Sequence[StreamData], terms: Terms, evaluations: "Sequence[Evaluation]") -> Markdown:
    """Return the table that a reader in a hurry wants."""
    encoder = run.encoder
    counts = [task.contaminated for evaluation in evaluations for task in evaluation.tasks]
    unknown, seen = counts.count(None), sum(count for count in counts if count)
    told = f"{seen:,}, in the {len(counts) - unknown} of {len(counts)} evaluated tasks where it can be told"
    told = told if counts else "no suite has looked yet"
    state = "not finished: there is no encoder file" if encoder is None else not_recorded("metrics.jsonl")
    if encoder is not None and run.measured is not None:
        state = f"trained, {run.measured.steps:,} steps"
        if (trained := encoder.said.get("trained")) not in (None, f"{run.measured.steps}ba"):
            state = f"the encoder's file is of {trained}, and training has gone on to step {run.measured.steps:,}"
    size = not_recorded("there is no encoder file")
    if encoder is not None:
        size = f"{encoder.parameters:,} parameters, {encoder.bytes / 1e6:,.1f} MB"
    rows = [
        ("state", state),
        ("image encoder", size),
        ("data sets", ", ".join(_sets(streams)) or not_recorded("no manifest lay beside the shards")),
        ("what may be done with it", meaning(terms)),
        ("test photographs seen in pre-training", told),
    ]
    return _lines(table(("", ""), rows))


def _sets(streams: Sequence[StreamData]) -> list[str]:
    return [f"{name} ({stream.name})" for stream in streams for name in sorted(stream.read.datasets)]


def architecture(run: RunFiles) -> Markdown:
    """Return sizes of all parts of the network."""
    said = run.encoder.said if run.encoder else {}
    image, bridge, text = run.section("image_encoder"), run.section("bridge"), run.section("text_encoder")
    size = said.get("image_size") or run.section("data").get("image_size")
    depth = said.get("depth") or image.get("depth") or "its own number of"
    patch = said.get("patch_size") or image.get("patch_size") or "its own number of"
    rows: list[tuple[str, object]] = [
        ("recipe", recipe_name(run)),
        ("image encoder E_I", f"{image.get('name')}, {depth} blocks, patches of {patch} pixels"),
        ("input", f"{size} x {size} pixels, RGB"),
        ("bridge B", f"depth {bridge.get('depth')}" if bridge.get("depth") else "none"),
        ("text encoder E_T", _text(run, text)),
        ("masked", f"{float(run.config.get('mask_ratio', 0)):.0%} of the patches"),
    ]
    teacher = run.section("teacher")
    if teacher:
        rows.append(("momentum teacher", f"momentum {teacher.get('momentum')}"))
    if run.parameters is not None:
        rows += [(f"parameters of {name}", f"{count:,}") for name, count in run.parameters.items()]
    else:
        rows.append(("parameters of the parts used in training alone", not_recorded(run.absent["parameters.json"])))
    return _lines(table(("part", "what"), rows))


def _text(run: RunFiles, text: dict[str, Any]) -> str:
    if "paired" not in run.streams:
        return "none: trained without texts"
    start = "pre-trained" if text.get("pretrained") else "from random weights"
    return f"{without_folders(str(text.get('name')))}, {start}"


def objectives(run: RunFiles) -> Markdown:
    """Return the losses with their weights."""
    rows = [
        (
            name,
            *OBJECTIVES.get(name, ("not of the paper", "an objective of its own, described in the code of the run")),
            settings.get("weight"),
        )
        for name, settings in run.objectives.items()
    ]
    return _lines(table(("name in the config", "in the paper", "what it is", "weight"), rows))


def needs_origin(run: RunFiles) -> bool:
    """Tell whether the image encoder started from weights that `origin.json` describes."""
    return run.section("image_encoder").get("weights") is not None


def starting_weights(run: RunFiles) -> list[str]:
    """Name the weights that training began with: of the image encoder and of the text encoder."""
    image, text = run.section("image_encoder"), run.section("text_encoder")
    found = []
    if needs_origin(run):
        found.append(without_folders(str(image["weights"])))
    elif image.get("pretrained"):
        found.append(f"timm:{image.get('name')}")
    if "paired" in run.streams and text.get("pretrained"):
        found.append(f"{without_folders(str(text.get('name')))} (text encoder)")
    return found


def start(run: RunFiles) -> Markdown:
    """Say what training began with."""
    unknown = "What these weights were trained on, and on what terms, no file of a run records: check at their source."
    lines = [f"- Started from {plain(name)}. {unknown}" for name in starting_weights(run)]
    if not (needs_origin(run) or run.section("image_encoder").get("pretrained")):
        lines.insert(0, "- The image encoder started from random weights.")
    if run.origin:
        description = plain(without_folders(str(run.origin.get("description"))))
        lines.append(f"- {description}, sha256 {code(run.origin.get('sha256'))}.")
    return _lines(lines)


def data(streams: Sequence[StreamData]) -> Markdown:
    """Return a table of the streams and how their photographs were prepared."""
    rows, notes = [], []
    for stream in streams:
        read, no_manifest = stream.read, not_recorded("data_manifest.json")
        patients = sum(map(len, read.patients.values()))
        texts = f"{read.texts.total():,} ({len(read.texts):,} distinct)" if read.texts else "none"
        known = [", ".join(f"{name} {count:,}" for name, count in sorted(read.datasets.items()))]
        known += [f"{patients:,}" if patients else "unknown", texts]
        rows.append(
            (
                stream.name,
                no_manifest if stream.samples is None else f"{stream.samples:,}",
                *([not_recorded(stream.absent)] * 3 if stream.absent else known),
                f"sha256 {stream.sha256[:16]}" if stream.sha256 else no_manifest,
            )
        )
        if stream.options:
            options = ", ".join(f"{name} {value}" for name, value in sorted(stream.options.items()))
            notes.append(
                f"Photographs of {stream.name} were prepared with: {plain(options)}. Crop to the retina: "
                f"{plain(listed(read.crop))}."
            )
        elif not stream.absent:
            notes.append(
                f"How photographs of {stream.name} were prepared: "
                f"{not_recorded('report.json is not in the folder of the run')}. "
                f"Crop to the retina: {plain(listed(read.crop))}."
            )
    head = ("stream", "photographs", "data sets", "patients", "texts", "index")
    return _lines([*table(head, rows), "", *(line for note in notes for line in (note, ""))][:-1])


def citations(streams: Sequence[StreamData]) -> Markdown:
    """Name what the data sets want to be cited for."""
    cited = {about["name"]: about["citation"] for stream in streams for about in stream.abouts if about.get("citation")}
    if not cited:
        return Markdown("What the data sets want to be cited for was not recorded.")
    lines = [f"- {plain(name)}: {plain(words)}" for name, words in sorted(cited.items())]
    return _lines(["The data sets, as they want to be cited:", "", *lines])


def timm_lines(run: RunFiles) -> Markdown | None:
    """Return code that loads the encoder strictly into timm; None where there is no encoder file."""
    said = run.encoder.said if run.encoder else {}
    try:
        name, size, patch, depth = said["name"], *(int(said[key]) for key in ("image_size", "patch_size", "depth"))
    except (KeyError, ValueError):
        return None
    return _lines(
        [
            "import timm",
            "from safetensors.torch import load_file",
            "",
            "encoder = timm.create_model(",
            f"    {json.dumps(name)}, num_classes=0, img_size={size}, patch_size={patch}, depth={depth}",
            ")",
            'encoder.load_state_dict(load_file("encoder.safetensors"))',
        ]
    )


def _lines(lines: Sequence[str]) -> Markdown:
    return Markdown("\n".join(lines))
