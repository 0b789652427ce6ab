"""Rehearse every fault and print what became of it: python -m tests.drill [PART or words of a name ...].

On a terminal the table is drawn; into a file or a pipe it is written as Markdown.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # bit for bit is promised on a CPU
# Python's tracker of shared memory tells at the end what killed runs have left, which is what was rehearsed.
os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.drill.fault import Fault, rehearse
from tests.drill.parts import PARTS

HEADER = ("part", "fault", "expected", "seen", "seconds", "lost", "kept")
WIDTH = 200  # of what is seen, in the table; the whole of what breaks a promise follows it


def main(words: list[str]) -> int:
    """Rehearse the faults whose part or name has one of `words`, all without; return 1 where a promise was broken."""
    chosen = [
        (part, fault)
        for part, faults in PARTS.items()
        for fault in faults
        if not words or any(word in f"{part} {fault.name}" for word in words)
    ]
    if not chosen:
        print(f"tests.drill: no fault has {' or '.join(words)} in its name. Parts: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    rows: list[tuple[str, ...]] = []
    broken: list[tuple[Fault, str]] = []
    for number, (part, fault) in enumerate(chosen, 1):
        print(f"{number}/{len(chosen)} {part}: {fault.name} ... ", end="", file=sys.stderr, flush=True)
        seen, seconds = rehearse(fault)
        kept = seen.kept and seen.in_time
        verdict = "yes" if kept else "NO" if seen.in_time else "NOT IN TIME"
        print(f"{'kept' if kept else 'BROKEN'}, {seconds:.0f} s", file=sys.stderr, flush=True)
        short = seen.what if len(seen.what) <= WIDTH else f"{seen.what[:WIDTH]}…"
        rows.append((part, fault.name, fault.expected, short, f"{seconds:.0f}", str(seen.lost), verdict))
        if not kept:
            broken.append((fault, seen.what))
    _print_table(rows)
    for fault, what in broken:
        print(f"\nBroken: {fault.name}\n{what}")
    print(f"\n{len(chosen) - len(broken)} of {len(chosen)} promises kept")
    return 1 if broken else 0


def _print_table(rows: list[tuple[str, ...]]) -> None:
    if not sys.stdout.isatty():
        for row in (HEADER, ["---"] * len(HEADER), *rows):
            print(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |")
        return
    table = Table(*HEADER, show_lines=True)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
