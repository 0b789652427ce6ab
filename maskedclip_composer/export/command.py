"""`python -m maskedclip_composer export SOURCE --to TARGET --out FOLDER`."""

import argparse
from pathlib import Path

from maskedclip_composer.use.options import check_writable

TARGETS = {
    "timm": "image encoder for timm.create_model",
    "hf": "whole model, and its towers for transformers",
    "onnx": "whole model for onnxruntime",
    "safetensors": "image encoder as one file for evaluate.py and load",
}


def main(argv: list[str] | None = None) -> int:
    """Export as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer export",
        description="Export a trained model to a folder with checksums, golden outputs and loading instructions. "
        "The folder is verified before it gets its name.",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="run folder, checkpoint .pt or sharded checkpoint in one, encoder.safetensors, or exported folder",
    )
    told = "; ".join(f"{name}: {what}" for name, what in TARGETS.items())
    parser.add_argument("--to", required=True, choices=TARGETS, help=told)
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export there")
    args = parser.parse_args(argv)
    check_writable("--out", args.out, folder=True)

    from maskedclip_composer.export.write import export  # torch and transformers: not for --help

    for note in export(args.source, args.to, args.out, overwrite=args.overwrite):
        print(f"note: {note}")
    files = [path for path in args.out.rglob("*") if path.is_file()]
    print(f"{args.out}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:,.1f} MB, verified")
    return 0
