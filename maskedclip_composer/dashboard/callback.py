"""The page of a run, written while it trains."""

import logging
from functools import partial
from pathlib import Path

from composer.core import Callback, State, Time
from composer.loggers import Logger
from composer.utils import dist

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.pictures import is_due, is_last
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.dashboard.note import note, set_note
from maskedclip_composer.dashboard.page import answers, page
from maskedclip_composer.dashboard.run import read_run
from maskedclip_composer.dashboard.series import MetricsReader
from maskedclip_composer.dashboard.state import WORDS, write_state
from maskedclip_composer.dashboard.state import State as RunState
from maskedclip_composer.dashboard.write import DASHBOARD, comparisons_of
from maskedclip_composer.errors import UserError

log = logging.getLogger(__name__)


class Dashboard(Callback):
    """Write `dashboard.html` of the run's folder now and then and at its end, and what has become of the run.

    MLflow gets the page as an artifact, its answers as the run's description, and the tag `state`. Only rank 0 writes.
    A page that cannot be made costs a warning.

    Args:
        folder: The run's folder.
        interval: A Composer time in epochs or steps; None or "" for the end alone.
        tracker: Takes the page; None when MLflow is off.
    """

    def __init__(self, folder: Path, interval: str | None, tracker: FaultTolerantMLFlowLogger | None):
        self.folder = folder
        self.interval = Time.from_input(interval) if interval else None
        self._tracker = tracker
        self._reader = MetricsReader(folder / "metrics.jsonl")
        self._is_due = False
        self._state: RunState | None = None  # what was written last; None off rank 0 and before the start

    def fit_start(self, state: State, logger: Logger) -> None:
        """Say that the run goes on."""
        if state.dataloader_len is not None:
            self._reader.steps_per_epoch = state.dataloader_len.value
        if dist.get_global_rank() == 0:
            self._set_state("running")

    def batch_end(self, state: State, logger: Logger) -> None:
        """Note that the page is due; the run's last one comes at its end."""
        self._is_due = self.interval is not None and is_due(state, self.interval) and not is_last(state)

    def batch_start(self, state: State, logger: Logger) -> None:
        """Write the page that was due: by now the metrics file has the step and the epoch's end.

        Composer 0.32.1 runs loggers after all other callbacks, so that at the step's end the file lacks it.
        """
        if self._state is not None and self._is_due:
            self._is_due = False
            self._write()

    def fit_end(self, state: State, logger: Logger) -> None:
        """Write the last page: after the encoder and the last checkpoint."""
        if self._state is not None:
            self._set_state("finished")
            self._write()

    def close(self, state: State, logger: Logger) -> None:
        """Write the page of a run that has stopped before its end."""
        if self._state == "running":
            self._set_state("not finite" if self._was_not_finite(state.timestamp.batch.value) else "failed")
            self._write()

    def _was_not_finite(self, step: int) -> bool:
        try:
            fault = read_run(self.folder, self._reader).faults[-1]
            return fault.get("action") == "stop" and int(fault.get("step", 0)) >= step
        except (UserError, IndexError, ValueError, TypeError):  # it stopped at its first step, or without a fault
            return False

    def _set_state(self, state: RunState) -> None:
        self._state = state
        kills = 0
        try:
            kills = write_state(self.folder, state)
        except OSError as error:
            log.warning(f"{self.folder} cannot be written: {error}")
        if self._tracker is not None:
            self._tracker.set_tags({"state": WORDS[state]} | ({"kills": str(kills)} if kills else {}))

    def _write(self) -> None:
        try:
            run = read_run(self.folder, self._reader, state=self._state)
            comparisons = comparisons_of(run)
            write_whole(self.folder / DASHBOARD, page(run, comparisons))
        except Exception as error:  # whatever it is, the training is worth more
            log.warning(f"{self.folder / DASHBOARD} cannot be written: {type(error).__name__}: {error}")
            return
        if self._tracker is not None:
            self._tracker.log_artifact(self.folder / DASHBOARD)
            self._tracker.add(partial(set_note, text=note(run, answers(run, comparisons))))
