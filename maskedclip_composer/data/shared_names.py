"""One process of a machine at a time names Streaming's shared memory.

Leans on `_get_path`, `_unpack_locals` and the names of segments and locks of mosaicml-streaming 0.13.0.
"""

import fcntl
import itertools
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streaming.base.constant import BARRIER_FILELOCK, CACHE_FILELOCK, LOCALS, SHM_TO_CLEAN, TICK
from streaming.base.shared.prefix import _get_path, _unpack_locals
from streaming.base.world import World
from torch import distributed

from maskedclip_composer.errors import UserError

log = logging.getLogger(__name__)

# Where POSIX shared memory lies on Linux; other systems show no such folder.
SHM = Path("/dev/shm")
PATIENCE = 30.0
# Who opens its data waits meanwhile for its ranks on other machines, which may be waiting for their store.
TURN = 600.0


@contextmanager
def naming_alone(patience: float = PATIENCE, turn: float = TURN) -> Iterator[None]:
    """Hold the machine's lock while a StreamingDataset is constructed.

    Streaming looks for a free number and then takes it: of two runs that start at the same instant one would die of
    FileExistsError, or the ranks of one would disagree on the number. The lock is on a folder that every user of the
    machine can read, so it leaves no file behind and ends with the process that holds it.

    Args:
        patience: Seconds to wait for what a killed run has left to go.
        turn: Seconds to wait for another run that is opening its data.

    Raises:
        UserError: Another run keeps the lock, for example a stopped one; or left-over shared memory makes every
            number unusable.
    """
    leader = World.detect().is_local_leader
    descriptor = os.open(SHM if SHM.is_dir() else tempfile.gettempdir(), os.O_RDONLY) if leader else None
    try:
        if descriptor is not None:
            _lock(descriptor, turn)
            _wait_for_free_name(patience)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(descriptor: int, turn: float) -> None:
    deadline = time.monotonic() + turn
    warned = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(descriptor)
        if not warned:
            log.warning("another run of this machine (%s) is opening its data; waiting at most %g s", holder, turn)
            warned = True
        if time.monotonic() > deadline:
            raise UserError(
                f"data: another run of this machine ({holder}) has been opening its data for more than {turn:g} s; "
                "end it, or let it go on where it was stopped (kill -CONT), then start again"
            )
        time.sleep(TICK)


def _holder(descriptor: int) -> str:
    """Name the process that took the lock, by Linux's list of locks."""
    of = os.fstat(descriptor)
    file = f"{os.major(of.st_dev):02x}:{os.minor(of.st_dev):02x}:{of.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            _, *lock = line.split()  # FLOCK ADVISORY WRITE 1234 00:1a:1 0 EOF; of one that waits "->" comes before
            if lock[0] == "FLOCK" and lock[4] == file:
                return f"process {lock[3]}"
    return "process unknown"


def _wait_for_free_name(patience: float) -> None:
    """Wait until the number that Streaming is going to choose is free.

    It takes the highest of the numbers that are free for each kind of segment alone. While the segments of a killed run
    are being removed, or when some were left behind, that number can belong to a run that is alive.
    """
    deadline = time.monotonic() + patience
    while SHM.is_dir() and (name := SHM / _get_path(max(map(_first_free, SHM_TO_CLEAN)), LOCALS)).exists():
        if time.monotonic() > deadline:
            raise UserError(
                f"data: shared memory {name} is in use and a killed run has left segments below that number; "
                f"when no training runs on this machine, remove {SHM}/0*_* and start again"
            )
        time.sleep(TICK)


def _first_free(kind: str) -> int:
    """Return the number that Streaming would choose for this kind of segment, without opening any."""
    locks = Path(tempfile.gettempdir())
    return next(
        number
        for number in itertools.count()
        if not (SHM / _get_path(number, kind)).exists()
        and not any((locks / _get_path(number, lock)).exists() for lock in (BARRIER_FILELOCK, CACHE_FILELOCK))
    )


def remove_leftovers(number: int | None, folder: Path) -> None:
    """Remove the shared memory of a killed run that had this number, where it was a run on this cache folder.

    Streaming would refuse the folder as in use until somebody removes it by hand.

    Args:
        number: As the run has noted it; None where there was none.
        folder: The cache. The caller holds its lock, so that no living run has it.
    """
    if number is None:
        return
    try:
        folders, _ = _unpack_locals((SHM / _get_path(number, LOCALS)).read_bytes())
    except (OSError, ValueError, IndexError):  # removed as it should be, or another user's
        return
    if os.path.abspath(folder) not in folders:
        return
    log.warning("removing the shared memory that a killed run has left in %s", SHM / f"{number:06}_*")
    for path in [SHM / _get_path(number, kind) for kind in SHM_TO_CLEAN]:
        with suppress(OSError):
            path.unlink()
