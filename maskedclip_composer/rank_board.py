"""What the ranks of a run know of each other's end, in the store in which they have found each other."""

import atexit
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.errors import UserError

_PREFIX = "maskedclip_composer"
_FAILURE = f"{_PREFIX}/failure"
_ASKED = f"{_PREFIX}/asked"  # that a rank has lost its connection and asks which of the others are alive
INTERVAL = 2.0  # seconds between looks at the store
GRACE = 10.0  # seconds for a rank that has not noticed another's failure, because it waits for a device, say
CLOSING = 15.0  # seconds that what is registered for the end may then take, such as a tracker; launchers give 30
_TIMEOUT = timedelta(seconds=10)  # of the store


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The first failure of a run.

    Attributes:
        rank: Who failed.
        node: The number of its machine.
        host: The name of its machine.
        status: What the process exits with.
        text: The message, or the traceback.
    """

    rank: int
    node: int
    host: str
    status: int
    text: str


class Board:
    """The first failure of a run, posted for all ranks in torch's store on rank 0's machine.

    Args:
        end: Ends this process after another rank's failure that it has not noticed itself; returns the exit status.
    """

    def __init__(self, end: Callable[[Failure], int]) -> None:
        from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

        self._end = end
        # A client of its own: the process group's waits for other ranks while it holds a lock.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store: Any = TCPStore(address, port, is_master=False, timeout=_TIMEOUT, wait_for_workers=False)
        self._store.set(f"{_PREFIX}/host/{rank()}", socket.gethostname())
        self._seen: Failure | None = None  # kept, because the store may be gone when it is asked for
        self._closed = threading.Event()
        self.is_ending = threading.Event()  # set once this process is being ended from the thread
        self._thread = threading.Thread(target=self._watch, name="rank failures", daemon=True)
        self._thread.start()
        # A thread that is inside torch while Python shuts down would end the process with an abort.
        atexit.register(self._close)

    def claim(self, error: BaseException) -> Failure | None:
        """Note this rank's failure as the run's; return the failure of another rank that was first."""
        is_users = isinstance(error, UserError)
        text = str(error) if is_users else "".join(traceback.format_exception(error))
        own = Failure(
            rank=rank(),
            node=node(),
            host=socket.gethostname(),
            status=2 if is_users else 1,
            text=redact_text(text).strip(),
        )
        try:
            first = Failure(**json.loads(self._store.compare_set(_FAILURE, "", json.dumps(asdict(own)))))
        except RuntimeError:  # rank 0 has gone, and the store with it
            return None
        return first if first.rank != own.rank else None

    def cause(self, *, wait: float) -> Failure | None:
        """Return the failure of another rank, None if there is none within `wait` seconds or rank 0 has gone."""
        deadline = time.monotonic() + wait
        try:
            self._store.set(_ASKED, "")
            while self._seen is None and not self._store.check([_FAILURE]):
                if time.monotonic() >= deadline:
                    return None
                time.sleep(0.1)
            self._seen = self._seen or Failure(**json.loads(self._store.get(_FAILURE)))
        except RuntimeError:
            pass
        return self._seen if self._seen is not None and self._seen.rank != rank() else None

    def silent(self) -> list[str]:
        """Name the ranks that have not answered since `cause` has asked."""
        try:
            silent = [other for other in range(ranks()) if not self._store.check([f"{_PREFIX}/alive/{other}"])]
            return [f"rank {other} on {self._store.get(f'{_PREFIX}/host/{other}').decode()}" for other in silent]
        except RuntimeError:
            return ["rank 0"]

    def _watch(self) -> None:
        while not self._closed.wait(INTERVAL):
            try:
                if self._store.check([_ASKED]):
                    self._store.set(f"{_PREFIX}/alive/{rank()}", "")
                if not self._store.check([_FAILURE]):
                    continue
                self._seen = Failure(**json.loads(self._store.get(_FAILURE)))
            except RuntimeError:
                return
            if not self._closed.wait(GRACE) and self._seen.rank != rank():
                self._leave(self._seen)
            return

    def _leave(self, failure: Failure) -> None:
        """End this process from the thread: the first one may wait for a device for ever.

        Python's own end does not come about so. What is registered for it does run, which delivers metrics, ends the
        tracker's run and the loader processes, and removes shared memory; none of it waits for other ranks.
        """
        self.is_ending.set()
        status = self._end(failure)
        limit = threading.Timer(CLOSING, os._exit, [status])
        limit.daemon = True
        limit.start()
        atexit._run_exitfuncs()
        limit.cancel()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def _close(self) -> None:
        self._closed.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)


def rank() -> int:
    """Return this process's number."""
    return int(os.environ.get("RANK", 0))


def ranks() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_ranks() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_shown() -> bool:
    """Whether the launcher shows what this process writes at once."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def node() -> int:
    """Return this machine's number."""
    return int(os.environ.get("NODE_RANK", 0))
