"""When one rank fails, all stop and say why.

Composer's launcher (0.32.1) ends the ranks of its machine as soon as one of them has ended with an error. It shows what
each machine's first rank writes, and afterwards what ranks have written that failed by themselves. Without this file
the first rank would end in a traceback of its broken connection, and on other machines nothing would tell why. So a
rank that fails leaves its reason in the store in which the ranks have found each other, and the others look there.
"""

import atexit
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from maskedclip_composer.errors import UserError, report

_PREFIX = "maskedclip_composer"
_FAILURE = f"{_PREFIX}/failure"
_ASKED = f"{_PREFIX}/asked"  # that a rank has lost its connection and asks which of the others are alive
# Seconds.
_FIRST_RANK_FIRST = 1.0  # where all ranks fail alike, each machine's first one is to say it, the others end silently
_IMPORTING = 3.0  # likewise where nothing is imported yet, which takes ranks differently long
_PATIENCE = 5.0  # with other ranks to say why they have gone, and with the launcher to end this one
_INTERVAL = 2.0  # between looks at the store
_GRACE = 10.0  # for a rank that has not noticed another's failure, because it waits for a device, say
_STORE = timedelta(seconds=10)

_board: "_Board | None" = None


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


def share_failures(command: str) -> None:
    """Tell other ranks from here on when this one fails, and stop when another has; once the process group stands.

    A thread looks for failures, because a rank may wait on a device for one that has gone: NCCL does so for ever.

    Args:
        command: Stands before messages, for example train.py.
    """
    global _board
    if _ranks() > 1 and _board is None:
        from torch import distributed

        _board = _Board(command)
        distributed.barrier()  # a rank that fails at once may take the store with it before the others have found it


def stop(error: BaseException, command: str) -> int:
    """Say why this process ends, once for all ranks, and return its exit status, or end it where there are more ranks.

    Args:
        error: What it ends with. A UserError gives status 2, anything else a traceback and 1.
        command: Stands before messages, for example train.py.

    Raises:
        BaseException: `error` itself, where there is one rank and it is no UserError, or where it is the end that a
            signal has asked for and no rank has failed.
    """
    if _ranks() == 1:
        if isinstance(error, UserError):
            return report(error, command)
        raise error
    # The launcher ends the others when one has ended. What it shows is to come to its end, and to its exit status.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if _is_shown() else signal.SIG_DFL)
    if _board is None:
        if isinstance(error, SystemExit):
            raise error
        if not _is_shown():
            time.sleep(_IMPORTING)
        if _is_broken_connection(error):
            error = _not_met(error)
        return _say(error, command, "" if _is_shown() else f" on rank {_rank()} of {_ranks()}")
    if isinstance(error, SystemExit):
        cause = _board.cause(wait=0)
        if cause is None:
            raise error
        status = _end_after(cause, command)
    elif _is_broken_connection(error):
        status = _end_of_a_connection(error, _board, command)
    else:
        status = _end_of_its_own(error, _board, command)
    if _rank() == 0 and _ranks() > _local_ranks():
        time.sleep(_INTERVAL + 1)  # with this process the store goes, and other machines' ranks are to look there first
    # Python's own end would wait for torch's threads of a broken process group, or abort in them (torch 2.7).
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_of_its_own(error: BaseException, board: "_Board", command: str) -> int:
    if not _is_shown():
        time.sleep(_FIRST_RANK_FIRST)
    cause = board.claim(error)
    if cause is not None and not _is_shown():
        return _end_after(cause, command)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _say(error, command, f" on rank {_rank()} of {_ranks()}")


def _end_of_a_connection(error: BaseException, board: "_Board", command: str) -> int:
    cause = board.cause(wait=_PATIENCE)
    if cause is not None:
        return _end_after(cause, command)
    if not _is_shown():
        time.sleep(_PATIENCE)
    silent = board.silent()
    missing = ", ".join(silent) + (" does" if len(silent) == 1 else " do") if silent else "Another rank does"
    traceback.print_exception(error)
    print(
        f"\n{command}: error on rank {_rank()} of {_ranks()}\n  The connection to the other ranks broke, or the time "
        f"to wait for them was over.\n  {missing[0].upper()}{missing[1:]} not answer: killed (out of memory?), "
        "hanging, or its machine is gone.\n  The same command goes on from what is saved.",
        file=sys.stderr,
        flush=True,
    )
    return 1


