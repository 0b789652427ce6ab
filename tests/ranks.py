"""Several ranks in processes forked from one that has imported everything: importing Composer takes longest."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

Work = Callable[..., None]


def run_ranks(
    work: Work,
    ranks: int,
    folder: Path,
    *,
    arguments: Sequence[str] = (),
    nodes: int = 1,
    grace: float = 0.0,
    within: float = 240.0,
) -> list[int]:
    """Call `work(folder, *arguments)` on every rank and return the exit statuses.

    When one fails the others of its machine are asked to end, as by Composer's launcher, and then all are killed.

    Args:
        work: A function of a module, or a partial of one; the module is imported once.
        ranks: How many; each has torch's variables for a process group.
        folder: Gets rank0.log and so on.
        arguments: Further ones.
        nodes: How many machines the ranks believe to be on.
        grace: Seconds that the others have to end when one has failed.
        within: Seconds after which all are killed.
    """
    context = multiprocessing.get_context("forkserver")
    # The first call decides for all of this process, the drill's included.
    context.set_forkserver_preload(["tests.drill.parts", _function(work).__module__])
    port = free_port()
    processes = [
        context.Process(target=_rank, args=(work, folder, arguments, rank, ranks, nodes, port)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    deadline, is_failed = time.monotonic() + within, False
    while any(p.exitcode is None for p in processes) and time.monotonic() < deadline:
        if not is_failed and any(p.exitcode for p in processes):
            deadline, is_failed = time.monotonic() + grace, True
            node = next(rank for rank, p in enumerate(processes) if p.exitcode) * nodes // ranks
            for process in processes[node * ranks // nodes : (node + 1) * ranks // nodes]:
                process.terminate()
        time.sleep(0.02)
    for process in processes:
        if process.exitcode is None:
            process.kill()
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


def _function(work: Work) -> Callable[..., None]:
    return work.func if isinstance(work, partial) else work


def _rank(work: Work, folder: Path, arguments: Sequence[str], rank: int, ranks: int, nodes: int, port: int) -> None:
    log = os.open(folder / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    local_ranks = ranks // nodes
    variables = {
        "RANK": rank,
        "WORLD_SIZE": ranks,
        "LOCAL_RANK": rank % local_ranks,
        "LOCAL_WORLD_SIZE": local_ranks,
        "NODE_RANK": rank // local_ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(value) for name, value in variables.items()}
    torch.set_num_threads(1)
    work(folder, *arguments)
