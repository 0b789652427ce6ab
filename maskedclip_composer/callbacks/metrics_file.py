"""Every metric of a run in one local file, whatever becomes of the tracking server."""

import json
from pathlib import Path
from typing import Any, TextIO

from composer.core import State
from composer.loggers import Logger, LoggerDestination
from composer.utils import dist

from maskedclip_composer.callbacks.atomic import write_whole


class MetricsFile(LoggerDestination):
    """Append metrics to a JSON Lines file: one line per step, and one for what is logged at the end of an epoch.

    `batch` and `epoch` of a line count what was done when it was written: the first step's line says 1. A resumed run
    drops the lines of the steps that it repeats. Non-finite values are written as NaN and Infinity, as Python reads
    them. Only rank 0 writes.

    Args:
        path: The file; its folder is created when absent.
    """

    def __init__(self, path: Path):
        self.path = path
        self._enabled = dist.get_global_rank() == 0
        self._file: TextIO | None = None
        self._pending: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Keep `metrics` for the line that is written next."""
        if self._enabled:
            self._pending.update((name, float(value)) for name, value in metrics.items())

    def fit_start(self, state: State, logger: Logger) -> None:
        """Open the file, without what a run that went on after the checkpoint has left there.

        Not earlier: the checkpoint saver refuses a run folder that holds another run in its own `fit_start`, which
        comes before that of the loggers, and a refused run must not touch that run's metrics.
        """
        if not self._enabled or self._file is not None:
            return
        done = state.timestamp.batch.value
        lines = self.path.read_text().splitlines(keepends=True) if self.path.is_file() else []
        write_whole(self.path, "".join(line for line in lines if 0 < _batch(line) <= done))
        self._file = self.path.open("a")

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write the step's line: after the evaluations that belong to it."""
        self._write(state)

    def epoch_checkpoint(self, state: State, logger: Logger) -> None:
        """Write what was logged at the epoch's end."""
        self._write(state)

    def close(self, state: State, logger: Logger) -> None:
        """Write what is left and close the file."""
        if self._file is not None:
            self._write(state)
            self._file.close()
            self._file = None

    def _write(self, state: State) -> None:
        if self._file is None or not self._pending:
            return
        counts = {"batch": state.timestamp.batch.value, "epoch": state.timestamp.epoch.value}
        self._file.write(json.dumps(counts | self._pending) + "\n")
        self._file.flush()
        self._pending.clear()


def _batch(line: str) -> int:
    """Return the step of a line; 0 for a line that was cut off when its writer was killed."""
    try:
        return json.loads(line)["batch"] if line.endswith("\n") else 0
    except (json.JSONDecodeError, KeyError, TypeError):
        return 0
