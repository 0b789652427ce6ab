"""Feed files to a process that may die of them, and say which it died of."""

import multiprocessing
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.pictures import cut, hostile, mutated, whole
from tests.fuzz.victim import Judge, judge, serve

PATIENCE = 30.0  # seconds for one file, on a busy machine; most take a hundredth
MOST_MEMORY = 1 << 30  # bytes more than the libraries take; the largest photograph that is read takes 1 GB


@dataclass
class Findings:
    """What came of the files.

    Attributes:
        tried: Files.
        stored: Of them, those that became a record; the others got a reason.
        memory: Bytes at the peak, more than before the first file.
        failures: What a file did that it must not, and where it was kept.
    """

    tried: int = 0
    stored: int = 0
    memory: int = 0
    failures: list[str] = field(default_factory=list)


def files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and files: whole ones, hostile ones, cut ones, then mutated ones without end."""
    sound, evil = whole(), hostile()
    yield from ((f"whole {number}", data) for number, data in enumerate(sound))
    yield from evil.items()
    yield from ((f"cut {number}", data) for number, data in enumerate(cut(sound)))
    rng = random.Random(seed)
    # Not the large ones: each would be the same again at a hundred times the cost.
    parents = sound + [data for data in evil.values() if 0 < len(data) < 2000]
    number = 0
    while True:
        yield f"mutated {number} of seed {seed}", mutated(parents, rng)
        number += 1


def feed(
    given: Iterable[tuple[str, bytes]],
    folder: Path,
    *,
    seconds: float = float("inf"),
    patience: float = PATIENCE,
    judge: Judge = judge,
) -> Findings:
    """Feed the files to a child until they or the seconds are at an end; a child that dies or hangs is replaced."""
    found, end = Findings(), time.monotonic() + seconds
    child = None
    for name, data in given:
        if time.monotonic() > end:
            break
        child = child or _Child(folder, judge)
        found.tried += 1
        wrong, stored, memory = child.ask(data, patience)
        found.stored += stored
        found.memory = max(found.memory, memory)
        if not wrong and memory > MOST_MEMORY:
            wrong = f"takes {memory / 1e6:.0f} MB"
        if wrong:
            kept = folder / f"failure-{len(found.failures)}"
            kept.write_bytes(data)
            found.failures.append(f"{name}: {wrong} ({kept})")
            child.end()
            child = None  # one failure must not hide the next
    if child is not None:
        child.end()
    return found


def quick(seed: int, mutations: int) -> Iterator[tuple[str, bytes]]:
    """Return all files of `files` that do not come by chance, and so many that do."""
    mutants = 0
    for name, data in files(seed):
        mutants += name.startswith("mutated")
        if mutants > mutations:
            return
        yield name, data


class _Child:
    def __init__(self, folder: Path, judge: Judge) -> None:
        # Forked from one that has imported everything and has no threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, folder, judge), daemon=True)
        self._process.start()
        theirs.close()
        self._before: int = self._ours.recv()

    def ask(self, data: bytes, patience: float) -> tuple[str, bool, int]:
        try:
            self._ours.send(data)
            if not self._ours.poll(patience):
                return f"hangs for more than {patience:.0f} s", False, 0
            wrong, stored, peak = self._ours.recv()
        except (EOFError, OSError):
            self._process.join()
            return f"its process died ({self._process.exitcode})", False, 0
        return wrong, stored, peak - self._before

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._ours.close()
