"""What a reader of docs/start.md has: a folder `photos/` and a table `photos.csv` that names some of it."""

import csv
import os
import shutil
from itertools import islice
from pathlib import Path

import pytest

from data_prep.synthetic import SyntheticConfig, write_synthetic
from tests.data_prep.drawing import write_csv

_GRADES = ("no diabetic retinopathy", "mild diabetic retinopathy", "moderate diabetic retinopathy",
           "severe diabetic retinopathy", "proliferative diabetic retinopathy")  # fmt: skip
_REAL = os.environ.get("FUNDUS_DATA")

SOURCES = [
    pytest.param("real", marks=[pytest.mark.real_data, pytest.mark.skipif(not _REAL, reason="FUNDUS_DATA is not set")]),
    pytest.param("drawn", marks=pytest.mark.skipif(bool(_REAL), reason="real photographs are at hand")),
]
"""Real photographs (IDRiD, and HRF and others without label) where there are any, otherwise drawn ones."""


def lay_out(source: str, folder: Path, *, labelled: int, bare: int) -> int:
    """Write `photos/` and `photos.csv` in `folder`; return how many photographs the table names."""
    rows = _real(folder, labelled, bare) if source == "real" else _drawn(folder, labelled, bare)
    write_csv(folder / "photos.csv", rows)
    return len(rows)


def _real(folder: Path, labelled: int, bare: int) -> list[dict[str, str]]:
    """Take as many of each grade as there are, in turn."""
    assert _REAL is not None
    root, photos = Path(_REAL), folder / "photos"
    photos.mkdir()
    by_grade: list[list[str]] = [[] for _ in _GRADES]
    for row in _table(root / "ccby_variant" / "paired.csv"):
        by_grade[int(row["grade"])].append(row["path"])
    turns = ((paths[turn], grade) for turn in range(labelled) for grade, paths in enumerate(by_grade) if paths[turn:])
    taken = list(islice(turns, labelled))
    unlabelled = [row["path"] for row in _table(root / "ccby_variant" / "unpaired.csv")[:bare]]
    for path in [*(path for path, _ in taken), *unlabelled]:
        shutil.copy(root / path, photos)
    return [{"image": Path(path).name, "label": _GRADES[grade]} for path, grade in taken]


def _drawn(folder: Path, labelled: int, bare: int) -> list[dict[str, str]]:
    write_synthetic(folder / "drawn", SyntheticConfig(paired=1, unpaired=max(bare, 1), downstream=labelled, size=96))
    (folder / "drawn" / "images").rename(folder / "photos")
    rows = _table(folder / "drawn" / "downstream.csv")
    named = {Path(row["image"]).name for row in rows} | {
        Path(row["image"]).name for row in _table(folder / "drawn" / "unpaired.csv")[:bare]
    }
    for path in (folder / "photos").iterdir():
        if path.name not in named:
            path.unlink()
    return [{"image": Path(row["image"]).name, "label": row["label"], "patient": row["patient"]} for row in rows]


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
