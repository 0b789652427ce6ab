"""Threads that do not keep a process from ending."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class DaemonThreads:
    """Starts a daemon thread for each call, in place of the `ThreadPoolExecutor` that Streaming makes.

    Python waits for an executor's threads before it exits: a run that stops for any reason would first fetch all the
    shards of its epoch.
    """

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call in a thread of its own and return what will be its result."""
        outcome: Future[Any] = Future()

        def run() -> None:
            try:
                result = call(*arguments)
            except BaseException as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        threading.Thread(target=run, daemon=True).start()
        return outcome


class Stopped(Exception):
    """What a thread waited for is not wanted any more."""


def call_within(seconds: float, call: Callable[[], Any], is_stopped: Callable[[], bool]) -> Any:
    """Return `call()`.

    Raises:
        TimeoutError: It takes longer than `seconds`; it is left to itself.
        Stopped: `is_stopped` while waiting; likewise.
    """
    outcome = DaemonThreads().submit(call)
    if wait_until(outcome.done, seconds, is_stopped):
        return outcome.result()
    raise TimeoutError(f"not complete after {seconds:g} seconds")


def wait_until(is_done: Callable[[], bool], seconds: float, is_stopped: Callable[[], bool]) -> bool:
    """Wait for `is_done`; return whether it was, within `seconds`. Raises Stopped where `is_stopped` meanwhile."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while not is_done():
        if is_stopped():
            raise Stopped
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return True
