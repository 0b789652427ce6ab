"""Divide ODIR-5K's patients: one half to pre-train on, the other to evaluate on.

python benchmarks/odir_halves.py ROOT OUT writes OUT/pairs.csv, a table of pairs for `data_prep manifest`, and
OUT/downstream.txt, the patients of the other half, one a line: a downstream task made of them shares no patient with
pre-training.
"""

import csv
import sys
from pathlib import Path

from data_prep.readers.catalogue import find
from data_prep.readers.read import read
from maskedclip_composer.data.subsets import draw_key

SEED = 17


def main(root: Path, out: Path) -> None:
    """Write both files."""
    rows = read(find("odir5k"), root.resolve(), kind="paired").rows
    patients = sorted({row.patient for row in rows}, key=lambda patient: draw_key(SEED, patient))
    downstream = set(patients[len(patients) // 2 :])
    out.mkdir(parents=True, exist_ok=True)
    with (out / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "text", "text_kind", "label", "patient", "eye", "dataset"))
        for row in rows:
            if row.patient not in downstream:
                said = ("|".join(part) for part in (row.texts, row.kinds, row.labels))
                table.writerow((row.image, *said, row.patient, row.eye, row.dataset))
    (out / "downstream.txt").write_text("".join(f"{patient}\n" for patient in sorted(downstream, key=int)))
    print(f"{len(patients) - len(downstream)} patients to pre-train on, {len(downstream)} to evaluate on: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
