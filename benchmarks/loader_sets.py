"""The photographs that the loaders read, once as files and in the shards of each library."""

import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from streaming import MDSWriter

from data_prep.phantom.case import photograph, sample_cases
from data_prep.phantom.diagnoses import DIAGNOSES
from data_prep.photograph import Photograph, prepare
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.data.schema import COLUMNS


def draw(folder: Path, images: int, distinct: int, size: int) -> list[Path]:
    """Draw `distinct` phantoms and save them under `images` names; drawing takes longer than all that is measured."""
    folder.mkdir(parents=True)
    files = []
    for number in range(images):
        files.append(folder / f"{number:05d}.jpg")
        if number >= distinct:
            shutil.copyfile(files[number % distinct], files[-1])
            continue
        diagnosis = list(DIAGNOSES)[number % len(DIAGNOSES)]
        case = sample_cases(np.random.SeedSequence([number]), {"left": [diagnosis]})[0]
        Image.fromarray(photograph(case, size)).save(files[-1], quality=90, subsampling="4:2:0")
    return files


def write_shards(files: Sequence[Path], folder: Path) -> None:
    """Put the files as they are into the shards of an unpaired stream."""
    _write(((file.name, prepare(str(file), Recipe(size=0, crop=False))) for file in files), folder)


def write_pixels(files: Sequence[Path], folder: Path, size: int) -> None:
    """Put their pixels there, as `data_prep ... --encoding raw --size` does."""
    _write(((file.name, prepare(str(file), Recipe(size=size, crop=False, encoding="raw"))) for file in files), folder)


def write_pairs(files: Sequence[Path], categories: Sequence[str], folder: Path) -> None:
    """Put the files as they are into the shards of a paired stream; each has the next of `categories` for its text."""
    texts = [{"texts": [name], "labels": [name], "text_kinds": ["category"]} for name in categories]
    photographs = ((file.name, prepare(str(file), Recipe(size=0, crop=False))) for file in files)
    _write(photographs, folder, [texts[number % len(texts)] for number in range(len(files))])


def _write(
    photographs: Iterable[tuple[str, Photograph | str]],
    folder: Path,
    texts: Sequence[dict[str, list[str]]] | None = None,
) -> None:
    kind = "unpaired" if texts is None else "paired"
    empty = {"dataset": "phantom", "patient": "", "eye": "", "split": "train", "crop": {"status": "none", "box": None}}
    with MDSWriter(out=str(folder), columns=COLUMNS[kind], hashes=["xxh64"]) as writer:
        for number, (name, found) in enumerate(photographs):
            assert isinstance(found, Photograph), found
            size = {"width": found.width, "height": found.height}
            size |= texts[number] if texts is not None else {}
            writer.write(empty | size | {"image": found.data, "source": name, "sha256": found.sha256})


def write_litdata(files: Sequence[Path], folder: Path) -> None:
    """Write the same bytes as litdata's optimised chunks, with the columns that the transform reads."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for number, file in enumerate(files):
        writer[number] = {"image": file.read_bytes(), "dataset": "phantom", "source": file.name}
    writer.done()
    writer.merge()


def write_webdataset(files: Sequence[Path], folder: Path) -> None:
    """Write the same bytes as tar files."""
    from webdataset import ShardWriter

    folder.mkdir()
    with ShardWriter(str(folder / "%04d.tar"), maxcount=-(-len(files) // 4), verbose=0) as writer:
        for file in files:
            writer.write({"__key__": file.stem, "jpg": file.read_bytes()})


def encoded_kilobytes(files: Sequence[Path]) -> float:
    """Return the mean size of the files."""
    return sum(file.stat().st_size for file in files) / len(files) / 1000


def pixels_of(file: Path) -> np.ndarray:
    """Return a file's pixels as PIL decodes them."""
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        return np.asarray(image)
