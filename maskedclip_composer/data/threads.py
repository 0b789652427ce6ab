"""Threads that do not keep a process from ending."""

import threading
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


def call_within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return `call()`; raises TimeoutError where it takes longer, and leaves it to itself."""
    outcome = DaemonThreads().submit(call)
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():
            raise
        raise TimeoutError(f"not complete after {seconds:g} seconds") from None
