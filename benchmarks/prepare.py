"""CPU and clock time per photograph of `data_prep manifest` against a plain loop, over the same files in one run.

Both sides are processes of their own, so that each pays for its imports.

OMP_NUM_THREADS=1 python benchmarks/prepare.py; docs/performance.md explains the table.
"""

import argparse
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from rounds import interleave, machine, milliseconds, print_table, spread, times_faster
from streaming import MDSWriter

from data_prep.phantom.case import photograph, sample_cases
from data_prep.phantom.diagnoses import NORMAL

PEER = "plain loop"
TARGET = 512


def draw(folder: Path, images: int, distinct: int, size: int) -> None:
    """Save `distinct` phantoms with the detail of a photograph under `images` names."""
    folder.mkdir(parents=True)
    files = [folder / f"{number:05d}.jpg" for number in range(images)]
    for number, file in enumerate(files):
        if number >= distinct:
            os.link(files[number % distinct], file)
            continue
        case = sample_cases(np.random.SeedSequence([number]), {"left": [NORMAL]})[0]
        # Drawn at 1024 pixels at the most, which is slow enough, then enlarged.
        picture = Image.fromarray(photograph(case, min(size, 1024))).resize((size, size), Image.Resampling.BICUBIC)
        picture.save(file, quality=90, subsampling="4:2:0")


def plain_loop(files: Sequence[Path], out: Path) -> None:
    """Open, resize, save, write: what a script of twenty lines does. It crops and checks nothing."""
    shutil.rmtree(out, ignore_errors=True)
    with MDSWriter(out=str(out), columns={"image": "bytes", "source": "str"}, hashes=["xxh64"]) as writer:
        for file in files:
            image = Image.open(file).convert("RGB")
            scale = TARGET / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=90)
            writer.write({"image": buffer.getvalue(), "source": file.name})


def ours(folder: Path, out: Path, workers: int) -> None:
    """Run the command as a user does; its start-up is part of the time."""
    command = [sys.executable, "-m", "data_prep", "manifest", "--images", str(folder), "--out", str(out)]
    command += ["--size", str(TARGET), "--overwrite", "--workers", str(workers)]
    subprocess.run(command, check=True, capture_output=True)


def peak_megabytes(work: Callable[[], object]) -> float:
    """Return the largest sum of resident memory of the processes that `work` starts."""
    this, peak, done = psutil.Process(), 0, threading.Event()

    def total() -> int:
        found = 0
        for process in this.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += process.memory_info().rss
        return found

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, total())

    thread = threading.Thread(target=watch)
    thread.start()
    work()
    done.set()
    thread.join()
    return peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 3000], help="pixels (%(default)s)")
    parser.add_argument("--images", type=int, default=600, help="files of each size (%(default)s)")
    parser.add_argument("--plain", nargs=2, type=Path, metavar=("IMAGES", "OUT"), help="only run the plain loop")
    parser.add_argument("--distinct", type=int, default=16, help="different ones among them (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    args = parser.parse_args()
    if args.plain:
        plain_loop(sorted(args.plain[0].iterdir()), args.plain[1])
        return
    print(f"Preparation: {machine()}; {args.images} JPEGs of each size, {args.rounds} rounds\n", flush=True)
    header = ["pixels", "variant", "CPU ms a photograph", "times faster (CPU)", "times faster (clock)", "peak MiB"]
    for size in args.sizes:
        rows = []
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            draw(root / "images", args.images, args.distinct, size)
            plain = [sys.executable, __file__, "--plain", str(root / "images"), str(root / "plain")]
            variants: dict[str, Callable[[], object]] = {PEER: partial(subprocess.run, plain, check=True)}
            for workers in (1, 2):
                label = f"data_prep, {workers} process{'es' if workers > 1 else ''}"
                variants[label] = partial(ours, root / "images", root / "out", workers)
            costs = interleave(variants, rounds=args.rounds)
            for label, work in variants.items():
                clock = [a.wall / b.wall for a, b in zip(costs[PEER], costs[label], strict=True)]
                rows.append(
                    [
                        size,
                        label,
                        milliseconds(costs[label], args.images),
                        times_faster(costs[PEER], costs[label]),
                        spread(clock, ".2f"),
                        f"{peak_megabytes(work):.0f}",
                    ]
                )
        print_table(header, rows)


if __name__ == "__main__":
    main()
