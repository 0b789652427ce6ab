"""A run that was killed and continued ends as one that was not; the drill rehearses more such faults."""

from typing import Any

import pytest
import torch

from tests.drill.compare import difference_in_samples
from tests.drill.fault import Fault, rehearse
from tests.drill.kills import FAULTS

REHEARSED = ("killed amid an epoch", "fsdp on two ranks, killed amid an epoch")


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right


@pytest.mark.slow
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in REHEARSED], ids=lambda fault: fault.name)
def test_killed_and_resumed_equals_uninterrupted(fault: Fault):
    seen, _ = rehearse(fault)
    assert seen.kept, seen.what
    assert seen.lost == 0


def line(start: int, step: int, *ids: int, rank: int = 0) -> dict[str, Any]:
    return {"start": start, "step": step, "rank": rank, "ids": {"unpaired": list(ids)}}


def test_the_drill_counts_samples_that_are_lost_or_come_twice():
    whole = [line(1, 0, 1, 2), line(1, 1, 3, 4), line(1, 2, 5, 5)]
    repeated = [line(2, 0, 1, 2), line(2, 1, 3, 4), line(3, 1, 3, 4), line(3, 2, 5, 5)]
    assert difference_in_samples(whole, repeated) == (0, 0)
    on_two_ranks = [line(2, 0, 1, 2), line(3, 1, 4), line(3, 1, 3, rank=1), line(3, 2, 5), line(3, 2, 5, rank=1)]
    assert difference_in_samples(whole, on_two_ranks) == (0, 0)
    # A step that is left out, and one whose repetition takes another sample.
    assert difference_in_samples(whole, [line(2, 0, 1, 2), line(3, 2, 5, 5)]) == (2, 0)
    assert difference_in_samples(whole, [*repeated, line(4, 2, 5, 6)]) == (1, 1)
