"""A folder with everything in it that the pages' commands speak of, in small."""

import shutil
from pathlib import Path

from data_prep.__main__ import main as data_prep
from data_prep.fixtures.command import write
from tests.data_prep.drawing import save_retinas, write_csv
from tests.docs.commands import ROOT

SETS = ("odir5k", "idrid", "eyepacs")
CLASSES = ("normal", "glaucoma")


def make_workspace(folder: Path) -> Path:
    """Lay out photographs, tables, downloads of public sets and their shards; return the folder."""
    for name in ("yamls", "benchmarks", "docs", "train.py", "evaluate.py"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "data" / "demo" / "downstream").mkdir(parents=True)
    names = save_retinas(folder, 6)
    for place in ("photos", "more_photos", "graded"):
        save_retinas(folder / place, 6)
    rows = [
        {
            "image": name,
            "patient": f"p{index}",
            "label": CLASSES[index % 2],
            "split": ("train", "val", "test")[index // 2],
        }
        for index, name in enumerate(names)
    ]
    write_csv(folder / "graded.csv", rows)
    write_csv(folder / "photos.csv", [{"image": row["image"], "label": row["label"]} for row in rows[:4]])
    write_csv(folder / "pairs.csv", [{"image": name, "text": f"text {index}"} for index, name in enumerate(names)])
    write_csv(folder / "findings.csv", [{"image": name, "label": "D|O"} for name in names])
    for label in CLASSES:
        save_retinas(folder / "classes" / label, 4)
    for name in SETS:
        write(name, folder / "downloads" / name)
    (folder / "downloads" / "odir").symlink_to(folder / "downloads" / "odir5k")
    (folder / "fundus").mkdir()
    for name, place in (
        ("paired_odir", "downloads/odir5k"),
        ("downstream_idrid", "downloads/idrid"),
        ("unpaired", "photos"),
    ):
        shutil.copytree(folder / place, folder / "fundus" / name)
    for name in SETS:
        done = data_prep(["prepare", name, "--root", f"{folder}/downloads/{name}", "--out", f"{folder}/shards/{name}",
                          "--size", "64", "--workers", "1"])  # fmt: skip
        assert done == 0
    table = ["--csv", f"{folder}/pairs.csv", "--images", f"{folder}/photos", "--size", "64", "--workers", "1"]
    assert data_prep(["manifest", *table, "--out", f"{folder}/shards/paired"]) == 0
    return folder
