"""Faults of a stream's folder on this machine."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.drill.epoch import SLACK, Epoch, config, write_shards
from tests.drill.fault import Fault, Seen
from tests.drill.faulty_s3 import faulty_s3
from tests.drill.streams_remote import GOES_ON, SHARD, flipped

Each = Callable[[Path, int], None]


def goes_on(
    folder: Path, *, each: Each | None = None, before: Callable[[Path], None] | None = None, **keys: Any
) -> Seen:
    """Fill a cache where it is to be damaged `before`, then read an epoch, damaged after `each` batch."""
    what, lost, kept = [], 0, True
    with faulty_s3() as s3:
        s3.fill(write_shards(folder / "set"))
        for workers in (0, 2):
            at = folder / f"cache{workers}"
            if before is not None:
                Epoch(data=config(at), workers=0).go_on()
                before(at)
            epoch = Epoch(data=config(at, **keys), workers=workers)
            if each is not None:
                epoch.each = partial(each, at)
            said = epoch.go_on()
            what.append(said or f"read to the end with {workers} loader processes in {epoch.seconds:.0f} s")
            lost += epoch.lost
            kept &= said is None and epoch.is_whole
    return Seen(what="; ".join(what), lost=lost, kept=kept)


def wipe_after_two(at: Path, batches: int) -> None:
    if batches == 2:
        shutil.rmtree(at)


def flip_a_byte(at: Path) -> None:
    (at / SHARD).write_bytes(flipped((at / SHARD).read_bytes()))


def truncate(at: Path) -> None:
    os.truncate(at / SHARD, 1000)


def in_place(folder: Path, *, damage: Callable[[Path], None], says: tuple[str, ...], at_batch: int = 0) -> Seen:
    """Damage a shard that is read in place, before or while it is; bring it back and read on."""
    what, lost, kept, in_time = "", 0, True, True
    for workers in (0, 2):
        at = write_shards(folder / f"set{workers}")
        whole = (at / SHARD).read_bytes()
        epoch = Epoch(data=config(None, str(at)), workers=workers)
        if at_batch:
            epoch.each = lambda batches, at=at: damage(at) if batches == at_batch else None
        else:
            damage(at)
        said = epoch.go_on()
        in_time &= epoch.seconds < SLACK
        (at / SHARD).write_bytes(whole)
        epoch.each = lambda batches: None
        again = epoch.go_on()
        fine = said is not None and all(word in said for word in says) and again is None
        what = what or str(said)
        lost += epoch.lost
        kept &= fine and epoch.is_whole
        if not fine:
            what = f"with {workers} loader processes: {said}; then: {again}"
    return Seen(what=what, lost=lost, kept=kept, in_time=in_time)


def remove(at: Path) -> None:
    (at / SHARD).unlink()


def disk_is_full(folder: Path) -> Seen:
    """Put the cache on a file system of 32 KB, of this process alone; then on a larger one."""
    libc = ctypes.CDLL(None, use_errno=True)
    at = folder / "cache"
    at.mkdir()
    new_user, new_mounts = 0x10000000, 0x00020000
    if libc.unshare(new_mounts if os.getuid() == 0 else new_user | new_mounts):
        return Seen(what="not rehearsed: it needs the right to mount a file system", kept=False)
    subprocess.run(["mount", "--make-rprivate", "/"], check=False)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(at)], check=True)
    with faulty_s3() as s3:
        s3.fill(write_shards(folder / "set"))
        what, lost, kept, in_time = "", 0, True, True
        for workers in (0, 2):
            epoch = Epoch(data=config(at), workers=workers)
            said = epoch.go_on()
            what = what or str(said)
            fine = (
                said is not None
                and "shard " in said
                and "No space left on device" in said
                and f"free space in {at}" in said
            )
            kept &= fine
            in_time &= epoch.was_in_time
            subprocess.run(["mount", "-o", "remount,size=1m", str(at)], check=True)
            again = epoch.go_on()
            kept &= again is None and epoch.is_whole
            lost += epoch.lost
            for file in at.glob("shard*"):
                file.unlink()
            subprocess.run(["mount", "-o", "remount,size=32k", str(at)], check=True)
    return Seen(what=what, lost=lost, kept=kept, in_time=in_time)


def limit_is_too_small(folder: Path) -> Seen:
    at = write_shards(folder / "set")
    epoch = Epoch(data=config(folder / "cache", str(at), cache_limit="9kb"), workers=0)
    said = epoch.go_on()
    epoch.data = config(folder / "cache", str(at))
    again = epoch.go_on()
    kept = said is not None and "data.cache_limit = 9kb" in said and again is None
    return Seen(what=str(said), lost=epoch.lost, kept=kept and epoch.is_whole)


def fault(name: str, expected: str, run: Callable[[Path], Seen], within: float = 90.0) -> Fault:
    return Fault(name=name, expected=expected, within=within, run=run)


def _in_place(name: str, damage: Callable[[Path], None], *says: str, at_batch: int = 0) -> Fault:
    expected = "stops at once and names the shard; goes on once it is mended"
    return fault(name, expected, partial(in_place, damage=damage, says=(SHARD, *says), at_batch=at_batch))


AGAIN = "the shard is fetched again; no sample is lost"
LIMIT = "40kb"

FAULTS = [
    fault("a byte is flipped in the cache between two runs", AGAIN, partial(goes_on, before=flip_a_byte)),
    fault("a file in the cache is truncated between two runs", AGAIN, partial(goes_on, before=truncate)),
    fault("the cache is wiped while running", GOES_ON, partial(goes_on, each=wipe_after_two)),
    fault("a limited cache is wiped while running", GOES_ON, partial(goes_on, each=wipe_after_two, cache_limit=LIMIT)),
    _in_place("a byte is flipped in a shard that is read in place", flip_a_byte, "is damaged (Checksum failure: xx"),
    _in_place("a shard that is read in place is truncated", truncate, "has 1000 bytes"),
    _in_place("a shard that is read in place goes while running", remove, "is gone", at_batch=1),
    fault(
        "the disk of the cache is full",
        "stops in the stated time and names the folder; goes on once there is space",
        disk_is_full,
    ),
    fault("cache_limit is too small", "refused at the start: names the key and what it needs", limit_is_too_small),
]
