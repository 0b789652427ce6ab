"""The command `predict`: photographs in, a table of predicted classes and probabilities out."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.options import add_reading_options, check_writable, device_of

if TYPE_CHECKING:
    from maskedclip_composer.evaluation.classifier_file import ClassifierFacts, TrainedClassifier
    from maskedclip_composer.use.one_photograph import Photographs
    from maskedclip_composer.use.prediction_table import Prediction
    from maskedclip_composer.use.transform import PhotographTransform

SUFFIXES = (".csv", ".parquet")
_SHOWN = 5


def main(argv: list[str] | None = None) -> int:
    """Classify photographs; return the exit status: 1 where none could be read, or with --strict not all."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer predict",
        description="Classify photographs with a classifier that evaluate.py trained and kept (save_models=true), "
        "with the crop and size that it was trained with. Not a medical device: for research alone.",
        epilog="Exit status: 0 done, and what cannot be read has its reason in the table; 1 no photograph could be "
        "read, or with --strict one could not; 2 wrong input, nothing was written.",
    )
    add_reading_options(parser)
    parser.add_argument(
        "--model", required=True, metavar="CLASSIFIER", help="folder of a classifier.safetensors, or the file"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the table, .csv or .parquet")
    parser.add_argument(
        "--patients",
        type=Path,
        metavar="FILE",
        help="a second table: the mean probabilities of each patient's photographs, by the column patient",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a photograph cannot be read")
    args = parser.parse_args(argv)
    for option, path in (("--out", args.out), ("--patients", args.patients)):
        if path is not None and path.suffix not in SUFFIXES:
            raise UserError(
                f"{option} {path}: the suffix {path.suffix or '(none)'} is not known.\nUse .csv or .parquet."
            )
    if args.patients is not None and args.patients.resolve() == args.out.resolve():
        raise UserError(f"--patients {args.patients} is --out, too.\nGive it another name.")
    check_writable("--out", args.out)
    if args.patients is not None:
        check_writable("--patients", args.patients)

    from maskedclip_composer.use.photographs import open_photographs

    photographs = open_photographs(args.photos, args.images)  # before torch loads a model: errors come at once
    from maskedclip_composer.evaluation.classifier_file import load_classifier
    from maskedclip_composer.use.prediction_table import check_columns, of_patients, write_patients, write_photographs

    classifier = load_classifier(args.model, device=device_of(args.device))
    check_columns(photographs.columns, classifier.facts, patients=args.patients is not None)
    _warn_of_preparation(photographs, classifier.facts)
    found = predict(photographs, classifier, batch_size=args.batch_size, workers=args.workers)
    patients = of_patients(found) if args.patients is not None else None  # before anything is written
    write_photographs(args.out, found, photographs.columns, classifier.facts)
    if patients is not None:
        write_patients(args.patients, patients, classifier.facts)
    return _summarise(found, args.out, strict=args.strict)


def predict(
    photographs: "Photographs", classifier: "TrainedClassifier", *, batch_size: int, workers: int = 0
) -> "list[Prediction]":
    """Classify every photograph that can be read.

    Args:
        photographs: What `open_photographs` returned.
        classifier: What `load_classifier` returned.
        batch_size: Photographs per forward pass; another one changes the last digits.
        workers: Processes that read; 0 reads in this one.

    Returns:
        One for each photograph, in their order.
    """
    from tqdm import tqdm

    from maskedclip_composer.use.photographs import batches
    from maskedclip_composer.use.prediction_table import Prediction

    transform = transform_of(classifier.facts)
    found: list[Prediction] = []
    with tqdm(total=len(photographs), desc="predict", unit=" images") as bar:
        for batch in batches(photographs, transform, batch_size=batch_size, workers=workers, device=classifier.device):
            rows = iter(classifier.probabilities(batch.images) if len(batch.images) else ())
            found += [Prediction(one, None if one.reason else next(rows)) for one in batch.photographs]
            bar.update(len(batch.photographs))
    return found


def transform_of(facts: "ClassifierFacts") -> "PhotographTransform":
    """Return the way from a photograph to a classifier's input: the preparation that its training photographs had.

    Where they had none, a photograph is only turned upright.
    """
    from maskedclip_composer.data.photograph import Recipe
    from maskedclip_composer.use.transform import PhotographTransform

    as_it_is = Recipe(size=0, crop=False, encoding="raw")
    return PhotographTransform(as_it_is if facts.recipe is None else facts.recipe, facts.image_size)


def _warn_of_preparation(photographs: "Photographs", facts: "ClassifierFacts") -> None:
    """Say where photographs may not look to the classifier as those that it was trained on."""
    from maskedclip_composer.use.prepared_shards import prepared_with

    if facts.recipe_source.startswith("assumed"):
        print(
            f"Warning: the preparation is {facts.recipe_source}; the default crop and size are used.", file=sys.stderr
        )
    prepared_with(photographs, facts.recipe, "the classifier")


def _summarise(found: "list[Prediction]", out: Path, *, strict: bool) -> int:
    unreadable = [one.photograph for one in found if one.probabilities is None]
    print(f"{len(found) - len(unreadable)} of {len(found)} photographs classified in {out}")
    if unreadable:
        print(f"Warning: {len(unreadable)} cannot be read:", file=sys.stderr)
        lines = [f"  {one.name}: {one.reason}" for one in unreadable[:_SHOWN]]
        print("\n".join(lines) + "\n  ..." * (len(unreadable) > _SHOWN), file=sys.stderr)
    return 1 if len(unreadable) == len(found) or (strict and unreadable) else 0
