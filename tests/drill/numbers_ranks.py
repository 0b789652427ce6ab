"""A step that is NaN on one of two ranks; Composer's launcher starts it: -m tests.drill.numbers_ranks FOLDER."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from composer.utils import dist, get_device

from tests import tiny
from tests.algorithms.spoilt_ranks import spoilt_runs
from tests.drill.fault import Seen

RANKS = 2


def skipped_and_stopped(folder: Path) -> Seen:
    """Start both ranks once, and look at what became of the spoilt step by either policy."""
    command = [sys.executable, "-m", "composer.cli", "-n", str(RANKS), "-m", "tests.drill.numbers_ranks", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return Seen(what=f"exit {done.returncode}: {done.stderr[-1000:]}", kept=False)
    results: dict[str, dict[str, Any]] = torch.load(folder / "results.pt", weights_only=False)
    told, lost, kept = [], 0, True
    for name, result in results.items():
        same = all(torch.equal(result["skipped"][key], value) for key, value in result["never had"].items())
        (fault,) = result["faults"]
        listed = {sample["id"] for report in fault["ranks"] for part in report["samples"].values() for sample in part}
        lost += len(set(range(8)) - listed)
        agree = result["loss alone"] == [1] * RANKS and len(set(result["messages"])) == 1
        kept &= same and agree and "the loss mim is nan on rank 1" in result["messages"][0]
        told.append(f"{name}: skipped {'bit for bit' if same else 'NOT'} as without the step; {result['messages'][0]}")
    return Seen(what=" ".join(told), lost=lost, kept=kept and not lost)


def main(folder: Path) -> None:
    """Run both ways to divide the work on this rank; the first writes what it found."""
    torch.set_num_threads(1)
    dist.initialize_dist(get_device("cpu"))
    shares = [tiny.share(tiny.batch(4, 4, seed), dist.get_global_rank(), RANKS) for seed in range(3)]
    results = {name: spoilt_runs(shares, fsdp=name == "FSDP2") for name in ("DDP", "FSDP2")}
    if dist.get_global_rank() == 0:
        torch.save(results, folder / "results.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
