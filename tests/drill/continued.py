"""Runs that are continued otherwise than they began, or from what a bad disk has left."""

import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

from composer import Trainer
from composer.core import Event
from safetensors.torch import load_file

from maskedclip_composer.callbacks.whole_checkpoints import newest_first
from tests.drill.compare import difference_in_samples, same, same_views
from tests.drill.fault import Fault, Seen
from tests.drill.kills import FSDP, KILLED, at
from tests.drill.runs import At, Runs

NO_DROPOUT = "text_encoder.dropout=0"  # its draws are of a rank, so they differ with the number of ranks
ROUNDING = 1e-6  # of weights below 1: other ranks add up in another order


def on_other_ranks(folder: Path, *overrides: str) -> Seen:
    """Begin on two ranks, go on on one, then on four, and compare with one rank from begin to end."""
    runs = Runs(folder)
    arguments = (NO_DROPOUT, *overrides)
    statuses = [runs.train("whole", *arguments)]
    for ranks, batch in ((2, 4), (1, 7)):
        assert KILLED in runs.train("broken", *arguments, ranks=ranks, prepare=at(Event.BEFORE_FORWARD, batch))
    statuses.append(runs.train("broken", *arguments, ranks=4))
    if any(map(any, statuses)):
        return Seen(what=f"exit {statuses}: {runs.log('broken')[-500:]}", kept=False)
    lost, extra = difference_in_samples(runs.steps("whole"), runs.steps("broken"))
    whole, broken = (load_file(runs.run_folder(name) / "encoder.safetensors") for name in ("whole", "broken"))
    error = max(float((broken[key] - value).abs().max()) for key, value in whole.items())
    views = same_views(runs.steps("whole"), runs.steps("broken"))
    what = f"2, 1, then 4 ranks: {extra} samples too many; crops and masks {'the same' if views else 'differ'}"
    kept = not lost and not extra and views and error < ROUNDING
    return Seen(what=f"{what}; weights differ by at most {error:.1e}", lost=lost, kept=kept)


def on_other_ranks_with_fsdp(folder: Path) -> Seen:
    """Shards of two ranks are read by one, and those of one by four."""
    return on_other_ranks(folder, FSDP)


def with_other_workers(folder: Path) -> Seen:
    """Begin without loader processes, go on with two, then with one."""
    runs = Runs(folder)
    statuses = [runs.train("whole")]
    for workers, batch in ((0, 4), (2, 7)):
        kill = at(Event.BEFORE_FORWARD, batch)
        assert KILLED in runs.train("broken", f"data.num_workers={workers}", prepare=kill)
    statuses.append(runs.train("broken", "data.num_workers=1"))
    if any(map(any, statuses)):
        return Seen(what=f"exit {statuses}: {runs.log('broken')[-500:]}", kept=False)
    return same(runs, "whole", "broken", also="0, 2, then 1 loader processes")


def with_other_parallelism(folder: Path) -> Seen:
    """Try to go on with fsdp what ddp has begun, and the other way."""
    runs = Runs(folder)
    refusals = []
    for first, then in (("ddp", "fsdp"), ("fsdp", "ddp")):
        arguments = f"parallelism={first}"
        assert KILLED in runs.train(first, arguments, prepare=at(Event.BEFORE_FORWARD, 5))
        done = len(runs.steps(first))
        (status,) = runs.train(first, f"parallelism={then}")
        named = f"parallelism: {first} then, {then} now" in runs.log(first)
        refusals.append(status == 2 and named and len(runs.steps(first)) == done)
        assert runs.train(first, arguments) == [0]
    both = same(runs, "ddp", "ddp")
    what = f"refused before the first batch: {refusals}; with the settings of then it goes on"
    return Seen(what=what, lost=both.lost, kept=all(refusals))


def full_disk(folder: Path, *overrides: str, ranks: int = 1, rank: int = 0) -> Seen:
    """Let no file of a rank grow beyond a few bytes from its second checkpoint on, as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    def prepare(trainer: Trainer) -> None:
        if int(os.environ["RANK"]) == rank:
            trainer.state.callbacks.insert(0, At(Event.BATCH_END, 6, limit))

    runs = Runs(folder)
    whole = runs.train("whole", *overrides, ranks=ranks)
    stopped = runs.train("broken", *overrides, ranks=ranks, prepare=prepare)
    message = runs.log("broken", rank).partition("train.py: error")[2][:400]
    left = {path.name for path in (runs.run_folder("broken") / "checkpoints").glob("ep*")}
    end = runs.train("broken", *overrides, ranks=ranks)
    first = {"ep0-ba3" if FSDP in overrides else "ep0-ba3-rank0.pt"}
    if any(whole) or stopped[rank] != 2 or any(end) or "cannot be written" not in message or left != first:
        return Seen(what=f"exit {whole} {stopped} {end}, left {left}: {message}", kept=False)
    return same(runs, "whole", "broken", also=f"It had stopped with: {message}")


def fsdp_full_disk(folder: Path) -> Seen:
    """Where only the second rank's disk is full."""
    return full_disk(folder, FSDP, ranks=2, rank=1)


