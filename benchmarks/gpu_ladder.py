"""The training step on one GPU, variant by variant: first public code, then ours with one saving more on each rung.

    python benchmarks/gpu_ladder.py --pairs 180 --out ladder-180      # 180 paired and 180 unpaired images
    python benchmarks/gpu_ladder.py --pairs 90 --out ladder-90
    python benchmarks/gpu_ladder.py --pairs 12 --out ladder-12
    python benchmarks/gpu_ladder.py --only maxbatch --out ladder-max  # the largest batch of some rungs
    python benchmarks/gpu_ladder.py --cpu                             # whether it runs, at a tiny size

Every rung has the same weights, mask noise and batch; its losses must agree with the first rung's. OUT.json and OUT.md
are written after each rung, so that a run that is cut short leaves what it has. Useful FLOPs, the numerator of MFU, are
the same for all rungs: distinct texts, nothing computed twice, decoders over every patch.

It needs torch 2.7 or later, timm, transformers and jaxtyping, but neither Composer nor Streaming
(`without_composer.py`); its rungs of 8 bits need the extra `fp8`, that of xformers xformers. A rung that cannot run
says why and the next one follows.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import without_composer  # noqa: F401  # before anything that imports Composer
from budget import useful_flops
from contestants import Task
from ladder_table import DATASHEET, USEFUL, Row, goals, plain, table
from rungs import Rung, all_rungs, with_precision
from sizes import PLAIN, SIZES, typical_texts

WARMUP = 3  # steps
MAXBATCH = ("p0", "p1", "packed", "compiled", "budget", "full")


def measure(rung: Rung, task: Task, steps: int) -> Row:
    """Build a rung, warm it up and time `steps` steps."""
    cuda = task.device == "cuda"
    task = with_precision(task, rung)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    step = rung.build(task)
    begin = time.perf_counter()
    losses = {name: float(value) for name, value in step().items()}
    for _ in range(WARMUP - 1):
        step()
    if cuda:
        torch.cuda.synchronize()
    warmup = time.perf_counter() - begin
    times = [(on_gpu if cuda else on_cpu)(step) for _ in range(steps)]
    middle = statistics.median(times)
    return Row(
        key=rung.key,
        title=rung.title,
        median=middle,
        least=min(times),
        largest=max(times),
        images=2 * task.pairs / middle * 1000,
        flops=useful_flops(task.sizes, task.pairs, task.texts) / middle * 1000,
        peak=torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
        warmup=warmup,
        losses=losses,
    )


def on_gpu(step: Callable[[], object]) -> float:
    """Return the milliseconds of a step on the device."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream()
    begin.record(stream)
    step()
    end.record(stream)
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def on_cpu(step: Callable[[], object]) -> float:
    """Return the milliseconds of a step on the clock."""
    begin = time.perf_counter()
    step()
    return (time.perf_counter() - begin) * 1000


def matmul_rate(size: int = 8192, repeats: int = 10) -> float:
    """Return what this GPU reaches in a large bfloat16 product, in FLOP/s."""
    one, other = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        one @ other
    return 2 * size**3 * repeats / on_gpu(lambda: [one @ other for _ in range(repeats)]) * 1000