def _say(error: BaseException, command: str, where: str) -> int:
    if isinstance(error, UserError):
        return report(error, command, where)
    traceback.print_exception(error)
    print(f"\n{command}: stopped by the error above{where}", file=sys.stderr, flush=True)
    return 1


def _end_after(cause: Failure, command: str) -> int:
    """Say in the machine's first rank which rank has failed, and with what, unless its own launcher says that."""
    if not _is_shown():
        time.sleep(_PATIENCE)  # the launcher ends this process before it, silently
        return cause.status
    if cause.node == _node():
        text = f"{command}: rank {cause.rank} has failed; see below for its message."
    else:
        text = f"{command}: rank {cause.rank} on {cause.host} has failed:\n\n{cause.text}"
    print(f"\n{text}", file=sys.stderr, flush=True)
    return cause.status


def _not_met(error: BaseException) -> UserError:
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    first, *_ = str(error).splitlines() or [""]
    return UserError(
        f"The {_ranks()} ranks did not all meet at {place} ({first}).\nStart a launcher on every node, each "
        "with its own --node_rank and the same --world_size, --master_addr and --master_port; see whether another node "
        "has failed, and whether that port can be reached."
    )


def _is_broken_connection(error: BaseException) -> bool:
    if "torch" not in sys.modules:  # nor is there a connection
        return False
    from torch.distributed import DistError

    # Of gloo's errors torch 2.7 makes plain RuntimeErrors; their text names the source file.
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


class _Board:
    """What the ranks of a run know of each other's end, in torch's store on rank 0's machine."""

    def __init__(self, command: str) -> None:
        from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

        self.command = command
        # A client of its own: the process group's waits for other ranks while it holds a lock.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store: Any = TCPStore(address, port, is_master=False, timeout=_STORE, wait_for_workers=False)
        self._store.set(f"{_PREFIX}/host/{_rank()}", socket.gethostname())
        self._seen: Failure | None = None  # kept, because the store may be gone when it is asked for
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rank failures", daemon=True)
        self._thread.start()
        # A thread that is inside torch while Python shuts down would end the process with an abort.
        atexit.register(self._close)

    def claim(self, error: BaseException) -> Failure | None:
        """Note this rank's failure as the run's; return the failure of another rank that was first."""
        is_users = isinstance(error, UserError)
        text = str(error) if is_users else "".join(traceback.format_exception(error))
        own = Failure(
            rank=_rank(), node=_node(), host=socket.gethostname(), status=2 if is_users else 1, text=text.strip()
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
        return self._seen if self._seen is not None and self._seen.rank != _rank() else None

    def silent(self) -> list[str]:
        """Name the ranks that have not answered since `cause` has asked."""
        try:
            silent = [rank for rank in range(_ranks()) if not self._store.check([f"{_PREFIX}/alive/{rank}"])]
            return [f"rank {rank} on {self._store.get(f'{_PREFIX}/host/{rank}').decode()}" for rank in silent]
        except RuntimeError:
            return ["rank 0"]

    def _watch(self) -> None:
        while not self._closed.wait(_INTERVAL):
            try:
                if self._store.check([_ASKED]):
                    self._store.set(f"{_PREFIX}/alive/{_rank()}", "")
                if not self._store.check([_FAILURE]):
                    continue
                self._seen = Failure(**json.loads(self._store.get(_FAILURE)))
            except RuntimeError:
                return
            if not self._closed.wait(_GRACE) and self._seen.rank != _rank():
                os._exit(_end_after(self._seen, self.command))
            return

    def _close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=1.0)


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def _local_ranks() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _is_shown() -> bool:
    """Whether the launcher shows what this process writes at once."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def _node() -> int:
    return int(os.environ.get("NODE_RANK", 0))
