"""Rehearse every fault and print what became of it: python -m tests.drill [PART or words of a name ...]."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # bit for bit is promised on a CPU

from rich.console import Console
from rich.table import Table

from tests.drill.fault import Fault, rehearse
from tests.drill.parts import PARTS

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
    table = Table("part", "fault", "expected", "seen", "seconds", "lost", "kept", show_lines=True)
    broken: list[tuple[Fault, str]] = []
    for part, fault in chosen:
        print(f"{part}: {fault.name} ...", flush=True)
        seen, seconds = rehearse(fault)
        short = seen.what if len(seen.what) <= WIDTH else f"{seen.what[:WIDTH]}…"
        kept = seen.kept and seen.in_time
        verdict = "yes" if kept else "NO" if seen.in_time else "NOT IN TIME"
        table.add_row(part, fault.name, fault.expected, short, f"{seconds:.0f}", str(seen.lost), verdict)
        if not kept:
            broken.append((fault, seen.what))
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    for fault, what in broken:
        print(f"\nBroken: {fault.name}\n{what}")
    print(f"\n{len(chosen) - len(broken)} of {len(chosen)} promises kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