def largest_batch(rung: Rung, task: Task, deadline: float) -> Row:
    """Find how many pairs fit, to about 3 %, starting from the task's."""
    fits, too_many = 0, None
    pairs = task.pairs
    while time.monotonic() < deadline and (too_many is None or too_many - fits > max(1, fits // 32)):
        try:
            two_steps(rung, replace(task, pairs=pairs, texts=typical_texts(pairs), weights=None))
            fits = pairs
        except torch.OutOfMemoryError:
            too_many = pairs
        free()
        pairs = fits * 2 if too_many is None else (fits + too_many) // 2
    return Row(key=rung.key, title=rung.title, max_pairs=fits, error=None if too_many else "out of time")


def two_steps(rung: Rung, task: Task) -> None:
    """Run two steps: AdamW makes its moments at the end of the first, so that only the second holds all at once."""
    step = rung.build(with_precision(task, rung))
    step()
    step()


def free() -> None:
    """Give back what the last rung held, compiled code included."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def compare(row: Row, first: Row, tolerance: float) -> Row:
    """Add to a row how far its losses are from the first rung's."""
    assert row.losses is not None
    assert first.losses is not None
    # The distillation loss starts near 0, where a quotient says nothing: below a tenth the difference itself counts.
    differences = [abs(row.losses[key] - value) / max(abs(value), 0.1) for key, value in first.losses.items()]
    worst = float(np.max(differences))  # nan if there is one, which Python's max may pass over
    return replace(row, difference=worst, error=None if worst <= tolerance else f"MORE THAN {tolerance}")


def climb(args: argparse.Namespace) -> int:
    """Measure the rungs that were asked for; return the exit status."""
    deadline = time.monotonic() + args.seconds
    device = "cpu" if args.cpu else "cuda"
    task = Task(
        sizes=SIZES["tiny" if args.cpu else "paper"],
        pairs=args.pairs,
        texts=args.texts or typical_texts(args.pairs),
        max_tokens=77,
        device=device,
    )
    torch._dynamo.config.recompile_limit = 64  # one graph for each shape and mode of a block
    torch.manual_seed(0)
    matmul = 0.0 if args.cpu else matmul_rate()
    place = "CPU" if args.cpu else torch.cuda.get_device_name()
    tflop = useful_flops(task.sizes, task.pairs, task.texts) / 1e12
    title = f"{place}, torch {torch.__version__}, {args.pairs} + {args.pairs} images, {task.texts} texts"
    title += f", {tflop:.1f} useful TFLOP a step"
    if matmul:
        title += f", 8192^3 product {matmul / 1e12:.0f} TFLOP/s (data sheet {DATASHEET / 1e12:.0f})"
    print(title, flush=True)
    weights = {name: value.cpu().clone() for name, value in task.ours(PLAIN).net.state_dict().items()}
    free()
    task = replace(task, weights=weights)
    sweep = args.only == "maxbatch"
    wanted = MAXBATCH if sweep else args.only.split(",") if args.only else None
    rows: list[Row] = []
    for rung in all_rungs():
        if wanted is not None and rung.key not in wanted:
            continue
        if args.cpu and (rung.cuda or rung.compiled):
            row = Row(key=rung.key, title=rung.title, error="needs a GPU")
        elif time.monotonic() > deadline:
            row = Row(key=rung.key, title=rung.title, error="out of time")
        else:
            row = attempt(rung, task, args.steps, deadline if sweep else None)
            first = next((known for known in rows if known.losses), row)
            row = compare(row, first, rung.tolerance) if row.losses else row
        rows.append(row)
        print(json.dumps(plain([row])[0]), flush=True)
        if args.out:
            write(Path(args.out), title, args, matmul, rows)
    print("\n".join(["", *table(rows, matmul), "", USEFUL, "", *(goals(rows, args.pairs) if not sweep else [])]))
    return int(any(row.measured and row.error for row in rows))


def attempt(rung: Rung, task: Task, steps: int, sweep_until: float | None) -> Row:
    """Measure a rung; where it cannot run, say why."""
    try:
        return measure(rung, task, steps) if sweep_until is None else largest_batch(rung, task, sweep_until)
    except torch.OutOfMemoryError:
        return Row(key=rung.key, title=rung.title, error="out of memory")
    except Exception as error:  # one rung without its library or with a compiler's bug must not end the climb
        return Row(key=rung.key, title=rung.title, error=f"{type(error).__name__}: {error}".splitlines()[0][:160])
    finally:
        free()


def write(out: Path, title: str, args: argparse.Namespace, matmul: float, rows: list[Row]) -> None:
    """Write OUT.json and OUT.md."""
    found = {"title": title, "arguments": vars(args), "matmul": matmul, "rows": plain(rows)}
    out.with_suffix(".json").write_text(json.dumps(found, indent=1))
    lines = [title, "", *table(rows, matmul), "", USEFUL, "", *goals(rows, args.pairs), ""]
    out.with_suffix(".md").write_text("\n".join(lines))


def main() -> int:
    """Read the arguments and climb."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=180, help="and as many unpaired images (%(default)s)")
    parser.add_argument("--texts", type=int, help="different texts of the pairs (those of the paper's mix)")
    parser.add_argument("--steps", type=int, default=12, help="timed on each rung (%(default)s)")
    parser.add_argument("--only", default="", help="keys of rungs, with commas between, or maxbatch")
    parser.add_argument("--seconds", type=float, default=540, help="begin no rung after so long (%(default)s)")
    parser.add_argument("--out", default="", help="file name without ending")
    parser.add_argument("--cpu", action="store_true", help="tiny, on the CPU, without compiled rungs")
    args = parser.parse_args()
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if not args.cpu and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --cpu shows whether the ladder runs")
    return climb(args)


if __name__ == "__main__":
    sys.exit(main())
