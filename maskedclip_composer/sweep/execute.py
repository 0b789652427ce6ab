"""The commands of a sweep one after the other, and a table of what became of them."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from maskedclip_composer.sweep.child import last_lines, run
from maskedclip_composer.sweep.config import EVALUATION
from maskedclip_composer.sweep.plan import Job

INTERRUPTED = 130  # exit status, as of a shell


def execute(jobs: Sequence[Job], *, again: str) -> int:
    """Run what is not done yet; a run that fails does not keep the others from their turn, only the evaluation.

    Args:
        jobs: The runs, and the evaluation where there is one.
        again: The command that continues the sweep, to be told.

    Returns:
        The exit status: 0, 1 where a command failed, 130 where the sweep was interrupted.
    """
    outcomes: dict[str, str] = {}
    failed: list[Job] = []
    try:
        with _interruptible(), tqdm(total=len(jobs), unit="run", leave=False, disable=None) as bar:
            for number, job in enumerate(jobs, start=1):
                if job.name == EVALUATION and failed:
                    outcomes[job.name] = "not started"
                elif job.is_done:
                    outcomes[job.name] = "was finished"
                else:
                    outcomes[job.name] = "stopped"  # unless the next line comes to its end
                    outcomes[job.name] = outcome = _timed(job, f"{number}/{len(jobs)} {job.name}", bar)
                    failed += [job] if outcome.startswith("FAILED") else []
                bar.update()
    except KeyboardInterrupt:
        print(f"\n{_table(jobs, outcomes)}\n\nStopped. To continue: {again}", flush=True)
        return INTERRUPTED
    print(f"\n{_table(jobs, outcomes)}", flush=True)
    for job in failed:
        print(f"\n{job.name} failed; {job.log} ends with")
        print("\n".join(f"  {line}" for line in last_lines(job.log)), flush=True)
    if failed:
        print(f"\nMend what failed; what is finished is kept. To continue: {again}", flush=True)
        return 1
    report = jobs[-1].folder / "report" / "report.html"
    if report.is_file():
        print(f"\n{report}", flush=True)
    return 0


def _timed(job: Job, label: str, bar: Any) -> str:
    start = time.monotonic()
    bar.set_description(label)
    bar.set_postfix_str("")
    bar.write(f"{label}: {job.log}")
    status = run(job, bar.set_postfix_str)
    duration = timedelta(seconds=round(time.monotonic() - start))
    return f"done in {duration}" if status == 0 else f"FAILED with status {status} after {duration}"


def _table(jobs: Sequence[Job], outcomes: dict[str, str]) -> str:
    rows = [("run", "outcome", "log")]
    for job in jobs:
        log = str(job.log) if Path(job.log).is_file() else "-"
        rows.append((job.name, outcomes.get(job.name, "not started"), log))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {outcome:{widths[1]}}  {log}" for name, outcome, log in rows)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM, which schedulers send, for Ctrl-C, and let the commands hear Ctrl-C also behind nohup."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
