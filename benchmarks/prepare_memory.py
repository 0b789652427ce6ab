"""Peak memory of a conversion against its rows, without photographs: python benchmarks/prepare_memory.py

Every row is read from a CSV file, planned, "converted" to the same JPEG of 8 pixels, written to shards and to the
manifest. Each number of rows runs in a process of its own.
"""

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

from PIL import Image

from data_prep import convert
from data_prep.__main__ import main as data_prep
from data_prep.photograph import Photograph
from data_prep.quality import Quality
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.data.retina import Crop


def photographs(paths: Iterable[str], recipe: Recipe, workers: int) -> Iterator[Photograph]:
    """Stand in for `pool.prepare_in_order`."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "maroon").save(buffer, "JPEG")
    quality = Quality(sharpness=0.1, brightness=0.5, clipped=0.0, field=0.9)
    for path in paths:
        name = path.encode()[-32:]
        yield Photograph(
            data=buffer.getvalue(),
            width=8,
            height=8,
            original_size=(8, 8),
            sha256=name.hex().ljust(64, "0"),
            phash=name.ljust(32),
            quality=quality,
            crop=Crop(status="full", box=None),
            verbatim=True,
        )


def convert_rows(count: int) -> None:
    """Convert so many rows and print the seconds and the peak in MiB."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        with (root / "rows.csv").open("w", encoding="utf-8") as file:
            file.write("image,text,patient,eye\n")
            file.writelines(
                f"folder/{n:07}.jpg,finding {n % 997},p{n // 2},{'left' if n % 2 else 'right'}\n" for n in range(count)
            )
        arguments = ["--csv", str(root / "rows.csv"), "--images", str(root / "images"), "--out", str(root / "out")]
        start = time.perf_counter()
        with mock.patch.object(convert, "prepare_in_order", photographs):
            assert data_prep(["manifest", *arguments]) == 0
        seconds = time.perf_counter() - start
    print(f"{seconds:.0f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="(%(default)s)")
    parser.add_argument("--one", type=int, help="convert so many rows in this process")
    args = parser.parse_args()
    if args.one is not None:
        convert_rows(args.one)
        return
    print("| rows | seconds | peak MiB |\n| --- | --- | --- |")
    for count in args.rows:
        command = [sys.executable, __file__, "--one", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, peak = done.stdout.splitlines()[-1].split()
        print(f"| {count:,} | {seconds} | {peak} |", flush=True)


if __name__ == "__main__":
    main()
