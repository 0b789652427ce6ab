"""The command `retrieve`: the photographs that fit a text, or look like another one."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.options import add_device_option, add_model_option, check_writable, count, device_of

if TYPE_CHECKING:
    from maskedclip_composer.data.photograph import Recipe
    from maskedclip_composer.use.hits import Hits

_SHOWN = 5
"""Hits of each query that are printed."""


def main(argv: list[str] | None = None) -> int:
    """Search a table of embeddings; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer retrieve",
        description="Find the photographs whose features have the highest cosine with those of a text or of another "
        "photograph, in a table that `embed` wrote. The search is exact. A photograph that is the query itself is "
        "found too, and marked.",
        epilog="Exit status: 0 done; 2 wrong input, nothing was written.",
    )
    parser.add_argument("--index", required=True, type=Path, metavar="FILE", help="table that `embed` wrote")
    add_model_option(parser, ": the one that made the index")
    parser.add_argument("--text", nargs="+", default=[], metavar="WORDS", help="queries in words")
    parser.add_argument("--image", nargs="+", default=[], metavar="FILE", help="photographs as queries")
    parser.add_argument("--top", type=count, default=10, metavar="N", help="hits of each query (default: 10)")
    parser.add_argument(
        "--space", choices=("clip", "masked"), help="which features to compare (default: clip for texts, else masked)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the hits, .csv")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="also a page with their pictures, .html; needs --photos"
    )
    parser.add_argument("--photos", metavar="PHOTOS", help="the photographs that were embedded, for --page")
    parser.add_argument("--images", metavar="ROOT", help="likewise, the folder that a table's paths start from")
    add_device_option(parser)
    args = parser.parse_args(argv)
    _check(args)

    from maskedclip_composer.use.embedding_table import read_about
    from maskedclip_composer.use.hits import check_shown, hits_csv, open_indexed, search

    about = read_about(args.index)
    photographs = open_indexed(args.index, args.photos, args.images) if args.page else None
    from maskedclip_composer.use.queries import embed_queries

    found = embed_queries(
        args.index, args.model, texts=args.text, images=args.image, space=args.space, device=device_of(args.device)
    )
    _warn_of_preparation(about["recipe"], found.transform.recipe)
    hits = search(args.index, found, args.top)
    if photographs is not None:
        check_shown(args.index, hits, photographs, found.transform)
    from maskedclip_composer.callbacks.atomic import write_whole

    write_whole(args.out, hits_csv(hits))
    if photographs is not None:
        from maskedclip_composer.use.hits_page import hits_page

        write_whole(args.page, hits_page(hits, photographs, found.transform, title=f"{args.index.name}: hits"))
    _show(hits)
    print(f"{sum(len(of_query.hits) for of_query in hits)} hits in {args.out}" + (f", {args.page}" * bool(args.page)))
    return 0


def _check(args: argparse.Namespace) -> None:
    if not args.text and not args.image:
        raise UserError("There is no query.\nGive --text WORDS, or --image FILE.")
    for option, path, suffix in (("--out", args.out, ".csv"), ("--page", args.page, ".html")):
        if path is not None and path.suffix != suffix:
            raise UserError(f"{option} {path}: the name must end in {suffix}.\nName it {path.stem}{suffix}.")
        if path is not None:
            check_writable(option, path)
    if args.page is not None and not args.photos:
        raise UserError("--page needs the photographs, whose place a table does not tell.\nGive --photos PHOTOS.")
    if args.page is None and (args.photos or args.images):
        raise UserError("--photos and --images are for --page.\nLeave them out, or give --page FILE.")


def _warn_of_preparation(of_index: dict[str, Any] | None, recipe: "Recipe") -> None:
    if of_index is not None and of_index != asdict(recipe):
        print(
            f"Warning: the photographs of the table were prepared with {of_index}, what the model was trained on and "
            f"the queries with {asdict(recipe)}.",
            file=sys.stderr,
        )


def _show(hits: "list[Hits]") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"At most {_SHOWN} hits of each query")
    for name in ("query", "rank", "score", "image"):
        table.add_column(name, overflow="fold")
    for of_query in hits:
        for hit in of_query.hits[:_SHOWN]:
            image = escape(hit.image) + (" [i](the query)[/i]" if hit.is_query else "")
            words = escape(of_query.query.words) if hit.rank == 1 else ""
            table.add_row(words, str(hit.rank), f"{hit.score:.3f}", image)
        table.add_section()
    Console(highlight=False).print(table)
