"""What Composer's Trainer adds to the bare training step, and what the loader adds to that.

OMP_NUM_THREADS=1 python benchmarks/trainer.py                    # bench-ti on a CPU, CPU time; nothing is judged
python benchmarks/trainer.py --size paper --pairs 180 --steps 20  # a GPU, time on the clock; exits 1 on a missed goal

Every variant takes the same batches in the same order, and their losses must agree: the bare step, a loop of our own
over batches in memory; Composer's Trainer with the algorithms, callbacks and schedule of a run, over the same batches
in memory; another Trainer fed by `build_loader` from shards; and the loader alone. Not part of it: MLflow, pictures,
checkpoints, the encoder's export. On a GPU batches in memory are on the GPU, so that the copies count for the shards.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer.core import DataSpec
from rounds import machine, print_table, spread, take_turns
from sizes import SIZES
from trainer_blocks import Bench, Ready, Watch

from maskedclip_composer.data.config import DataConfig
from maskedclip_composer.data.loader import num_samples_in_batch, refuse_to_split

BARE, MEMORY, SHARDS, ALONE = "bare step", "Trainer, batches in memory", "Trainer, from shards", "loader alone"
GOALS = ((MEMORY, BARE, 1.05), (SHARDS, MEMORY, 1.03))
COMPARED = 4  # steps whose losses must agree
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2}  # relative, of losses; on CUDA in bfloat16


def variants(bench: Bench, data: DataConfig) -> dict[str, Callable[[], Watch]]:
    """Write the shards, read the batches and build what is measured."""
    spec = bench.loader(data)
    loader: Any = spec.dataloader

    def again() -> None:
        loader.dataset.next_epoch = 0  # the same batches in each block

    move = partial(_moved, device=bench.device)
    batches = [move(batch) for batch in loader]
    assert len(batches) == bench.lead + bench.steps
    ready = DataSpec(
        Ready(batches, 2 * bench.pairs),
        split_batch=refuse_to_split,  # pyright: ignore[reportArgumentType]
        get_num_samples_in_batch=num_samples_in_batch,  # pyright: ignore[reportArgumentType]
    )
    from_shards = bench.trainer(data, spec, "shards")

    def shards() -> Watch:
        again()
        return from_shards()

    def alone() -> Watch:
        again()
        watch = bench.new_watch()
        for done, _ in enumerate(loader, 1):
            watch.lap(done)
        return watch

    return {BARE: bench.bare(batches), MEMORY: bench.trainer(data, ready, "memory"), SHARDS: shards, ALONE: alone}


def _moved(batch: Any, device: str) -> Any:
    return {name: {key: value.to(device) for key, value in part.items()} for name, part in batch.items()}


def check_losses(blocks: dict[str, Watch], tolerance: float) -> float:
    """Return the largest relative difference of a loss from the bare step's; refuse one above `tolerance`.

    Of the first steps: the optimiser has moved the weights in them, and rounding has not led far apart.
    """
    bare = np.array(blocks[BARE].losses[:COMPARED])
    found = np.array([blocks[name].losses for name in (MEMORY, SHARDS)])[:, :COMPARED]
    worst = float(np.max(np.abs(found / bare - 1)))  # nan if there is one, which Python's max may pass over
    if not worst <= tolerance:
        raise AssertionError(f"losses differ by {worst:.1e}, more than {tolerance:.0e}: {blocks}")
    return worst


def report(times: dict[str, list[float]], what: str, *, judged: bool) -> bool:
    """Print the table, the goals, and milliseconds in place of quotients; return whether the goals are met."""

    def beside(name: str, other: str) -> list[float]:
        return [mine / theirs for mine, theirs in zip(times[name], times[other], strict=True)]

    rows = []
    for name, own in times.items():
        quotients = [spread(beside(name, other), ".3f") for other in (BARE, MEMORY, SHARDS)]
        rows.append([name, spread([1000 * value for value in own], ".1f"), *quotients])
    print_table(["what", f"{what} ms a step", "/ bare step", "/ Trainer in memory", "/ Trainer from shards"], rows)
    holds = True
    for name, other, limit in GOALS:
        found = beside(name, other)
        kept = statistics.median(found) <= limit
        holds &= kept
        verdict = ("ok" if kept else "MISSED") if judged else "shown, not judged on a CPU"
        more = [1000 * (mine - theirs) for mine, theirs in zip(times[name], times[other], strict=True)]
        print(f"goal: {name} / {other} <= {limit}: {spread(found, '.3f')}, {spread(more, '+.1f')} ms, {verdict}")
    return holds or not judged


def main() -> int:
    """Read the sizes, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="bench-ti", help="of the network (%(default)s)")
    parser.add_argument("--pairs", type=int, default=4, help="and as many unpaired images (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a block (%(default)s)")
    parser.add_argument("--lead", type=int, default=1, help="steps before them, from 1 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each variant (%(default)s)")
    parser.add_argument("--workers", type=int, help="loader processes (0 on a CPU, 8 on a GPU)")
    parser.add_argument("--pixels", type=int, default=512, help="width and height of the photographs (%(default)s)")
    parser.add_argument("--distinct", type=int, default=16, help="different photographs (%(default)s)")
    args = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    workers = args.workers if args.workers is not None else 8 * on_gpu
    if not on_gpu:
        torch.set_num_threads(1)
    place = f"{torch.cuda.get_device_name()}, {machine()}" if on_gpu else machine()
    with tempfile.TemporaryDirectory() as name, Path(name, "console").open("w") as console:
        bench = Bench(
            sizes=SIZES[args.size],
            pairs=args.pairs,
            lead=max(1, args.lead),
            steps=args.steps,
            device=device,
            workers=workers,
            folder=Path(name),
            console=console,
        )
        built = variants(bench, bench.write_data(args.pixels, args.distinct))
        worst = check_losses({name: built[name]() for name in (BARE, MEMORY, SHARDS)}, TOLERANCE[device])
        print(f"Trainer: {args.size}, {args.pairs} + {args.pairs} images, {workers} loader processes, {place}.")
        print(f"{args.rounds} rounds of {args.steps} steps. Their losses agree within {worst:.0e}.\n")
        blocks = take_turns(built, rounds=args.rounds)
    pick = (lambda cost: cost.wall) if on_gpu else (lambda cost: cost.cpu)
    times = {
        name: [pick(block.cost) / args.steps for block in found if block.cost is not None]
        for name, found in blocks.items()
    }
    return 0 if report(times, "clock" if on_gpu else "CPU", judged=on_gpu) else 1


if __name__ == "__main__":
    sys.exit(main())
