"""Drawn photographs whose retina is known, shard readers and a way to run the command line."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from streaming.base.format import reader_from_json

from data_prep.__main__ import main


def retina(
    width: int = 160, height: int = 120, centre: tuple[int, int] | None = None, radius: int = 50, surround: int = 0
) -> Image.Image:
    """A textured, unevenly lit reddish disc on a dark or white surround."""
    image = Image.new("RGB", (width, height), (surround,) * 3)
    x, y = centre or (width // 2, height // 2)
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(180, 90, 50))
    pixels = np.asarray(image).astype(float)
    if surround == 0:
        pixels *= np.linspace(0.8, 1.2, width)[:, None]  # no eye is lit evenly
    noise = np.random.default_rng(width * height + x + radius).integers(-8, 9, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def save_retinas(folder: Path, count: int, **options: Any) -> list[str]:
    """Save `count` different photographs as 0.jpg, 1.jpg, ...; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        retina(radius=30 + number % 20, centre=(60 + number, 60)).save(folder / f"{number}.jpg", quality=92, **options)
    return [f"{number}.jpg" for number in range(count)]


def write_csv(path: Path, rows: list[dict[str, str]], encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def samples(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder of shards, in the order of its index."""
    return list(_samples(folder))


def _samples(folder: Path) -> Iterator[dict[str, Any]]:
    for shard in json.loads((folder / "index.json").read_bytes())["shards"]:
        reader = reader_from_json(str(folder), None, shard)
        yield from (reader[number] for number in range(len(reader)))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
