import csv
import json
import shutil
from pathlib import Path

import pytest

from maskedclip_composer.__main__ import main
from tests.data_prep.drawing import retina
from tests.data_prep.drawing import run as data_prep

GOOD = ["a b/left eye.jpg", "a b/ü 右.png", "c.JPG", "d.tif"]
"""In the order of their paths."""


def draw(folder: Path) -> Path:
    """Four photographs whose names are no plain words, one that is cut short, and what is none."""
    for number, name in enumerate(GOOD):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        retina(200, 160, radius=45 + 5 * number).save(path)
    (folder / "broken.jpg").write_bytes((folder / GOOD[0]).read_bytes()[:500])
    (folder / ".hidden.jpg").write_bytes((folder / GOOD[0]).read_bytes())
    (folder / "notes.txt").write_text("no photograph")
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """A folder of photographs; `broken.jpg` comes third of five."""
    return draw(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def table(photographs, tmp_path_factory) -> Path:
    """A table of them without the broken one, in another order."""
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "text"])
        for number, name in enumerate(reversed(GOOD)):
            writer.writerow([name, f"class {number}", "=HYPERLINK(1), ödem"])
    return path


@pytest.fixture(scope="session")
def prepared(photographs, table, tmp_path_factory) -> Path:
    """The shards that data_prep makes of the table."""
    out = tmp_path_factory.mktemp("prepared") / "set"
    options = ["--csv", table, "--images", photographs, "--out", out, "--kind", "labelled", "--workers", "1"]
    assert data_prep("manifest", *options) == 0
    return out


def prepared_at(size: int, prepared: Path, to: Path) -> Path:
    """A copy of the shards whose report tells another size."""
    folder = to / "shards"
    shutil.copytree(prepared, folder)
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(report | {"options": report["options"] | {"size": size}}))
    return folder


def embed(photos, out, model, *options) -> int:
    arguments = ["embed", photos, "--out", out, "--model", model, "--batch-size", "2", "--workers", "0"]
    arguments += ["--device", "cpu", *options]
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def index(photographs, run_folder, tmp_path_factory) -> Path:
    """What `embed` writes of the folder."""
    out = tmp_path_factory.mktemp("embedded") / "index.parquet"
    assert embed(photographs, out, run_folder) == 0
    return out
