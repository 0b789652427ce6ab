"""Which suites have evaluated a run, remembered in the run's folder, so that a new card keeps what an old one had."""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from maskedclip_composer.callbacks.atomic import write_whole

log = logging.getLogger(__name__)

FILE = "suites.json"


def remembered(run: Path) -> list[Path]:
    """Return the suites that `remember` has noted, whether they are still there or not."""
    path = run / FILE
    if not path.is_file():
        return []
    try:
        return [(run / str(name)).resolve() for name in json.loads(path.read_text(encoding="utf-8"))["suites"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning(f"{path} is damaged ({error!r}); the suites that it named are left out of the card.")
        return []


def joined(known: Iterable[Path], more: Iterable[Path]) -> list[Path]:
    """Return both, each folder once, in the order in which they came."""
    return list(dict.fromkeys(folder.resolve() for folder in (*known, *more)))


def remember(run: Path, suites: Iterable[Path]) -> None:
    """Note the suites, as paths from the run's folder: both may be moved together."""
    names = [Path(os.path.relpath(folder, run.resolve())).as_posix() for folder in suites]
    write_whole(run / FILE, json.dumps({"suites": names}, indent=2) + "\n")
