"""Photographs that are damaged, or were made to do harm."""

from pathlib import Path

from tests.drill.fault import Fault, Seen
from tests.fuzz.run import feed, files

SECONDS = 30


def hostile(folder: Path) -> Seen:
    """Prepare and decode damaged and hostile files for half a minute."""
    found = feed(files(seed=1), folder, seconds=SECONDS)
    what = f"{found.tried} files, {found.stored} of them pictures, peak {found.memory / 1e6:.0f} MB"
    return Seen(what="; ".join([what, *found.failures]), lost=len(found.failures), kept=not found.failures)


FAULTS = [
    Fault(
        name="damaged and hostile photographs",
        expected="a picture or a reason in quarantine for each; no crash, no hang, less than 1 GiB",
        within=SECONDS + 60,
        run=hostile,
    )
]
