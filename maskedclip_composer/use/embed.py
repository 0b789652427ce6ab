"""The command `embed`: photographs in, a Parquet table of their features out."""

import argparse
import importlib.metadata
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.options import add_model_option, add_reading_options, check_writable, device_of

if TYPE_CHECKING:
    import pyarrow

    from maskedclip_composer.use.embedder import Embedder
    from maskedclip_composer.use.one_photograph import Photographs

_ROWS = 512
"""Of a part, about: what a kill may cost."""


def main(argv: list[str] | None = None) -> int:
    """Embed photographs; return the exit status: 1 where none could be read."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer embed",
        description="Compute the features of photographs, with the crop and size that training used. Work that was "
        "killed goes on where it stopped when the same command is given again.",
        epilog="Exit status: 0 done, files that cannot be read are listed in OUT.unreadable.csv; 1 no photograph could "
        "be read; 2 wrong input, nothing was written.",
    )
    add_reading_options(parser)
    add_model_option(parser, "; also retfound:FILE, mae:FILE, dinov2:FILE, timm:NAME@FILE, hf:FOLDER (features alone)")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the table, .parquet")
    parser.add_argument(
        "--space",
        choices=("both", "masked", "clip"),
        help="masked: column features, for classification; clip: column image_features, to be compared with texts "
        "(default: what the model has)",
    )
    args = parser.parse_args(argv)
    if args.out.suffix != ".parquet":
        raise UserError(f"--out {args.out}: the table is written as Parquet.\nName it {args.out.stem}.parquet.")
    check_writable("--out", args.out)

    from maskedclip_composer.use.photographs import open_photographs

    photographs = open_photographs(args.photos, args.images)  # before torch loads a model: errors come at once
    from maskedclip_composer.use.embedder import open_embedder
    from maskedclip_composer.use.prepared_shards import prepared_with

    device = device_of(args.device)
    embedder = open_embedder(args.model, space=args.space, device=device)
    plan = {
        "--model of sha256": embedder.about["model_sha256"] or embedder.about["encoder_sha256"],
        "--space": embedder.space,
        # As a digest: the place itself is nobody's business whom the table is given to.
        "PHOTOS (folder, names, sizes and times) of sha256": photographs.fingerprint,
        "--batch-size": args.batch_size,  # may change the last bits
        "--device": device,
        "version": importlib.metadata.version("maskedclip-composer"),
    }
    recipe = prepared_with(photographs, embedder.transform.recipe)
    about = _about(args, plan) | embedder.about | {"recipe": None if recipe is None else asdict(recipe)}
    table = embed(photographs, embedder, args.out, plan, about, args.batch_size, args.workers, device)
    return _summarise(table, args.out)


def embed(
    photographs: "Photographs",
    embedder: "Embedder",
    out: Path,
    plan: dict[str, Any],
    about: dict[str, Any],
    batch_size: int,
    workers: int,
    device: str,
) -> "pyarrow.Table":
    """Write the table of embeddings, or go on with it; return its columns image, status and reason.

    Args:
        photographs: To embed.
        embedder: The model.
        out: The table.
        plan: What decides the features; see `Parts`.
        about: What the table says of itself.
        batch_size: Photographs per forward pass.
        workers: Processes that read.
        device: Of the model.

    Raises:
        UserError: The table, or its parts, were made otherwise, or a column's name is taken.
    """
    import pyarrow.parquet
    import torch
    from tqdm import tqdm

    from maskedclip_composer.use.embedding_table import Parts, differences, read_about, rows, schema
    from maskedclip_composer.use.photographs import batches

    size = embedder.transform.image_size
    blank = embedder.embed(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    empty = {name: value[:0] for name, value in blank.items()}
    wanted = schema(photographs.columns, {name: value.shape[1] for name, value in blank.items()}, about)
    part_size = batch_size * max(1, _ROWS // batch_size)
    parts = Parts(out, plan, part_size)
    if out.exists():
        difference = differences(read_about(out)["plan"], plan)
        if difference:
            raise UserError(f"--out {out} exists, made with {difference}.\nRemove it, or give another --out.")
        parts.remove()
    else:
        start = parts.open()
        waiting: list[pyarrow.Table] = []
        with tqdm(total=len(photographs), initial=start, desc="embed", unit=" images") as bar:
            for batch in batches(
                photographs, embedder.transform, batch_size=batch_size, workers=workers, device=device, start=start
            ):
                features = embedder.embed(batch.images) if len(batch.images) else empty
                waiting.append(rows(batch.photographs, features, wanted))
                bar.update(len(batch.photographs))
                if sum(map(len, waiting)) == part_size or bar.n == len(photographs):
                    part = pyarrow.concat_tables(waiting)
                    parts.write(start, part)
                    start, waiting = start + len(part), []
        parts.join(wanted)
    return pyarrow.parquet.read_table(out, columns=["image", "status", "reason"])


def _about(args: argparse.Namespace, plan: dict[str, Any]) -> dict[str, Any]:
    from maskedclip_composer.use.embedding_table import FORMAT

    return {
        "format": FORMAT,
        "version": plan["version"],
        "model": _name(args.model),
        "photographs": os.path.basename(os.path.abspath(args.photos)),
        "plan": plan,
    }


def _name(source: str) -> str:
    """Return a source without the folders of this machine: runs/a becomes a, mae:/data/b.pth becomes mae:b.pth."""
    from maskedclip_composer.evaluation.encoders.load import LOADERS

    kind, colon, rest = source.partition(":")
    if not colon or kind not in LOADERS:
        return os.path.basename(os.path.abspath(source))
    parts = rest.split("@", 1) if kind == "timm" else [rest]
    return f"{kind}:" + "@".join(os.path.basename(os.path.abspath(part)) for part in parts)


def _summarise(table: "pyarrow.Table", out: Path) -> int:
    from maskedclip_composer.callbacks.atomic import write_whole
    from maskedclip_composer.use.csv_table import csv_text
    from maskedclip_composer.use.embedding_table import UNREADABLE

    found = table.to_pylist()
    unreadable = [(row["image"], row["reason"]) for row in found if row["status"] == UNREADABLE]
    listed = out.with_name(f"{out.name}.unreadable.csv")
    print(f"{len(found) - len(unreadable)} of {len(found)} photographs embedded in {out}")
    if not unreadable:
        listed.unlink(missing_ok=True)
        return 0
    write_whole(listed, csv_text(["image", "reason"], unreadable))
    print(f"{len(unreadable)} cannot be read ({listed}):")
    print("\n".join(f"  {image}: {reason}" for image, reason in unreadable[:5]) + "\n  ..." * (len(unreadable) > 5))
    return 0 if len(unreadable) < len(found) else 1
