"""One rehearsed fault: what is broken, what is promised, what was seen."""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What happened, in a line.

    Attributes:
        what: For the table; of a failure the message that a user would read.
        lost: Samples that a whole run reads and this one, with what continued it, did not.
        kept: Whether it is what was promised, apart from the seconds.
        in_time: Whether it ended within the stated seconds. `make drill` asks for it; on busy cores it may not.
    """

    what: str
    lost: int = 0
    kept: bool
    in_time: bool = True


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault and the promise about it.

    Attributes:
        name: What breaks.
        expected: What then happens, as docs/reliability.md promises it.
        within: Seconds after which it counts as hanging, on two cores.
        run: Breaks it in a folder of its own and says what was seen. A function of a module: another process calls it.
    """

    name: str
    expected: str
    within: float
    run: Callable[[Path], Seen]


def rehearse(fault: Fault, folder: Path | None = None) -> tuple[Seen, float]:
    """Run a fault in a process of its own and return what was seen, and the seconds; what hangs is killed.

    The process is forked from one that has imported everything and has no threads.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return rehearse(fault, Path(temporary))
    context = multiprocessing.get_context("forkserver")
    function = getattr(fault.run, "func", fault.run)  # of a partial
    # All parts: the server is started once, and other faults follow.
    context.set_forkserver_preload(["tests.drill.parts", function.__module__])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(fault, folder, theirs))
    process.start()
    theirs.close()
    start = time.monotonic()
    try:
        ours.recv()  # its modules are imported: from here on time counts
        start = time.monotonic()
        too_late = Seen(what=f"hangs: killed after {fault.within:.0f} s", kept=False)
        seen = ours.recv() if ours.poll(fault.within) else too_late
    except EOFError:
        process.join()
        seen = Seen(what=f"its process died ({process.exitcode})", kept=False)
    seconds = time.monotonic() - start
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)  # also what it has started and left
    process.join()
    return seen, seconds


def _report(fault: Fault, folder: Path, connection: Connection) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # as in a run; a child of a fork server prefers that one
    connection.send(None)
    try:
        seen = fault.run(folder)
    except BaseException:  # a table of all faults is wanted, whatever one does
        seen = Seen(what=traceback.format_exc().strip(), kept=False)
    connection.send(replace(seen, what=" ".join(seen.what.split())))
    connection.close()
