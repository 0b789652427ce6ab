"""The metrics of a run, read from its `metrics.jsonl` as it grows."""

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

# What the page shows; a line has twice as much.
KEPT = ("loss/", "diagnostics/", "lr-", "throughput/", "time/step", "time/data_wait_share", "time/total", "memory/")


@dataclass
class Series:
    """A metric: at which steps it was logged, counted from 1, and its values."""

    steps: array = field(default_factory=lambda: array("q"))
    values: array = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def x(self) -> Int[np.ndarray, " records"]:
        """The steps."""
        return np.array(self.steps)

    @property
    def y(self) -> Float[np.ndarray, " records"]:
        """The values; they may be NaN or infinite."""
        return np.array(self.values)

    @property
    def finite(self) -> Float[np.ndarray, " finite"]:
        """The values that are finite."""
        values = self.y
        return values[np.isfinite(values)]


class MetricsReader:
    """Reads a metrics file; each call of `read` takes in what was added, so that a long run need not be read anew.

    A line that is not whole yet waits for the next call; a damaged one is left out.

    Args:
        path: `metrics.jsonl`; it need not exist yet.
    """

    def __init__(self, path: Path):
        self.path = path
        self.series: dict[str, Series] = {}
        self.step = 0
        self.epoch = 0
        self.steps_per_epoch: int | None = None  # the file tells when an epoch is over
        self._place = 0
        self._inode = -1

    def read(self) -> Mapping[str, Series]:
        """Return all series by name."""
        if not self.path.is_file():
            return self.series
        facts = self.path.stat()
        if facts.st_ino != self._inode or facts.st_size < self._place:  # a resumed run writes the file anew
            self.series, self.step, self.epoch, self._place = {}, 0, 0, 0
            self._inode = facts.st_ino
        with self.path.open("rb") as file:
            file.seek(self._place)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._place += len(line)
                self._take(line)
        return self.series

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            step, epoch = int(record.pop("batch")), int(record.pop("epoch"))
            # Composer's clock at the beginning of an epoch, and at the run's end.
            epochs, steps = int(record.get("time/epoch", 0)), int(record.get("time/batch", 0))
            values = {name: float(value) for name, value in record.items() if name.startswith(KEPT)}
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        if epochs:
            self.steps_per_epoch = steps // epochs
        self.step, self.epoch = step, epoch
        for name, value in values.items():
            series = self.series.setdefault(name, Series())
            series.steps.append(step)
            series.values.append(value)
