"""Made-up fundus photographs with texts and labels: something to train on where there are no data, or none to show.

`DIR/paired.csv` and `DIR/unpaired.csv` are for pre-training and hold the same diseases in the same shares;
`DIR/downstream.csv` is a labelled set of five classes. Cells with several texts or labels separate them by ` | `.
`DIR/reports.csv` has the photographs of `paired.csv` again, each with one report of several sentences.
"""

import argparse
import csv
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from tqdm import tqdm

from data_prep.phantom.anatomy import Side
from data_prep.phantom.case import photograph, sample_cases
from data_prep.phantom.diagnoses import (
    CATARACT,
    DIAGNOSES,
    GLAUCOMA,
    MACULAR_DEGENERATION,
    MODERATE,
    NORMAL,
    SEVERE,
    describe,
)
from data_prep.phantom.report_text import write_report
from data_prep.synthetic_folder import RECORD, clear, is_finished
from maskedclip_composer.errors import UserError

SetName = Literal["paired", "unpaired", "downstream"]

SETS: dict[SetName, list[str]] = {
    "paired": ["image", "text", "label", "patient", "eye", "split"],
    "unpaired": ["image", "patient", "eye", "split"],
    "downstream": ["image", "label", "patient", "eye", "split"],
}
REPORT_COLUMNS = ["image", "text", "text_kind", "patient", "eye", "split"]
# Haze is left out: it changes the colours of the whole picture, and a histogram would tell it.
DOWNSTREAM_CLASSES = (NORMAL, MODERATE, SEVERE, GLAUCOMA, MACULAR_DEGENERATION)
# Five eighths train, one validation, two test; each class runs through it, so small sets have every class everywhere.
SPLIT_CYCLE = ("train", "test", "train", "val", "train", "train", "test", "train")

AGREEMENT = 0.7  # chance that the fellow eye is given the same diagnosis on purpose
COMORBIDITY = 0.1

SEPARATOR = " | "
VERSION = 2  # raise when what a seed gives changes
JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What to write.

    Attributes:
        paired: Number of photographs with texts.
        unpaired: Number without.
        downstream: Number of labelled ones.
        size: Width and height in pixels.
        seed: Of everything that is drawn.
    """

    paired: int = 400
    unpaired: int = 1200
    downstream: int = 400
    size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in SETS:
            if getattr(self, name) < 0:
                raise UserError(f"--{name} is {getattr(self, name)}: give 0 or more photographs.")
        if self.paired + self.unpaired + self.downstream == 0:
            raise UserError("--paired, --unpaired and --downstream are all 0: nothing to write.")
        if not 64 <= self.size <= 2048:
            raise UserError(f"--size is {self.size}: give 64 to 2048 pixels.")
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}: give 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One patient's job: independent of all others, so that any worker may draw it."""

    dataset: SetName
    number: int
    eyes: tuple[Side, ...]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `synthetic` command."""
    default = SyntheticConfig()
    parser = subparsers.add_parser(
        "synthetic",
        help="draw fundus photographs with texts and labels",
        description="Draw fundus photographs with diseases, texts and labels. The same seed gives the same files.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, new or empty")
    parser.add_argument("--paired", type=int, default=default.paired, help="photographs with texts (%(default)s)")
    parser.add_argument("--unpaired", type=int, default=default.unpaired, help="photographs alone (%(default)s)")
    parser.add_argument("--downstream", type=int, default=default.downstream, help="labelled photographs (%(default)s)")
    parser.add_argument("--size", type=int, default=default.size, help="width and height in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of everything drawn (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes; the result does not depend on it (%(default)s)"
    )
    parser.add_argument(
        "--baseline",
        action="store_true",
        help="then print how well colour histograms alone solve the downstream set",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the sets the arguments of `add_parser` ask for; returns the exit status."""
    config = SyntheticConfig(
        paired=args.paired, unpaired=args.unpaired, downstream=args.downstream, size=args.size, seed=args.seed
    )
    if args.baseline and config.downstream < 80:
        raise UserError(
            f"--baseline needs --downstream 80 or more, found {config.downstream}: a smaller test split is noise."
        )
    written = write_synthetic(args.out, config, workers=args.workers, progress=True)
    print(f"{args.out}: {'written' if written else 'already there, same settings'}")
    if args.baseline:
        from data_prep.histogram_probe import histogram_probe  # scikit-learn: keep it out of the drawing workers

        score = histogram_probe(args.out / "downstream.csv")
        print(f"colour histograms alone: macro AUROC {score:.3f} on the downstream test split (0.5 is chance)")
    return 0


