"""How memory and work of a step grow with the device batch, the texts, and the pairs of the contrastive loss."""

import multiprocessing
import resource
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from contestants import Step, Task
from gates import OURS, contrastive_bytes, saved
from rounds import cpu_seconds
from sizes import PLAIN, build_network

from maskedclip_composer.costs.counts import count_flops

VARIANTS: dict[str, Callable[[Task], Step]] = {
    "peer P0": lambda task: task.peer("explicit"),
    "peer P1": lambda task: task.peer("sdpa"),
    "ours": lambda task: task.ours(OURS),
}


def memory_by_batch(task: Task, pairs: Sequence[int]) -> dict[str, list[tuple[float, float]]]:
    """Return, for each variant and number of pairs, MiB saved for the backward pass and peak resident MiB.

    Each measurement is a process of its own, because a peak never falls. Parameters and gradients are in the resident
    memory, the optimiser's state is not: no step is taken.
    """
    # Forked, so that imports are not paid for each time; autograd's threads must not have run in this process before.
    processes = multiprocessing.get_context("fork")
    found: dict[str, list[tuple[float, float]]] = {}
    for name in VARIANTS:
        found[name] = []
        for number in pairs:
            texts = min(number, task.texts)
            with processes.Pool(1) as pool:
                found[name].append(pool.apply(_memory, (name, replace(task, pairs=number, texts=texts))))
    return found


def _memory(name: str, task: Task) -> tuple[float, float]:
    torch.manual_seed(0)
    step = VARIANTS[name](task)
    step.gradients()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return saved(step) / 2**20, peak


def text_cost(task: Task, shapes: Sequence[tuple[int, int]], rounds: int) -> list[tuple[float, float]]:
    """Return GFLOP and CPU milliseconds of E_T, forward and backward, for each (texts, tokens)."""
    torch.manual_seed(0)
    encoder = build_network(task.sizes, PLAIN).net.text_encoder
    assert encoder is not None

    def run(texts: int, tokens: int) -> None:
        ids = torch.randint(5, task.sizes.words, (texts, tokens))
        encoder(ids, torch.ones_like(ids)).square().mean().backward()

    costs = []
    for shape in shapes:
        run(*shape)
        times = []
        for _ in range(rounds):
            begin = cpu_seconds()
            run(*shape)
            times.append(1000 * (cpu_seconds() - begin))
        costs.append((count_flops(lambda shape=shape: run(*shape)) / 1e9, statistics.median(times)))
    return costs


def contrastive_memory(pairs: Sequence[int], texts: int) -> dict[str, list[float]]:
    """Return MiB that the label-guided loss keeps, over distinct texts and over all pairs."""
    variants = {"distinct texts": OURS, "all pairs": PLAIN}
    return {
        name: [contrastive_bytes(compute, number, texts) / 2**20 for number in pairs]
        for name, compute in variants.items()
    }


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Fit a line; return its slope, where it meets 0, and the largest residual relative to the largest value."""
    slope, base = np.polyfit(x, y, 1)
    residual = np.abs(np.polyval([slope, base], x) - y).max() / np.max(y)
    return float(slope), float(base), float(residual)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Fit y = a x^b; return b."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
