"""Paired, interleaved rounds: what the benchmarks measure with, and how they print it."""

import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil
import torch

Name = TypeVar("Name")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """One run of a variant, in seconds."""

    cpu: float
    wall: float


def interleave(
    variants: Mapping[Name, Callable[[], object]], *, rounds: int, warmup: int = 1
) -> dict[Name, list[Cost]]:
    """Run every variant once in each round as `take_turns` does; return their costs by name."""
    timed = {name: partial(cost_of, variant) for name, variant in variants.items()}
    return take_turns(timed, rounds=rounds, warmup=warmup)


def take_turns(
    variants: Mapping[Name, Callable[[], Result]], *, rounds: int, warmup: int = 1
) -> dict[Name, list[Result]]:
    """Run every variant once in each round, each time starting with another one; return what they return by name.

    Other load on the machine then meets all variants of a round alike, so that quotients within a round are steadier
    than times.
    """
    names = list(variants)
    results: dict[Name, list[Result]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            result = variants[name]()
            if turn >= 0:
                results[name].append(result)
    return results


def cost_of(variant: Callable[[], object]) -> Cost:
    """Run a variant and return what it took."""
    begin = now()
    variant()
    return since(begin)


def now() -> Cost:
    """Return both clocks, for `since`."""
    return Cost(cpu=cpu_seconds(), wall=time.perf_counter())


def since(begin: Cost) -> Cost:
    """Return what has passed since `begin`."""
    end = now()
    return Cost(cpu=end.cpu - begin.cpu, wall=end.wall - begin.wall)


def cpu_seconds() -> float:
    """User and system time of this process with all its threads, of its children and of theirs."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    # process_time has nanoseconds where psutil has ticks of 10 ms, which would be too coarse for short variants.
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(times.user + times.system for times in alive)


def milliseconds(costs: Sequence[Cost], parts: int) -> str:
    """Write the CPU time of one of `parts` equal parts of a run."""
    values = [1000 * cost.cpu / parts for cost in costs]
    return spread(values, ".0f" if min(values) >= 100 else ".2f")


def quotients(costs: Sequence[Cost], reference: Sequence[Cost]) -> list[float]:
    """Divide the CPU times of `costs` by those of `reference`, round by round."""
    return [mine.cpu / theirs.cpu for mine, theirs in zip(costs, reference, strict=True)]


def times_faster(reference: Sequence[Cost], other: Sequence[Cost]) -> str:
    """Say how many times the CPU time of `other` fits into that of `reference`, round by round."""
    return spread(quotients(reference, other), ".2f")


def spread(values: Sequence[float], form: str) -> str:
    """Write the median and, in brackets, the least and the largest value."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def machine() -> str:
    """Describe the machine in a line: processor, cores, load of the last minute, torch."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, load {load:.1f}, torch {torch.__version__}, one thread"
