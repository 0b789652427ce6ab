"""Steps that were not finite, in a file of the run's folder."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from composer.utils import dist

from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger

log = logging.getLogger(__name__)


class FaultFile:
    """Append faults to a JSON Lines file and send it to MLflow. Only rank 0 writes.

    MLflow takes whole files only. It gets this one at the 1st, 2nd, 4th, 8th, ... fault of a process and at its end, so
    that all that is sent grows as the file does, however many steps are skipped.

    Lines stay when a run is continued from before the step: they are evidence, and each has its time. Non-finite
    values are written as NaN and Infinity, as Python reads them.

    Args:
        path: The file; its folder is created when absent.
        tracker: Takes the file; None when MLflow is off.
    """

    def __init__(self, path: Path, tracker: FaultTolerantMLFlowLogger | None):
        self.path = path
        self._tracker = tracker
        self._faults = 0

    def append(self, fault: dict[str, Any]) -> str:
        """Write a fault down and return where."""
        if dist.get_global_rank() != 0:
            return str(self.path)
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds")} | fault)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(line + "\n")
        except OSError as error:  # a full disk: the fault is worth more than its record
            log.warning(f"{self.path} cannot be written ({error}); the fault: {line}")
            return str(self.path)
        self._faults += 1
        if self._tracker is not None:
            if self._faults.bit_count() == 1:  # a power of two
                self._tracker.log_artifact(self.path)
            self._tracker.log_at_end(self.path)
        return str(self.path)
