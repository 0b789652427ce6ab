"""The command `zero-shot`: how well each class's words fit each photograph."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.options import add_model_option, add_reading_options, check_writable, device_of

if TYPE_CHECKING:
    from maskedclip_composer.use.class_prompts import ClassPrompts
    from maskedclip_composer.use.class_scores import Scored

_SHOWN = 8
"""Rows that are printed."""


def main(argv: list[str] | None = None) -> int:
    """Classify photographs by words; return the exit status: 1 where none could be read."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer zero-shot",
        description="Score photographs against classes that are given in words, without any training. The words of a "
        "class go into every template; the mean of their features stands for the class.",
        epilog="Exit status: 0 done; 1 no photograph could be read; 2 wrong input, nothing was written.",
    )
    add_reading_options(parser)
    add_model_option(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--classes", nargs="+", metavar="WORDS", help="the classes in words, as they are to be read")
    what.add_argument("--dataset", metavar="NAME", help="the classes of this data set in the words of the pack")
    parser.add_argument("--target", metavar="NAME", help="labelling of --dataset (default: its first)")
    parser.add_argument(
        "--pack", default="retina-en", metavar="PACK", help="name or file of a prompt pack (default: retina-en)"
    )
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="'A fundus photograph of {}'; may be repeated (default: those of the pack)",
    )
    parser.add_argument("--multilabel", action="store_true", help="several classes may be true: score each for itself")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the scores, .csv")
    args = parser.parse_args(argv)
    if args.out.suffix != ".csv":
        raise UserError(f"--out {args.out}: the scores are written as CSV.\nName it {args.out.stem}.csv.")
    check_writable("--out", args.out)

    from maskedclip_composer.use.class_prompts import class_prompts
    from maskedclip_composer.use.photographs import open_photographs

    prompts = class_prompts(
        classes=args.classes,
        dataset=args.dataset,
        target=args.target,
        pack=args.pack,
        templates=args.template,
        multilabel=args.multilabel,
    )
    photographs = open_photographs(args.photos, args.images)
    _check_columns(photographs.columns, list(prompts.prompts))
    from maskedclip_composer.use.class_scores import score

    found = score(
        photographs,
        prompts,
        args.model,
        multilabel=args.multilabel,
        batch_size=args.batch_size,
        workers=args.workers,
        device=device_of(args.device),
    )
    _write(found, args.out)
    _show(found, prompts)
    print(f"{len(found.scores)} of {len(photographs)} photographs scored in {args.out}")
    return 0 if len(found.scores) else 1


def _check_columns(columns: tuple[str, ...], classes: list[str]) -> None:
    for name in columns:
        if name in ("image", "predicted", "reason", *classes):
            raise UserError(
                f"The column {name} of the photographs' table is also one of the scores'.\nRename it, or take it out."
            )


def _write(found: "Scored", out: Path) -> None:
    from maskedclip_composer.callbacks.atomic import write_whole
    from maskedclip_composer.use.csv_table import csv_text

    predicted = [] if found.multilabel else ["predicted"]
    header = ["image", *found.columns, *predicted, *found.classes, "reason"]
    scores = iter(found.scores)
    rows = []
    for photograph in found.photographs:
        cells: list[str | float | None] = [
            photograph.name,
            *(photograph.columns.get(name, "") for name in found.columns),
        ]
        if photograph.reason:
            cells += [None] * (len(predicted) + len(found.classes))
        else:
            own = next(scores)
            cells += [found.classes[own.argmax()] for _ in predicted]
            cells += [round(float(value), 6) for value in own]
        rows.append([*cells, photograph.reason])
    write_whole(out, csv_text(header, rows))


def _show(found: "Scored", prompts: "ClassPrompts") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    readable = [photograph for photograph in found.photographs if not photograph.reason][:_SHOWN]
    table = Table(title=f"The first {len(readable)} photographs")
    for name in ("image", *found.classes):
        table.add_column(escape(name), overflow="fold")
    for photograph, own in zip(readable, found.scores, strict=False):
        cells = [f"[b]{value:.3f}[/b]" if value == own.max() else f"{value:.3f}" for value in own]
        table.add_row(escape(photograph.name), *cells)
    console.print(table)
    for one, other, cosine in found.alike:
        print(f"WARNING: the text encoder hardly tells {one!r} from {other!r} (cosine {cosine:.5f})")
    if not len(found.scores) or len(prompts.pack.templates) < 2:
        return
    table = Table(title=f"Mean score by wording ({len(prompts.pack.templates)} templates)")
    for name in ("class", "all templates", "mean", "lowest", "highest"):
        table.add_column(name)
    for number, name in enumerate(found.classes):
        means = found.means_by_template[:, number]
        values = found.scores[:, number].mean(), means.mean(), means.min(), means.max()
        table.add_row(escape(prompts.title(name)), *(f"{value:.3f}" for value in values))
    console.print(table)
    if not found.multilabel:
        print(f"One template alone changes the predicted class of {found.changed:.0%} of the photographs (on average).")
