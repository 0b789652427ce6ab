"""One command of a sweep as a process of its own: what it prints goes to a file, how far it is to the terminal."""

import json
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.sweep.plan import Job

INTERVAL = 2.0  # seconds between two looks at how far a run is
GRACE = 60.0  # seconds that an interrupted command has to end; Composer's launcher gives its ranks 30
TAIL = 4096  # bytes; a line of metrics has some 2,000


def run(job: Job, show: Callable[[str], object]) -> int:
    """Run the command to its end and return its exit status; an interruption ends the command first.

    Args:
        job: Its log is appended to.
        show: Takes a few words on how far the run is, now and then.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as log:
        print(f"$ {redact_text(str(job))}", file=log, flush=True)
        # In a session of its own, so that Ctrl-C reaches the command once, from here, whatever started it.
        process = subprocess.Popen(
            job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while True:
                try:
                    return process.wait(INTERVAL)
                except subprocess.TimeoutExpired:
                    show(progress(job.folder))
        finally:
            if process.returncode is None:
                _stop(process)


def progress(run_folder: Path) -> str:
    """Return the step and the loss that a run has logged last; empty before the first."""
    path = run_folder / "metrics.jsonl"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            record = json.loads(line)
            return f"step {record['batch']:.0f}, loss {record['loss/train/total']:.4g}"
        except (ValueError, KeyError, TypeError):  # half a line, or one of an epoch's end
            continue
    return ""


def last_lines(path: Path, count: int = 12) -> list[str]:
    """Return the end of a log."""
    with path.open(errors="replace") as file:
        return [line.rstrip() for line in deque(file, maxlen=count)]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the command as Ctrl-C does; what is left of it after a while is killed."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C does not wait
        process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also ranks and loader workers that outlived it
    process.wait()
