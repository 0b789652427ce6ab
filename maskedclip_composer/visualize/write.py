"""Draw all pictures that were asked for, and write them with their numbers and their page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.masking import num_visible
from maskedclip_composer.use.photographs import open_photographs
from maskedclip_composer.visualize.attention import draw_attention
from maskedclip_composer.visualize.columns import check_column, column, first_texts, patients
from maskedclip_composer.visualize.drawn import Drawn, Subject
from maskedclip_composer.visualize.kinds import KINDS, missing
from maskedclip_composer.visualize.options import Options
from maskedclip_composer.visualize.page import page
from maskedclip_composer.visualize.patches import draw_patches
from maskedclip_composer.visualize.reconstruction import draw_reconstruction
from maskedclip_composer.visualize.sample import BATCH, Sample, read_sample
from maskedclip_composer.visualize.spaces import LEAST, Points, draw_spaces
from maskedclip_composer.visualize.subject import open_subject, run_of
from maskedclip_composer.visualize.texts import draw_texts


@dataclass(frozen=True)
class Written:
    """What came of it.

    Attributes:
        files: The page first.
        left_out: Kinds that were not drawn, and why.
        unreadable: Photographs by name, and why.
    """

    files: list[Path]
    left_out: dict[str, str]
    unreadable: list[tuple[str, str]]


def write_pictures(options: Options) -> Written:
    """Write KIND.png for each kind, pictures.json and index.html into the folder.

    Raises:
        UserError: Something that was asked for cannot be drawn, or what it is to be drawn of cannot be read.
    """
    if options.model is None:
        raise UserError("--model is missing.\nGive the model that the pictures are of.")
    run = None
    if options.log:
        from maskedclip_composer.visualize.tracking import tracked_run  # MLflow takes seconds to import

        run = tracked_run(run_of(Path(options.model)), options.model)
    photographs = open_photographs(options.photos, options.images)
    for flag, name in (("--labels", options.labels), ("--sets", options.sets)):
        check_column(flag, name, photographs.columns, options.photos)
    subject, transform = open_subject(options.model, options.device or _device())
    kinds, left_out = choose_kinds(options, subject)
    mask_ratio = _mask_ratio(options, subject) if "reconstruction" in kinds else 0.0
    sample = read_sample(
        photographs,
        subject.model,
        transform,
        count=options.count,
        points=options.points if "spaces" in kinds else None,
        label=options.labels,
        seed=options.seed,
        workers=options.workers,
    )
    if "spaces" in kinds and "spaces" not in options.kinds and len(sample.photographs) < LEAST:
        kinds.remove("spaces")
        left_out["spaces"] = f"fewer than {LEAST} photographs"
    shown, seed = sample.shown, options.seed
    draws: dict[str, Callable[[], Drawn]] = {
        "reconstruction": lambda: draw_reconstruction(subject, shown, mask_ratio=mask_ratio, seed=seed),
        "attention": lambda: draw_attention(subject, shown),
        "texts": lambda: draw_texts(subject, shown, options.texts),
        "patches": lambda: draw_patches(subject, shown),
        "spaces": lambda: draw_spaces(
            _points(options, subject, sample), title=subject.title("feature spaces"), seed=seed
        ),
    }
    facts = {
        "Model": f"{options.model}" + ("" if subject.step is None else f", step {subject.step}"),
        "Photographs": f"{options.photos}: {len(photographs)}, of which {len(sample.photographs)} were read",
    }
    written = _write(options, [draws[kind]() for kind in kinds], facts, left_out, sample.unreadable)
    if run is not None:
        from maskedclip_composer.visualize.tracking import log_pictures

        log_pictures(run, written.files)
    return written


def choose_kinds(options: Options, subject: Subject) -> tuple[list[str], dict[str, str]]:
    """Return the kinds to draw, and why others are left out.

    Raises:
        UserError: One that was asked for by name cannot be drawn.
    """
    kinds, left_out = [], {}
    for kind in KINDS:
        if options.kinds and kind not in options.kinds:
            continue
        reason = missing(
            kind,
            has_decoder=subject.mim is not None,
            has_texts=subject.model.has_texts,
            given_texts=bool(options.texts),
        )
        if reason is None:
            kinds.append(kind)
        elif kind in options.kinds:
            raise UserError(f"--kinds {kind}: {reason}")
        else:
            left_out[kind] = reason.replace("\n", " ")
    return kinds, left_out


def _points(options: Options, subject: Subject, sample: Sample) -> Points:
    """Return what both spaces are compared on; texts are those of the photographs, else those of --text."""
    assert sample.masked is not None
    rows = [photograph.columns for photograph in sample.photographs]
    texts = None
    own = first_texts(rows)
    if subject.model.has_texts and (own or options.texts):
        assert subject.tokenizer is not None
        chosen = own or list(options.texts)
        batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
        texts = torch.cat([subject.model.encode_text(**subject.tokenizer(batch)).cpu() for batch in batches]).numpy()
    return Points(
        masked=sample.masked,
        clip=sample.clip,
        labels=column(rows, options.labels),
        sets=column(rows, options.sets),
        patients=patients(rows),
        texts=texts,
        texts_are="texts of the photographs" if own else "given texts",
    )


def _mask_ratio(options: Options, subject: Subject) -> float:
    """Return the share to hide, of which some patches and not all must come.

    Raises:
        UserError: None or all would be hidden.
    """
    ratio = options.mask_ratio if options.mask_ratio is not None else subject.mask_ratio
    assert ratio is not None
    rows, columns = subject.model.branch.image_encoder.grid
    patches = rows * columns
    if not 0 < num_visible(patches, ratio) < patches:
        raise UserError(
            f"--mask-ratio {ratio}: of {patches} patches {num_visible(patches, ratio)} would stay visible.\n"
            "Some must be hidden, and some stay; 0.75 is usual."
        )
    return ratio


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _write(
    options: Options,
    drawn: Sequence[Drawn],
    facts: dict[str, str],
    left_out: dict[str, str],
    unreadable: list[tuple[str, str]],
) -> Written:
    files = [options.out / "index.html", options.out / "pictures.json"]
    facts = {name: redact_text(value) for name, value in facts.items()}
    text = page(
        drawn,
        title=f"Pictures of {Path(options.model or options.photos).name}",
        facts=facts,
        left_out=left_out,
        unreadable=unreadable,
        command=redact_text(options.command),
    )
    for one in drawn:
        files.append(options.out / f"{one.name}.png")
        write_whole(files[-1], one.png)
    numbers = {
        **facts,
        "pictures": {one.name: one.numbers for one in drawn},
        "left_out": left_out,
        "unreadable": dict(unreadable),
    }
    write_whole(files[1], json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    write_whole(files[0], text)
    return Written(files, left_out, unreadable)
