"""How costs grow: memory with the batch, work with the texts, the loader's start with the data set.

OMP_NUM_THREADS=1 python benchmarks/growth.py --plots docs/performance; docs/performance.md explains tables and plots.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from contestants import Task
from growth_loader import ORDER, SHARES, Start, measure_all, order_seconds
from growth_step import contrastive_memory, exponent, line, memory_by_batch, text_cost
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from rounds import machine, print_table
from sizes import SIZES

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart with colour-blind eyes, too (Okabe and Ito)


@dataclass(frozen=True, kw_only=True)
class Points:
    """Where growth is measured."""

    sizes: str
    pairs: tuple[int, ...]
    texts: tuple[int, ...]
    lengths: tuple[int, ...]
    contrastive: tuple[int, ...]
    by_samples: tuple[tuple[int, int], ...]  # shards, samples of each
    by_shards: tuple[tuple[int, int], ...]
    ordered: tuple[tuple[int, int], ...]  # samples, of each shard


FULL = Points(
    sizes="bench-ti",
    pairs=(2, 4, 8, 12, 16),
    texts=(1, 2, 4, 8, 16, 32, 64),
    lengths=(8, 16, 32, 64, 128, 256),
    contrastive=(128, 256, 512, 1024, 2048),
    by_samples=((2, 1000), (20, 1000), (200, 1000)),
    by_shards=((150, 4), (1500, 4), (15000, 4)),
    ordered=((200_000, 1000), (2_000_000, 1000), (20_000_000, 1000)),
)
SMALL = Points(
    sizes="tiny",
    pairs=(2, 4, 8),
    texts=(1, 4, 16),
    lengths=(8, 32, 64),
    contrastive=(64, 128, 256),
    by_samples=((2, 32), (8, 32)),
    by_shards=((8, 16), (32, 16)),
    ordered=((2000, 10), (20_000, 10)),
)


def memory(task: Task, pairs: Sequence[int], plots: Path | None) -> None:
    """Print and draw memory against the device batch."""
    found = memory_by_batch(task, pairs)
    images = [2 * number for number in pairs]
    rows = []
    for name, values in found.items():
        kept, peaks = ([value[column] for value in values] for column in range(2))
        slope, _, residual = line(images, kept)
        peak_slope, base, peak_residual = line(images, peaks)
        cells = [f"{slope:.1f}", f"{residual:.1%}", f"{peak_slope:.1f}", f"{peak_residual:.1%}", f"{base:.0f}"]
        rows.append([name, *cells])
    print(f"Memory: {images} images, half of them paired, float32, no optimiser\n")
    header = ["step", "saved MiB an image", "off the line by", "peak MiB an image", "off the line by", "peak MiB at 0"]
    print_table(header, rows)
    axes = figure("images of the device batch", "MiB")
    for (name, values), colour in zip(found.items(), COLOURS, strict=False):
        axes.plot(images, [peak for _, peak in values], "o-", color=colour, label=f"{name}: peak resident")
        axes.plot(images, [kept for kept, _ in values], "s--", color=colour, label=f"{name}: saved for backward")
    axes.set_ylim(bottom=0)
    save(axes, plots, "memory", "Memory grows in line with the batch")


def texts(task: Task, numbers: Sequence[int], lengths: Sequence[int], rounds: int, plots: Path | None) -> None:
    """Print and draw text cost against texts and tokens."""
    by_number = [(number, 24) for number in numbers]
    by_length = [(8, length) for length in lengths]
    shapes = by_number + by_length
    costs = dict(zip(shapes, text_cost(task, shapes, rounds), strict=True))
    rows, axes = [], figure("tokens of distinct texts (texts x length)", "CPU ms, forward and backward")
    for (name, chosen), colour in zip(
        {"more texts of 24 tokens": by_number, "8 texts of more tokens": by_length}.items(), COLOURS, strict=False
    ):
        tokens = [number * length for number, length in chosen]
        flops, times = ([costs[shape][column] for shape in chosen] for column in range(2))
        slope, base, residual = line(tokens, times)
        cells = [f"{1000 * slope:.0f}", f"{base:.0f}", f"{residual:.0%}"]
        rows.append([name, f"{tokens[0]}-{tokens[-1]}", f"{exponent(tokens, flops):.3f}", *cells])
        axes.plot(tokens, times, "o-", color=colour, label=name)
    print("Text tower, forward and backward: FLOPs = a tokens^b; CPU time as a line\n")
    print_table(["what grows", "tokens", "b", "ms a 1,000 tokens", "ms at 0 tokens", "off the line by"], rows)
    axes.set_ylim(bottom=0)
    save(axes, plots, "texts", "Text cost follows the distinct tokens")


def contrast(pairs: Sequence[int], distinct: int, plots: Path | None) -> None:
    """Print and draw contrastive memory against pairs."""
    found = contrastive_memory(pairs, distinct)
    header = ["MiB kept by the loss", *(f"{number} pairs" for number in pairs), "exponent, last two"]
    rows, axes = [], figure("pairs of the global batch", "MiB kept by the label-guided loss")
    for (name, values), colour in zip(found.items(), COLOURS, strict=False):
        cells = [f"{value:.2f}" for value in values]
        rows.append([name, *cells, f"{exponent(pairs[-2:], values[-2:]):.2f}"])
        axes.plot(pairs, values, "o-", color=colour, label=name)
    print(f"Contrastive loss, {distinct} distinct texts, 512 wide, features included\n")
    print_table(header, rows)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    save(axes, plots, "contrastive", "Memory of the contrastive loss")


def loader(by_samples: Sequence[tuple[int, int]], by_shards: Sequence[tuple[int, int]], plots: Path | None) -> None:
    """Print and draw the loader's start against samples, shards and steps done."""
    with tempfile.TemporaryDirectory() as name:
        found = measure_all(Path(name), [*by_samples, *by_shards])
    header = ["samples", "shards", "open s", *(f"first batch s, {share:.0%} done" for share in SHARES)]
    print("Loader: CPU seconds, least of 3 (open: once)\n")
    print_table(header, [row(found[size]) for size in found])
    picture, both = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, sizes, what in zip(both, (by_samples, by_shards), ("samples", "shards"), strict=True):
        x = [getattr(found[size], what) for size in sizes]
        axes.plot(x, [found[size].open for size in sizes], "k^:", label="open")
        for number, share in enumerate(SHARES):
            y = [found[size].first_batch[number] for size in sizes]
            axes.plot(x, y, "o-", color=COLOURS[number], label=f"first batch, {share:.0%} of the epoch done")
        axes.set(xscale="log", yscale="log", xlabel=what, ylabel="CPU seconds")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", framealpha=0.9)
        axes.set_ylim(top=10 * max(found[size].open for size in sizes))
    picture.suptitle("Start and resume: the steps done do not matter")
    if plots is not None:
        picture.savefig(plots / "loader.png", dpi=110)
    plt.close(picture)