def write_synthetic(out: Path, config: SyntheticConfig, *, workers: int = 1, progress: bool = False) -> bool:
    """Write `out/images/*.jpg` and one CSV for each set that is not empty.

    The folder is written beside as `out.partial` and renamed when it is whole.

    Args:
        out: Folder to make; may exist if it is empty.
        config: What to write.
        workers: Processes; 1 draws in this one.
        progress: Show a bar.

    Returns:
        False where `out` already holds the result of the same settings, which is then left alone.

    Raises:
        UserError: `out` or `out.partial` holds something else.
    """
    if workers < 1:
        raise UserError(f"--workers is {workers}: give 1 or more.")
    record = {"version": VERSION, **asdict(config)}
    if is_finished(out, record):
        return False
    partial_out = out.with_name(out.name + ".partial")
    clear(partial_out)
    (partial_out / "images").mkdir(parents=True)
    # Written first: it tells the next run that the unfinished folder may be removed.
    (partial_out / RECORD).write_text(json.dumps(record, indent=2) + "\n")

    patients = list(plan_patients(config))
    draw = partial(_write_patient, config=config, images=partial_out / "images")
    rows: dict[SetName, list[dict[str, str]]] = {name: [] for name in SETS}
    with tqdm(total=sum(len(patient.eyes) for patient in patients), unit="image", disable=not progress) as bar:
        for patient, found in zip(patients, _map(draw, patients, workers), strict=True):
            rows[patient.dataset] += found
            bar.update(len(found))
    tables = {name: (columns, rows[name]) for name, columns in SETS.items()}
    reports = [row | {"text": row["report"], "text_kind": "sentence"} for row in rows["paired"]]
    for name, (columns, lines) in (tables | {"reports": (REPORT_COLUMNS, reports)}).items():
        if lines:
            with (partial_out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(lines)
    if out.exists():
        out.rmdir()
    partial_out.rename(out)
    return True


def plan_patients(config: SyntheticConfig) -> Iterator[Patient]:
    """The patients of all sets; nearly all show both eyes. A longer set begins with the shorter one's patients."""
    for dataset in SETS:
        wanted, number = getattr(config, dataset), 0
        while wanted > 0:
            # The eyes follow from the number alone: the other eye of every eighth patient was not photographed.
            eyes: tuple[Side, ...] = ("left", "right") if number % 8 != 7 else ("right",)
            eyes = eyes[:wanted]
            yield Patient(dataset=dataset, number=number, eyes=eyes)
            wanted, number = wanted - len(eyes), number + 1


def _map(
    function: Callable[[Patient], list[dict[str, str]]], patients: list[Patient], workers: int
) -> Iterable[list[dict[str, str]]]:
    if workers == 1:
        yield from map(function, patients)
        return
    # Forking a process that has threads (OpenCV's, torch's) may hang.
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield from pool.map(function, patients, chunksize=8)


def _write_patient(patient: Patient, config: SyntheticConfig, images: Path) -> list[dict[str, str]]:
    seed = np.random.SeedSequence([config.seed, list(SETS).index(patient.dataset), patient.number])
    choice, drawing, wording, reporting = seed.spawn(4)
    diagnoses = _diagnose(patient, np.random.default_rng(choice))
    # Two generators, so that the short texts of a seed are what they were before there were reports.
    words, report_words = np.random.default_rng(wording), np.random.default_rng(reporting)
    name = f"{patient.dataset}-{patient.number:05d}"
    rows = []
    for case in sample_cases(drawing, diagnoses):
        path = images / f"{name}_{case.eye.side}.jpg"
        picture = cv2.cvtColor(photograph(case, config.size), cv2.COLOR_RGB2BGR)
        if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise UserError(f"{path}: cannot be written; is the disk full?")
        row = {"image": f"images/{path.name}", "patient": name, "eye": case.eye.side, "split": "train"}
        if patient.dataset == "paired":
            texts = describe(list(case.diagnoses), list(case.lesions), case.eye, words)
            row["text"] = SEPARATOR.join(text for text, _ in texts)
            labels = [label for _, label in texts]
            row["label"] = labels[0] if len(set(labels)) == 1 else SEPARATOR.join(labels)
            row["report"] = write_report(list(case.diagnoses), list(case.lesions), case.eye, report_words)
        elif patient.dataset == "downstream":
            row["label"] = case.diagnoses[0]
            row["split"] = SPLIT_CYCLE[patient.number // len(DOWNSTREAM_CLASSES) % len(SPLIT_CYCLE)]
        rows.append(row)
    return rows


def _diagnose(patient: Patient, rng: np.random.Generator) -> dict[Side, tuple[str, ...]]:
    """Choose what the eyes have: the two of a patient mostly agree; in pre-training some have two diseases.

    Both eyes are drawn even where one is shown, so that it does not change with the length of its set.
    """
    sides: tuple[Side, ...] = ("left", "right")
    if patient.dataset == "downstream":
        names, weights = DOWNSTREAM_CLASSES, np.ones(len(DOWNSTREAM_CLASSES))
        main = names[patient.number % len(names)]
    else:
        names, weights = tuple(DIAGNOSES), np.array([diagnosis.weight for diagnosis in DIAGNOSES.values()])
        main = str(rng.choice(names, p=weights / weights.sum()))
    first = int(rng.integers(2))
    chosen: dict[Side, tuple[str, ...]] = {}
    for side in sides:
        fellow = main if rng.random() < AGREEMENT else str(rng.choice(names, p=weights / weights.sum()))
        name = main if side == sides[first] else fellow
        extra = str(rng.choice([GLAUCOMA, CATARACT, MACULAR_DEGENERATION]))
        both = patient.dataset != "downstream" and name not in (NORMAL, extra) and rng.random() < COMORBIDITY
        chosen[side] = (name, extra) if both else (name,)
    return {side: chosen[side] for side in patient.eyes}
