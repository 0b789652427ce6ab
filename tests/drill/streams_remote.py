"""Faults between a stream's cache and its object store."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.drill.epoch import Epoch, config, write_shards
from tests.drill.fault import Fault, Seen
from tests.drill.faulty_s3 import FaultyS3, Rule, faulty_s3

SHARD = "shard.00002.mds"
HTML = b"<html><body>Please accept our terms of use to go online.</body></html>"

Change = Callable[[bytes], bytes | None]


def goes_on(folder: Path, *, rules: tuple[Rule, ...], **keys: Any) -> Seen:
    """Read an epoch under these rules, with and without loader processes."""
    what, lost, kept = [], 0, True
    with faulty_s3() as s3:
        s3.fill(write_shards(folder / "set"))
        for workers in (0, 2):
            s3.obey(*rules)
            epoch = Epoch(data=config(folder / f"cache{workers}", **keys), workers=workers)
            said = epoch.go_on()
            what.append(said or f"read to the end with {workers} loader processes in {epoch.seconds:.0f} s")
            lost += epoch.lost
            kept &= said is None and epoch.is_whole
    return Seen(what="; ".join(what), lost=lost, kept=kept)


def stops(
    folder: Path,
    *,
    says: tuple[str, ...],
    rules: tuple[Rule, ...] = (),
    object_: str = SHARD,
    change: Change | None = None,
    written: dict[str, Any] | None = None,
    anew: bool = False,
    **keys: Any,
) -> Seen:
    """Read an epoch under these rules or with a changed object; mend it and read on."""
    with faulty_s3() as s3:
        s3.fill(write_shards(folder / "set", **written or {}))
        what, lost, kept, in_time = "", 0, True, True
        for workers in (0, 2):
            s3.obey(*rules)
            epoch = Epoch(data=config(folder / f"cache{workers}", **keys), workers=workers)
            with _changed(s3, object_, change):
                said = epoch.go_on()
            seconds = epoch.seconds
            in_time &= epoch.was_in_time
            s3.obey()
            # Anew where the index in the cache is another one.
            epoch.data = config(
                folder / f"another{workers}" if anew else folder / f"cache{workers}",
                **keys | {"download_timeout": 20.0},
            )
            again = epoch.go_on()
            what = what or f"{said} (after {seconds:.0f} s)"
            lost += epoch.lost
            fine = said is not None and all(word in said for word in says)
            if not fine or again is not None or not epoch.is_whole:
                what, kept = f"with {workers} loader processes: {said} (after {seconds:.0f} s); then: {again}", False
    return Seen(what=what, lost=lost, kept=kept, in_time=in_time)


class _changed:
    """An object is another, or gone, for a while."""

    def __init__(self, s3: FaultyS3, name: str, change: Change | None) -> None:
        self._s3, self._name, self._change = s3, name, change

    def __enter__(self) -> None:
        if self._change is not None:
            self._before = self._s3.get(self._name)
            after = self._change(self._before)
            self._s3.delete(self._name) if after is None else self._s3.put(self._name, after)

    def __exit__(self, *_: object) -> None:
        if self._change is not None:
            self._s3.put(self._name, self._before)


def gone(content: bytes) -> None:
    return None


def cut(content: bytes) -> bytes:
    return content[:-50]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def longer(content: bytes) -> bytes:
    return content + b"x"


def html(content: bytes) -> bytes:
    return HTML


NAMED = ("data.unpaired: shard", "of s3://shards/set", "start again to resume")
GOES_ON = "goes on; no sample is lost"


def _stops(name: str, cause: str, *says: str, within: float = 120.0, **options: Any) -> Fault:
    expected = f"stops in the stated time and names the shard and: {cause}; goes on once it is mended"
    return Fault(name=name, expected=expected, within=within, run=partial(stops, says=(*NAMED, *says), **options))


def _goes_on(name: str, *rules: Rule, within: float = 90.0, **keys: Any) -> Fault:
    return Fault(name=name, expected=GOES_ON, within=within, run=partial(goes_on, rules=rules, **keys))


FAULTS = [
    _goes_on("the store answers 503 to five requests", Rule(at="shard.", what=503, times=5), download_timeout=20.0),
    _goes_on(
        "the store refuses connections for 4 seconds, mid-epoch",
        Rule(at="shard.", what="die", skip=6, times=1, seconds=4.0),
        download_retry=4,
        download_timeout=10.0,
    ),
    _goes_on("a connection is reset in mid-body, three times", Rule(at="shard.", what="cut", skip=1, times=3)),
    _stops("the store answers 500 for good", "500", "(500)", rules=(Rule(at=SHARD, what=500),), download_timeout=20.0),
    _stops(
        "the store refuses connections for good, mid-epoch",
        "no connection",
        "ConnectionError",
        rules=(Rule(at="shard.", what="die", skip=6),),
        download_timeout=20.0,
    ),
    _stops(
        "the store is silent, mid-epoch",
        "the seconds",
        "not complete after 2 s",
        rules=(Rule(at=SHARD, what="stall"),),
        download_timeout=2.0,
    ),
    _stops(
        "the store sends ten bytes a second",
        "the seconds",
        "not complete after 1 s",
        "raise data.download_timeout",
        rules=(Rule(at=SHARD, what="trickle"),),
        download_timeout=1.0,
    ),
    _stops("every connection is reset in mid-body", "the cause", "attempts", rules=(Rule(at=SHARD, what="cut"),)),
    _stops(
        "the store refuses access, mid-epoch (403)", "403", "the store answers 403", rules=(Rule(at=SHARD, what=403),)
    ),
    _stops(
        "the store answers 400 for good", "400", "attempts", rules=(Rule(at=SHARD, what=400),), download_timeout=2.0
    ),
    _stops("a shard is missing in the store", "404", SHARD, "the store answers 404", change=gone),
    _stops("a shard is truncated in the store", "its size", SHARD, "Checksum failure", "bytes in place of", change=cut),
    _stops("a byte of a shard is flipped in the store", "its hash", SHARD, "Checksum failure: xxh64", change=flipped),
    _stops("a portal answers with HTML in place of a shard", "its size", SHARD, "bytes in place of", change=html),
    _stops(
        "a shard of a set without hashes is truncated",
        "its size",
        SHARD,
        "bytes in place of",
        change=longer,
        written={"hashes": None},
    ),
    _stops(
        "a byte of a compressed shard is flipped in the store",
        "its hash",
        f"{SHARD}.zstd",
        "Checksum failure: xxh64",
        object_=f"{SHARD}.zstd",
        change=flipped,
        written={"compression": "zstd"},
    ),
]
