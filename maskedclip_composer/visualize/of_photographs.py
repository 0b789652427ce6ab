"""Pictures of photographs as a model sees them."""

from collections.abc import Callable

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.masking import num_visible
from maskedclip_composer.use.options import device_of
from maskedclip_composer.use.photographs import open_photographs
from maskedclip_composer.visualize.attention import draw_attention
from maskedclip_composer.visualize.columns import check_column, column, first_texts, patients
from maskedclip_composer.visualize.drawn import Drawn, Subject
from maskedclip_composer.visualize.files import Result
from maskedclip_composer.visualize.kinds import KINDS, missing
from maskedclip_composer.visualize.options import Options
from maskedclip_composer.visualize.patches import draw_patches
from maskedclip_composer.visualize.reconstruction import draw_reconstruction
from maskedclip_composer.visualize.sample import Sample, read_sample
from maskedclip_composer.visualize.spaces import LEAST, Points, draw_spaces
from maskedclip_composer.visualize.subject import open_subject
from maskedclip_composer.visualize.texts import draw_texts, text_features


def draw_photographs(options: Options) -> Result:
    """Draw all kinds that were asked for, or all that can be drawn.

    Raises:
        UserError: Something that was asked for cannot be drawn, or what it is to be drawn of cannot be read.
    """
    if options.model is None:
        raise UserError("--model is missing.\nGive the model that the pictures are of.")
    photographs = open_photographs(options.photos, options.images)
    for flag, name in (("--labels", options.labels), ("--sets", options.sets)):
        check_column(flag, name, photographs.columns, options.photos)
    subject, transform = open_subject(options.model, device_of(options.device))
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
        batch_size=options.batch_size,
        workers=options.workers,
    )
    if "spaces" in kinds and "spaces" not in options.kinds and len(sample.photographs) < LEAST:
        kinds.remove("spaces")
        left_out["spaces"] = f"there are fewer than {LEAST} photographs."
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
    return Result(
        title=f"Pictures of {subject.name}",
        facts={
            "Model": options.model + ("" if subject.step is None else f", step {subject.step}"),
            "Photographs": f"{options.photos}: {len(photographs)}, of which {len(sample.photographs)} were read",
        },
        drawn=[draws[kind]() for kind in kinds],
        left_out=left_out,
        unreadable=sample.unreadable,
    )


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
    own = first_texts(rows)
    texts = None
    if subject.tokenizer is not None and (own or options.texts):
        texts = text_features(subject.model, subject.tokenizer, own or options.texts).numpy()
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
    """Return the share to hide.

    Raises:
        UserError: No patch would be hidden, or none would stay visible.
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
