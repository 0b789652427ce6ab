"""Whether a run that was broken and continued did and became the same as one that was left alone."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskedclip_composer.callbacks.whole_checkpoints import newest_first
from maskedclip_composer.export.checkpoint import read_checkpoint
from maskedclip_composer.export.sharded import read_sharded
from tests.drill.fault import Seen
from tests.drill.runs import Runs

# What two runs of the same may differ in: the time they took, and where in memory an object was.
MAY_DIFFER = ("wct", "repr")


def same(runs: Runs, whole: str, broken: str, *, also: str = "") -> Seen:
    """Compare every step that counts, and every value of the last checkpoint, bit for bit."""
    expected, found = (runs.steps(name) for name in (whole, broken))
    lost, extra = difference_in_samples(expected, found)
    digests = {(line["step"], line["rank"]): line["digest"] for line in expected}
    other = [line["step"] for line in found if digests.get((line["step"], line["rank"])) != line["digest"]]
    values, others = (last_checkpoint(runs.run_folder(name)) for name in (whole, broken))
    differing = [key for key in values.keys() | others.keys() if not _equal(values.get(key), others.get(key))]
    repeated = len(found) - len(digests)
    if lost or extra or other or differing:
        what = (
            f"{extra} samples too many; other draws in steps {sorted(set(other))}; differing: {sorted(differing)[:5]}"
        )
        return Seen(what=f"{what} {also}", lost=lost, kept=False)
    what = f"{_steps(expected)} steps and {len(values)} values of the last checkpoint bit for bit; {repeated} repeated"
    return Seen(what=f"{what}. {also}", lost=0, kept=True)


def difference_in_samples(whole: Iterable[dict[str, Any]], broken: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """Return how many samples of the steps that count the broken run lacks, and how many it has beyond the whole one.

    A sample counts at its step: what comes too late is lost at one step and too many at another.
    """
    expected, found = _samples(whole), _samples(broken)
    return (expected - found).total(), (found - expected).total()


def same_views(whole: Iterable[dict[str, Any]], broken: Iterable[dict[str, Any]]) -> bool:
    """Tell whether all samples have the same crop and mask in every step that counts, whichever rank reads them."""
    return _samples(whole, "views") == _samples(broken, "views")


def last_checkpoint(run_folder: Path) -> dict[str, Any]:
    """Return the values of a run's newest checkpoint by dotted name, without those that may differ."""
    path = newest_first(run_folder / "checkpoints")[0]
    content = read_sharded(path, if_refused="", with_tensors=True) if path.is_dir() else read_checkpoint(path)
    flat = dict(_leaves(content))
    return {key: value for key, value in flat.items() if not key.endswith(MAY_DIFFER)}


def _samples(lines: Iterable[dict[str, Any]], what: str = "ids") -> Counter[tuple[int, str, Any]]:
    """Count (step, stream, sample) of all ranks, of a repeated step those of the last start that came to it."""
    lines = list(lines)
    last: dict[int, int] = {}
    for line in lines:
        last[line["step"]] = max(line["start"], last.get(line["step"], 0))
    return Counter(
        (line["step"], kind, sample)
        for line in lines
        if line["start"] == last[line["step"]]
        for kind, samples in line[what].items()
        for sample in samples
    )


def _steps(lines: Iterable[dict[str, Any]]) -> int:
    return len({line["step"] for line in lines})


def _leaves(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return np.array_equal(left, right)
    return type(left) is type(right) and bool(left == right)
