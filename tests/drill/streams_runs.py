"""Other processes on a stream's cache: other runs, dead ones, loader processes and ranks."""

import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from maskedclip_composer.data import cache
from maskedclip_composer.data.shared_names import SHM
from tests.drill.epoch import BATCH, SLACK, Epoch, config, write_shards
from tests.drill.fault import Seen
from tests.drill.faulty_s3 import Rule, faulty_s3
from tests.drill.streams_cache import fault, remove
from tests.drill.streams_remote import SHARD


def _hold(data: Any, workers: int, memory: Path | None, ready: Connection | None) -> None:
    """Read a batch and stay."""
    os.setpgid(0, 0)
    if memory is not None:
        tempfile.tempdir = str(memory)

    def each(batches: int) -> None:
        if batches == 1 and ready is not None:
            ready.send(None)
            time.sleep(600)

    Epoch(data=data, workers=workers, each=each).go_on()


def _start_holder(data: Any, workers: int, memory: Path | None = None) -> multiprocessing.Process:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_hold, args=(data, workers, memory, theirs))
    process.start()
    ours.recv()
    return process


def two_runs(folder: Path) -> Seen:
    """Start a second run on the cache of one that reads."""
    cache.PATIENCE = 2.0
    data = config(folder / "cache", str(write_shards(folder / "set")))
    first = _start_holder(data, workers=2)
    epoch = Epoch(data=data, workers=0)
    said = epoch.go_on()
    first.kill()
    cache.PATIENCE = 30.0
    again = epoch.go_on()
    kept = said is not None and f"uses the same cache folder {folder / 'cache'} (process {first.pid} on" in said
    return Seen(what=str(said), lost=epoch.lost, kept=kept and again is None and epoch.is_whole)


def first_is_being_killed(folder: Path) -> Seen:
    """Kill a run whose loader processes are in the middle of slow downloads, and start the next at once."""
    with faulty_s3() as s3:
        s3.fill(write_shards(folder / "set"))
        s3.obey(Rule(at=SHARD, what="trickle"))
        data = config(folder / "cache", download_timeout=60.0)
        first = multiprocessing.Process(target=_hold, args=(data, 2, None, None))
        first.start()
        while len(list((folder / "cache").glob("shard.*"))) < len(list((folder / "set").glob("shard.*"))) - 1:
            time.sleep(0.1)
        time.sleep(0.5)  # by now the last one is trickling
        first.kill()
        s3.obey()
        epoch = Epoch(data=data, workers=2)
        said = epoch.go_on()
        fetching = folder / "cache" / cache.FETCHING
        left = list(fetching.iterdir()) if fetching.exists() else []
    what = said or f"read to the end after {epoch.seconds:.0f} s; {len(left)} half files are left"
    return Seen(what=what, lost=epoch.lost, kept=said is None and epoch.is_whole and not left)


def stale_memory(folder: Path) -> Seen:
    """Kill a run so that its shared memory stays and the locks beside it do not."""
    (folder / "tmp").mkdir()
    data = config(folder / "cache", str(write_shards(folder / "set")))
    first = _start_holder(data, workers=0, memory=folder / "tmp")
    first.kill()
    first.join()
    number = json.loads((folder / "cache" / cache.LOCK).read_text())["memory"]
    left = list(SHM.glob(f"{number:06}_*"))
    epoch = Epoch(data=data, workers=2)
    said = epoch.go_on()
    what = said or f"{len(left)} segments were left and are removed; read to the end"
    return Seen(what=what, lost=epoch.lost, kept=said is None and epoch.is_whole and len(left) > 0)


def loader_process_is_killed(folder: Path) -> Seen:
    epoch = Epoch(data=config(None, str(write_shards(folder / "set"))), workers=2)

    def each(batches: int) -> None:
        if batches == 2:
            psutil.Process().children()[-1].kill()

    epoch.each = each
    said = epoch.go_on()
    in_time = epoch.seconds < SLACK
    epoch.each = lambda batches: None
    again = epoch.go_on()
    kept = said is not None and "DataLoader worker" in said and again is None
    return Seen(what=str(said), lost=epoch.lost, kept=kept and epoch.is_whole, in_time=in_time)


def _rank(rank: int, port: int, epoch: Epoch, answer: Connection) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    from torch import distributed

    distributed.init_process_group("gloo")
    said = epoch.go_on()
    answer.send((said, epoch.read, epoch.batches, epoch.state))
    time.sleep(600)  # as a rank that waits in a collective: its end does not end the others


def _run_ranks(epochs: list[Epoch], port: int) -> list[str | None]:
    """Read on with a process for each rank; return their messages."""
    pipes = [multiprocessing.Pipe() for _ in epochs]
    ranks = [
        multiprocessing.Process(target=_rank, args=(rank, port, epoch, theirs))
        for rank, (epoch, (_, theirs)) in enumerate(zip(epochs, pipes, strict=True))
    ]
    for process in ranks:
        process.start()
    answers = [ours.recv() for ours, _ in pipes]
    for process in ranks:
        psutil.Process(process.pid).suspend()  # both at once, so that none cleans up while the other still works
    for process in ranks:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.join()
    for epoch, answer in zip(epochs, answers, strict=True):
        _, epoch.read, epoch.batches, epoch.state = answer
    return [answer[0] for answer in answers]


def two_ranks(folder: Path) -> Seen:
    """Each rank has to notice by itself: one that waits in a collective ends nobody."""
    at = write_shards(folder / "set")
    whole = (at / SHARD).read_bytes()
    remove(at)
    data = config(folder / "cache", str(at))
    port = 29_000 + os.getpid() % 2_000
    start = time.monotonic()
    epochs = [Epoch(data=data, workers=1) for _ in range(2)]
    said = _run_ranks(epochs, port)
    seconds = time.monotonic() - start
    (at / SHARD).write_bytes(whole)
    common = min(epoch.batches for epoch in epochs)
    for epoch in epochs:
        epoch.read, epoch.batches = epoch.read[: common * BATCH // 2], common
        epoch.state = (epoch.state or {}) | {"sample_in_epoch": common * BATCH}
    then = _run_ranks(epochs, port + 1)
    both = Epoch(data=data, workers=1, read=[source for epoch in epochs for source in epoch.read])
    named = all(message is not None and SHARD in message for message in said)
    # The second may begin with the shard when the first has given up.
    in_time = seconds < 2 * data.patience + SLACK
    kept = named and then == [None, None] and both.is_whole
    what = f"{said[0]}; the other rank: {said[1]}; then {then}"
    return Seen(what=what, lost=both.lost, kept=kept, in_time=in_time)


FAULTS = [
    fault("two runs on one cache", "the second is refused after waiting: names folder and process", two_runs),
    fault(
        "a run starts while the one before on its cache is being killed",
        "waits for its end; no sample is lost",
        first_is_being_killed,
    ),
    fault("stale shared memory of a killed run", "removed; no sample is lost", stale_memory),
    fault("a loader process is killed", "stops at once; goes on after a restart", loader_process_is_killed),
    fault("a shard is missing, on two ranks", "both ranks stop in the stated time and name it", two_ranks),
]