def order(sizes: Sequence[tuple[int, int]]) -> None:
    """Print the time that the order of an epoch takes."""
    print(f"Order of an epoch ({ORDER}): CPU seconds, once\n")
    seconds = {size: order_seconds(*size) for size in sizes}
    rows = [[f"{samples:,}", f"{found:.2f}", f"{1e9 * found / samples:.0f}"] for (samples, _), found in seconds.items()]
    print_table(["samples", "s", "ns a sample"], rows)


def row(start: Start) -> list[str]:
    """Write a row of the loader's table."""
    return [f"{start.samples:,}", f"{start.shards:,}", f"{start.open:.2f}", *(f"{s:.3f}" for s in start.first_batch)]


def figure(x: str, y: str) -> Axes:
    """Begin a plot."""
    _, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return axes


def save(axes: Axes, plots: Path | None, name: str, title: str) -> None:
    """Finish a plot and write it where plots are wanted."""
    axes.set_title(title)
    axes.legend(frameon=False)
    picture = axes.get_figure(root=True)
    assert picture is not None
    if plots is not None:
        picture.savefig(plots / f"{name}.png", dpi=110)
    plt.close(picture)


def main() -> None:
    """Measure all, or what is small enough for a test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write plots there")
    parser.add_argument("--small", action="store_true", help="sizes that take seconds, for a trial")
    args = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)
    if args.plots is not None:
        args.plots.mkdir(parents=True, exist_ok=True)
    chosen = SMALL if args.small else FULL
    print(f"Growth: {chosen.sizes}, {machine()}\n")
    # First, because it forks: nothing may have run backwards in this process.
    memory(Task(sizes=SIZES[chosen.sizes], pairs=4, texts=2, max_tokens=77), chosen.pairs, args.plots)
    texts(Task(sizes=SIZES[chosen.sizes], pairs=4, texts=2, max_tokens=77), chosen.texts, chosen.lengths, 3, args.plots)
    contrast(chosen.contrastive, 16, args.plots)
    loader(chosen.by_samples, chosen.by_shards, args.plots)
    order(chosen.ordered)


if __name__ == "__main__":
    main()
