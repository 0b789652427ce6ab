"""Write the page of a run."""

import logging
from collections.abc import Sequence
from pathlib import Path

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.dashboard.comparison import Comparison, read_suite
from maskedclip_composer.dashboard.page import answers, page
from maskedclip_composer.dashboard.run import Run, read_run
from maskedclip_composer.dashboard.suites import find_suites

log = logging.getLogger(__name__)

DASHBOARD = "dashboard.html"


def write_dashboard(folder: Path, suites: Sequence[Path] = (), out: Path | None = None) -> Path:
    """Write a run's page from what its folder and the suites beside it hold, and return it.

    Args:
        folder: Of the run.
        suites: Further suites that have evaluated it.
        out: The file; None takes `dashboard.html` of the run's folder.

    Raises:
        UserError: The folder is no run's, or one of `suites` no suite's, or the file cannot be written.
    """
    run = read_run(folder)
    path = out or folder / DASHBOARD
    comparisons = comparisons_of(run, suites)
    for suite in suites:
        if not read_suite(suite, run.folder):
            log.warning("%s has no finished cell of an encoder of %s: nothing of it is on the page", suite, folder)
    write_whole(path, page(run, comparisons, answers(run, comparisons)))
    return path


def comparisons_of(run: Run, suites: Sequence[Path] = ()) -> list[Comparison]:
    """Return what the suites say of a run's encoders, the newest suite first."""
    return [found for suite in find_suites(run.folder, suites) for found in read_suite(suite, run.folder)]