def damaged(folder: Path, damages: list[Callable[[Path], None]], *overrides: str) -> Seen:
    """Damage the newest checkpoint after each of several kills."""
    runs = Runs(folder)
    arguments = ("checkpoint.interval=1ba", "checkpoint.keep=-1", *overrides)
    whole = runs.train("whole", *arguments)
    for number, damage in enumerate(damages):
        assert KILLED in runs.train("broken", *arguments, prepare=at(Event.BATCH_END, 4 + number))
        damage(newest_first(runs.run_folder("broken") / "checkpoints")[0])
    end = runs.train("broken", *arguments)
    warnings = runs.log("broken").count("is damaged; it is kept as")
    if any(whole) or any(end) or warnings != len(damages):
        return Seen(what=f"exit {whole} {end}, {warnings} warnings: {runs.log('broken')[-500:]}", kept=False)
    return same(runs, "whole", "broken", also=f"{warnings} warnings")


def cut(path: Path) -> None:
    """Cut a file in half, as an interrupted copy leaves it."""
    os.truncate(path, path.stat().st_size // 2)


def zeros(path: Path) -> None:
    """Leave the length and no content, as a power cut does where nobody waited for the disk."""
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)


def flip(path: Path, share: float) -> None:
    """Change a bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)


def flip_of_a_shard(path: Path) -> None:
    """Change a bit in the middle of a shard."""
    flip(path / "__0_0.distcp", 0.5)


def cut_shard(path: Path) -> None:
    """Cut a shard in half."""
    cut(path / "__0_0.distcp")


def lose_shard(path: Path) -> None:
    """Lose a shard."""
    (path / "__0_0.distcp").unlink()


def lose_layout(path: Path) -> None:
    """Lose what says where everything lies."""
    (path / ".metadata").unlink()


def damaged_file(folder: Path) -> Seen:
    """A checkpoint of one file: cut, empty, and of zeros."""
    return damaged(folder, [cut, lambda path: os.truncate(path, 0), zeros])


def flipped_file(folder: Path) -> Seen:
    """A checkpoint of one file: a bit of its pickle, which comes first, of a tensor, and of its directory."""
    return damaged(folder, [partial(flip, share=share) for share in (0.005, 0.5, 0.999)])


def flipped_shards(folder: Path) -> Seen:
    """A sharded checkpoint."""
    return damaged(folder, [flip_of_a_shard], FSDP)


def damaged_shards(folder: Path) -> Seen:
    """A sharded checkpoint."""
    return damaged(folder, [cut_shard, lose_shard, lose_layout, lambda path: zeros(path / ".metadata")], FSDP)


ORDER = "every step has its samples, crops and masks; weights to rounding"
FALLBACK = "a warning; the run goes on from the checkpoint before, bit for bit"
STOPS = "it stops and names file and cause, older checkpoints stay; with space it goes on, bit for bit"
FAULTS = [
    Fault(name="continued on other numbers of ranks", expected=ORDER, within=300, run=on_other_ranks),
    Fault(name="fsdp continued on other numbers of ranks", expected=ORDER, within=400, run=on_other_ranks_with_fsdp),
    Fault(name="continued with other loader processes", expected="bit for bit", within=300, run=with_other_workers),
    Fault(name="continued with other parallelism", expected="refused by name", within=300, run=with_other_parallelism),
    Fault(name="newest checkpoint cut short", expected=FALLBACK, within=300, run=damaged_file),
    Fault(name="newest sharded checkpoint cut short", expected=FALLBACK, within=400, run=damaged_shards),
    Fault(name="a byte of the newest checkpoint is flipped", expected=FALLBACK, within=300, run=flipped_file),
    Fault(name="a byte of the newest sharded checkpoint is flipped", expected=FALLBACK, within=300, run=flipped_shards),
    Fault(name="disk full while a checkpoint is written", expected=STOPS, within=200, run=full_disk),
    Fault(name="disk full for one of two fsdp ranks", expected=STOPS, within=400, run=fsdp_full_disk),
]
