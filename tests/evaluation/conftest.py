import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streaming import MDSWriter

from maskedclip_composer.data.schema import COLUMNS

SIZES = {"train": 36, "val": 18, "test": 21}
LABELS = ("2", "10", "1")  # as strings "10" < "2", as numbers 1 < 2 < 10
SEVERAL = (("D",), ("G",), ("D", "G"), ("N",))  # labels of a photograph
TINY = "random:vit_tiny_patch16_224"


def photograph(label: str | tuple[str, ...], rng: np.random.Generator) -> bytes:
    """A noisy picture whose colour tells its label or labels; N adds none."""
    channels = [LABELS.index(label)] if isinstance(label, str) else ["DG".index(each) for each in label if each != "N"]
    pixels = rng.normal(110, 25, (40, 48, 3))
    pixels[..., channels] += 60
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_mds(
    folder: Path,
    labels: Sequence[str] | Sequence[tuple[str, ...]],
    images: list[bytes],
    patients: list[str] | None = None,
    **options,
) -> None:
    """Labelled records; multilabel ones where `labels` holds tuples."""
    patients = patients or [str(index) for index in range(len(labels))]
    multilabel = not isinstance(labels[0], str)
    with MDSWriter(out=str(folder), columns=COLUMNS["multilabel" if multilabel else "labelled"], **options) as writer:
        for index, (label, image) in enumerate(zip(labels, images, strict=True)):
            row = {"image": image, "width": 48, "height": 40, "dataset": "toy", "patient": patients[index], "eye": ""}
            row |= {
                "split": folder.name,
                "source": f"{index}.png",
                "sha256": hashlib.sha256(image).hexdigest(),
                "crop": {},
            }
            writer.write(row | ({"labels": list(label)} if multilabel else {"label": label}))


def write_grades(root: Path) -> Path:
    """Three splits of photographs with one label each."""
    rng = np.random.default_rng(0)
    for split, size in SIZES.items():
        labels = [LABELS[index % 3] for index in range(size)]
        write_mds(root / split, labels, [photograph(label, rng) for label in labels], size_limit=20_000)
    return root


def write_several(root: Path) -> Path:
    """Labels D and G, together or alone, and N; every patient has two photographs in train."""
    rng = np.random.default_rng(1)
    for split, size in SIZES.items():
        labels = [SEVERAL[index % 4] for index in range(size)]
        patients = [str(index // 2 if split == "train" else index) for index in range(size)]
        write_mds(root / split, labels, [photograph(label, rng) for label in labels], patients, size_limit=20_000)
    return root


@pytest.fixture(scope="session")
def mds(tmp_path_factory) -> Path:
    return write_grades(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def multilabel_mds(tmp_path_factory) -> Path:
    return write_several(tmp_path_factory.mktemp("several"))
