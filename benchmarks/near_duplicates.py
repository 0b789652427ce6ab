"""How well the perceptual hash tells copies apart: FUNDUS_DATA=FOLDER python benchmarks/near_duplicates.py

Copies are made of every photograph; the others are all pairs of different photographs, the two eyes of a patient among
them. Byte-identical files count once.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from tqdm import tqdm

from data_prep.fingerprint import NEAR, distances, perceptual_hash
from maskedclip_composer.data.folders import walk_images
from maskedclip_composer.data.retina import find_retina

LIMITS = (16, 24, 32, 40, 48, 56, 64, 72, 80)


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def trimmed(image: Image.Image) -> Image.Image:
    x, y = round(0.02 * image.width), round(0.02 * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 50": lambda image: encoded(image, 50),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "2 % trimmed all round": trimmed,
    "brightness +15 %": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "contrast -15 %": lambda image: ImageEnhance.Contrast(image).enhance(0.85),
    "all of these": lambda image: encoded(
        ImageEnhance.Brightness(trimmed(image).resize((image.width // 2, image.height // 2))).enhance(0.85), 70
    ),
}


def cropped(image: Image.Image) -> Image.Image:
    crop = find_retina(image)
    return image.crop(crop.box) if crop.status == "cropped" else image


def main() -> None:
    root = Path(os.environ["FUNDUS_DATA"])
    seen, names, hashes = set(), [], []
    copies: dict[str, list[int]] = {name: [] for name in COPIES}
    files = [name for name in walk_images(root) if not name.startswith("prep_samples/")]
    for name in tqdm(files, unit="image"):
        data = (root / name).read_bytes()
        digest = hashlib.sha256(data).digest()
        if digest in seen:
            continue
        seen.add(digest)
        image = cropped(Image.open(io.BytesIO(data)).convert("RGB"))
        own = np.frombuffer(perceptual_hash(image), np.uint8)
        for kind, make in COPIES.items():
            copy = np.frombuffer(perceptual_hash(cropped(make(image))), np.uint8)
            copies[kind].append(int(distances(copy[None], own)[0]))
        names.append(name)
        hashes.append(own)
    table = np.stack(hashes)
    near = [
        (int(d), i, j + i + 1) for i in range(len(table)) for j, d in enumerate(distances(table[i + 1 :], table[i]))
    ]
    others = np.array([pair[0] for pair in near])
    print(f"{len(names)} different files, {len(others):,} pairs of them; NEAR = {NEAR}\n")
    print("| share within ... bits | " + " | ".join(map(str, LIMITS)) + " |")
    print("| --- " * (len(LIMITS) + 1) + "|")
    for kind, found in copies.items():
        print(f"| copy: {kind} | " + " | ".join(f"{np.mean(np.array(found) <= limit):.4f}" for limit in LIMITS) + " |")
    print("| pairs of different files | " + " | ".join(str(int((others <= limit).sum())) for limit in LIMITS) + " |")
    eyes = [pair for pair in near if _patient(names[pair[1]]) and _patient(names[pair[1]]) == _patient(names[pair[2]])]
    of_patient = np.array([pair[0] for pair in eyes])
    print(
        "| of these: two eyes of a patient | " + " | ".join(str(int((of_patient <= n).sum())) for n in LIMITS) + " |\n"
    )
    print("nearest pairs of different files:")
    for distance, i, j in sorted(near)[:25]:
        print(f"  {distance:3} {names[i]}  {names[j]}")


def _patient(name: str) -> str:
    found = re.search(r"(\d+)_(left|right)\.jpg$", name)
    return f"odir {found[1]}" if found else ""


if __name__ == "__main__":
    main()
