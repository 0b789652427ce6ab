"""A step that was not finite: what is known of it, as a record and in words."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from composer.core import State
from composer.utils import dist
from torch import Tensor

FindSample = Callable[[int], dict[str, str]]

NAMED = 4  # samples of a part that a message names; the record has all
LOOKED_UP = 16  # samples of a part of a skipped step: each costs reading its record, image included, amid training


@dataclass(frozen=True, kw_only=True)
class RankReport:
    """What one rank knows of a step.

    Attributes:
        rank: Its number.
        losses: Its own, by name, `total` included.
        samples: By stream, in the order of the batch: `id`, which is Streaming's over both streams, and what
            `FindSample` says of those that were looked up, the record's `dataset` and `source`.
        broken: Places in the batch, paired before unpaired, of images whose own prediction is not finite.
    """

    rank: int
    losses: dict[str, float]
    samples: dict[str, list[dict[str, Any]]]
    broken: list[int]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A step that was not finite.

    Attributes:
        step: Its number, from 1.
        action: stop or skip.
        norm: Of the gradients of all ranks.
        ranks: What each knows.
    """

    step: int
    action: str
    norm: float
    ranks: list[RankReport]

    def plain(self) -> dict[str, Any]:
        """Return it as nested dicts and lists."""
        return asdict(self)

    @property
    def what(self) -> str:
        """The step, and what of it is not finite."""
        facts = [] if math.isfinite(self.norm) else [f"the gradient norm is {self.norm}"]
        for name in self.ranks[0].losses:
            values = {report.rank: report.losses[name] for report in self.ranks}
            bad = [rank for rank, value in values.items() if not math.isfinite(value)]
            if bad and name != "total":
                where = "" if len(bad) == len(values) else f" on rank {', '.join(map(str, bad))}"
                facts.append(f"the loss {name} is {values[bad[0]]}{where}")
        return f"Step {self.step}: {', '.join(facts) or 'the loss is not finite'}"

    @property
    def who(self) -> str:
        """The samples, a line for each rank; where some of them are known to be broken, those alone."""
        lines = []
        for report in self.ranks:
            order = [(stream, sample) for stream, samples in report.samples.items() for sample in samples]
            chosen = [order[place] for place in report.broken] or order
            parts = []
            for stream in report.samples:
                if found := [sample for of, sample in chosen if of == stream]:
                    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
                    parts.append(f"{stream} {', '.join(map(_name, found[:NAMED]))}{more}")
            lines.append(f"Samples of rank {report.rank}: {'; '.join(parts)}.\n")
        return "".join(lines)


def rank_report(state: State, find_sample: FindSample | None = None, *, at_most: int | None = None) -> RankReport:
    """Say what this rank knows of the step that it has just computed. Waits for the device.

    Where some images are known to be broken, those alone are looked up, else the first of each stream.

    Args:
        state: Composer's, between the backward pass and the next batch.
        find_sample: Given a sample's id, says more of it; it must not fail.
        at_most: So many of each stream are looked up; None sets no limit.
    """
    assert isinstance(state.loss, dict)
    find = find_sample or (lambda sample_id: {})
    ids = {stream: part["sample_id"].tolist() for stream, part in state.batch.items()}
    outputs: dict[str, dict[str, Tensor]] = state.outputs  # pyright: ignore[reportAssignmentType]
    broken = _broken(outputs, sum(map(len, ids.values())))
    samples: dict[str, list[dict[str, Any]]] = {}
    first = 0
    for stream, of_stream in ids.items():
        chosen = [place - first for place in broken if first <= place < first + len(of_stream)]
        chosen = set((chosen if broken else range(len(of_stream)))[:at_most])
        samples[stream] = [
            {"id": sample_id} | (find(sample_id) if place in chosen else {})
            for place, sample_id in enumerate(of_stream)
        ]
        first += len(of_stream)
    return RankReport(
        rank=dist.get_global_rank(),
        losses={name: loss.item() for name, loss in state.loss.items()},
        samples=samples,
        broken=broken,
    )


def _broken(outputs: dict[str, dict[str, Tensor]], count: int) -> list[int]:
    """Return the images of which a decoder predicts something that is not finite; none where all are alike.

    The objectives' `prediction` has a row for each image, paired before unpaired.
    """
    bad: set[int] = set()
    for output in outputs.values():
        prediction = output.get("prediction")
        if prediction is not None and len(prediction) == count:
            finite = torch.isfinite(prediction.detach()).flatten(1).all(dim=1)
            bad |= set((~finite).nonzero().flatten().tolist())
    return sorted(bad) if len(bad) < count else []


def _name(sample: dict[str, Any]) -> str:
    found = f" ({sample['dataset']}: {sample['source']})" if "source" in sample else ""
    return f"{sample['id']}{found}"
