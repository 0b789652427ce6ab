import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streaming import MDSWriter

from maskedclip_composer.data.schema import COLUMNS

SIZES = {"train": 36, "val": 18, "test": 21}
LABELS = ("2", "10", "1")  # as strings "10" < "2", as numbers 1 < 2 < 10
TINY = "random:vit_tiny_patch16_224"


def photograph(label: str, rng: np.random.Generator) -> bytes:
    """A noisy picture whose colour tells its label."""
    pixels = rng.normal(110, 25, (40, 48, 3))
    pixels[..., LABELS.index(label)] += 60
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_mds(
    folder: Path, labels: list[str], images: list[bytes], patients: list[str] | None = None, **options
) -> None:
    patients = patients or [str(index) for index in range(len(labels))]
    with MDSWriter(out=str(folder), columns=COLUMNS["labelled"], **options) as writer:
        for index, (label, image) in enumerate(zip(labels, images, strict=True)):
            row = {"image": image, "width": 48, "height": 40, "dataset": "toy", "patient": patients[index], "eye": ""}
            writer.write(
                row | {"split": folder.name, "source": f"{index}.png", "sha256": "", "crop": {}, "label": label}
            )


@pytest.fixture(scope="session")
def mds(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("toy"), np.random.default_rng(0)
    for split, size in SIZES.items():
        labels = [LABELS[index % 3] for index in range(size)]
        write_mds(root / split, labels, [photograph(label, rng) for label in labels], size_limit=20_000)
    return root
