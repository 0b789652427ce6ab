"""Prepare photographs in worker processes of this machine, in order and with a bounded look-ahead."""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

from data_prep.photograph import Photograph, prepare
from data_prep.remote import fetch, is_remote
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError

_BATCH = 8  # photographs handed to a worker at a time: amortises the pipe, keeps the order's look-ahead short


def prepare_in_order(paths: Iterable[str], recipe: Recipe, workers: int) -> Iterator[Photograph | str]:
    """Yield what `prepare` makes of each path or URL, in their order; one worker is this process itself.

    Raises:
        UserError: A worker process was killed, or an object store fails.
    """
    if workers == 1:
        yield from (prepare_from(path, recipe) for path in paths)
        return
    # Streaming has started threads by now, which makes a fork unsafe.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    waiting: deque[Future[list[Photograph | str]]] = deque()
    try:
        source = iter(paths)
        while batch := list(islice(source, _BATCH)):
            waiting.append(pool.submit(_prepare_batch, batch, recipe))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, most often for want of memory; run the same command again with fewer "
            f"--workers (now {workers}): finished parts are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_batch(paths: list[str], recipe: Recipe) -> list[Photograph | str]:
    return [prepare_from(path, recipe) for path in paths]


def prepare_from(path: str, recipe: Recipe) -> Photograph | str:
    """Prepare the photograph at a path or URL, or say why it cannot be used; see `photograph.prepare`."""
    if not is_remote(path):
        return prepare(path, recipe)
    # Fetched here rather than ahead: the disk holds one photograph for each worker.
    with tempfile.TemporaryDirectory(prefix="data_prep-") as folder:
        local = Path(folder, "photograph")
        return fetch(path, local) or prepare(str(local), recipe)


def _start_worker() -> None:
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool in order
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        # A worker holds both ends of the task queue: when the parent is killed it would wait for ever.
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
