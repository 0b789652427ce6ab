"""Index files of a division: one row per photograph with its part and the label fractions that hold it."""

import csv
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from data_prep.readers.dataset import Dataset
from data_prep.readers.division import PARTS
from data_prep.readers.read import Reading
from maskedclip_composer.data.subsets import FRACTIONS, below_common_folder, patient_key, smallest_fractions
from maskedclip_composer.errors import UserError

_NEEDED = ("image", "label", "split")


def index_name(dataset: Dataset, target: str) -> str:
    """Name the index of one labelling, without suffix."""
    return f"{dataset.name}-{target}" if len(dataset.targets) > 1 else dataset.name


def index_csv(reading: Reading, draws: int, root: Path | None = None) -> str:
    """Write the divided `reading` as a table, sorted by image.

    Images are named below the folder that all have in common. Several labels of one stand in its cell with `|` between
    them. `fraction_K` is the smallest label fraction that holds a training photograph in draw K: those that
    `evaluate.py` takes with this fraction and the seed K.

    Args:
        reading: Labelled rows with their splits.
        draws: Number of draws of label fractions.
        root: Resolved folder of the photographs, to add the sha256 of each.
    """
    rows = reading.rows
    train = [index for index, row in enumerate(rows) if row.split == "train"]
    fractions = [f"fraction_{draw}" for draw in range(draws)]
    held: dict[int, list[str]] = defaultdict(lambda: [""] * draws)
    if train and draws:
        targets = _one_hot([reading.labels[index] for index in train])
        names = [rows[index].image for index in train]
        patients = [patient_key(rows[index].dataset, rows[index].patient) for index in train]
        found = [smallest_fractions(targets, draw, names=names, patients=patients) for draw in range(draws)]
        held |= {index: [f"{draw[place]:g}" for draw in found] for place, index in enumerate(train)}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", "label", "patient", "split", *fractions, *["sha256"] * (root is not None)])
    names = below_common_folder([row.image for row in rows])
    for index in sorted(range(len(rows)), key=names.__getitem__):
        row = rows[index]
        digest = [] if root is None else [_sha256(root / row.image)]
        writer.writerow([names[index], reading.codes[index], row.patient, row.split, *held[index], *digest])
    return buffer.getvalue()


def index_json(
    reading: Reading, dataset: Dataset, target: str, table: str, *, seed: int, draws: int, notes: list[str]
) -> str:
    """Describe the index whose CSV is the text `table`; `notes` are those of the division."""
    counts = {name: Counter[str]() for name in PARTS}
    for row, labels in zip(reading.rows, reading.labels, strict=True):
        counts[row.split].update(labels)
    about = {
        "dataset": dataset.name,
        "title": dataset.title,
        "licence": dataset.licence,
        "source": dataset.source,
        "citation": dataset.citation,
        "target": target,
        "seed": seed,
        "label_fractions": list(FRACTIONS),
        "label_draws": list(range(draws)),
        "counts": {name: dict(sorted(of_part.items())) for name, of_part in counts.items()},
        "left_out": len(reading.left_out),
        "notes": notes,
        "sha256": hashlib.sha256(table.encode()).hexdigest(),
    }
    return json.dumps(about, indent=1, ensure_ascii=False) + "\n"


def apply_index(reading: Reading, dataset: Dataset, target: str, path: Path, root: Path) -> Reading:
    """Take the splits of the rows from the index at `path`; photographs that it does not name are left out.

    Raises:
        UserError: The index is damaged, of another data set or labelling, or does not fit the photographs.
    """
    if not path.is_file():
        raise UserError(f"--split-file {path}: no such file; `python -m data_prep split {dataset.name}` makes one")
    _check_description(path, dataset, target)
    places = _by_ending([row.image for row in reading.rows])
    splits: dict[int, str] = {}
    absent: list[tuple[int, str]] = []
    for number, cells in _cells(path):
        where = f"--split-file {path}: row {number}: {cells['image']!r}"
        if cells["split"] not in PARTS:
            raise UserError(f"{where} has split {cells['split']!r}; write train, val or test")
        found = places.get(cells["image"], [])
        if not found:
            absent.append((number, cells["image"]))
            continue
        if len(found) > 1:
            images = ", ".join(reading.rows[index].image for index in found[:3])
            raise UserError(f"{where} may be {images}; name it with more of its folders")
        (index,) = found
        if index in splits:
            raise UserError(f"{where} is named a second time; take one of the rows out")
        if cells["label"] != reading.codes[index]:
            raise UserError(
                f"{where} has label {cells['label']!r}, but {target} of {dataset.title} is {reading.codes[index]!r}; "
                "give the --target and the release that the index was made for"
            )
        if cells.get("sha256") and cells["sha256"] != _sha256(root / reading.rows[index].image):
            raise UserError(f"{where} is another file than the index was made for (sha256); get that release again")
        splits[index] = cells["split"]
    if absent:
        raise UserError(
            f"--split-file {path}: {len(absent)} of its photographs are not below {root} with a label, the first is "
            f"{absent[0][1]!r} in row {absent[0][0]}; complete the download, or make an index of what there is with "
            f"`python -m data_prep split {dataset.name}`"
        )
    rest = [row.image for index, row in enumerate(reading.rows) if index not in splits]
    kept = [index for index in range(len(reading.rows)) if index in splits]
    return replace(
        reading,
        rows=[replace(reading.rows[index], split=splits[index]) for index in kept],
        codes=[reading.codes[index] for index in kept],
        left_out=[*reading.left_out, *((image, f"is not in {path.name}") for image in rest)],
        notes=[*reading.notes, f"division: {path.name}"],
    )


def _one_hot(labels: list[tuple[str, ...]]) -> Bool[np.ndarray, "images classes"]:
    classes = sorted({label for of_row in labels for label in of_row})
    return np.array([[label in of_row for label in classes] for of_row in labels], dtype=bool)


def _check_description(path: Path, dataset: Dataset, target: str) -> None:
    description = path.with_suffix(".json")
    if not description.is_file():
        return
    try:
        about: Mapping[str, Any] = json.loads(description.read_bytes())
        expected = about["sha256"], about["dataset"], about["target"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{description}: does not describe an index ({error}); make both files again") from error
    found = _sha256(path), dataset.name, target
    if found[0] != expected[0]:
        raise UserError(
            f"--split-file {path}: is not the file that {description.name} describes (its sha256 is {found[0]}, not "
            f"{expected[0]}); get both again, or take the description away if the index was changed on purpose"
        )
    if found[1:] != expected[1:]:
        raise UserError(
            f"--split-file {path}: is for {expected[2]} of {expected[1]}, not for {target} of {dataset.name}; "
            "give another index, or another --target"
        )


def _cells(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if lacking:
                raise UserError(f"--split-file {path}: has no column {lacking[0]}; an index has image, label and split")
            cells = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--split-file {path}: cannot be read as CSV in UTF-8 ({error})") from error
    ragged = next((number for number, row in cells if None in row or None in row.values()), None)
    if ragged is not None:
        raise UserError(f"--split-file {path}: row {ragged} has not as many cells as the header; mend it")
    return cells


def _by_ending(images: list[str]) -> dict[str, list[int]]:
    """Map every path, and what is left of it without its first folders, to the images that end so."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        parts = image.split("/")
        for start in range(len(parts)):
            places["/".join(parts[start:])].append(index)
    return places


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
