"""Several ranks in processes forked from one that has imported everything: importing Composer takes longest."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import torch

Work = Callable[[Path], None]


def run_ranks(work: Work, ranks: int, folder: Path, *, within: float = 240.0) -> list[int]:
    """Call `work(folder)` on every rank and return the exit statuses; when one fails, the others are killed.

    Args:
        work: A function of a module, which is imported once.
        ranks: How many; each has torch's variables for a process group.
        folder: Gets rank0.log and so on.
        within: Seconds after which all are killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    port = free_port()
    processes = [context.Process(target=_rank, args=(work, folder, rank, ranks, port)) for rank in range(ranks)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + within
    while any(p.exitcode is None for p in processes) and not any(p.exitcode for p in processes):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    for process in processes:
        process.kill() if process.exitcode is None else None
        process.join()
    return [process.exitcode or 0 for process in processes]


def results_of(work: Work, ranks: int, folder: Path) -> dict:
    """Run `work` on every rank and return what rank 0 has saved as results.pt."""
    statuses = run_ranks(work, ranks, folder)
    tails = [(folder / f"rank{rank}.log").read_text()[-3000:] for rank in range(ranks)]
    assert statuses == [0] * ranks, "\n".join(tails)
    return torch.load(folder / "results.pt", weights_only=False)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _rank(work: Work, folder: Path, rank: int, ranks: int, port: int) -> None:
    log = os.open(folder / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    work(folder)
