"""When one rank fails, all stop and say why.

Composer's launcher (0.32.1) ends the ranks of its machine as soon as one of them has ended with an error. It shows what
each machine's first rank writes, and afterwards what ranks have written that failed by themselves. Without this file
the first rank would end in a traceback of its broken connection, and on other machines nothing would tell why. So a
rank that fails leaves its reason in the store in which the ranks have found each other, and the others look there.
"""

import atexit
import os
import signal
import sys
import time
from functools import partial

from maskedclip_composer import rank_board
from maskedclip_composer.callbacks.redaction import print_traceback
from maskedclip_composer.errors import UserError, report
from maskedclip_composer.rank_board import Board, Failure, is_shown, local_ranks, node, rank, ranks

# Seconds.
_FIRST_RANK_FIRST = 1.0  # where all ranks fail alike, each machine's first one is to say it, the others end silently
_IMPORTING = 3.0  # likewise where nothing is imported yet, which takes ranks differently long
_PATIENCE = 5.0  # with other ranks to say why they have gone, and with the launcher to end this one

_board: Board | None = None


def share_failures(command: str | None = None) -> None:
    """Tell other ranks from here on when this one fails, and stop when another has; once the process group stands.

    A thread looks for failures, because a rank may wait on a device for one that has gone: NCCL does so for ever.

    Args:
        command: Stands before messages; None for the name of the program that runs, for example train.py.
    """
    global _board
    if ranks() > 1 and _board is None:
        from torch import distributed

        _board = Board(partial(_end_after, command=command or os.path.basename(sys.argv[0])))
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
    if ranks() == 1:
        if isinstance(error, UserError):
            return report(error, command)
        raise error
    if _board is not None and _board.is_ending.is_set():  # and this error only follows from what it closes
        time.sleep(rank_board.CLOSING + _PATIENCE + 1)
    # The launcher ends the others when one has ended. What it shows is to come to its end, and to its exit status.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if is_shown() else signal.SIG_DFL)
    if _board is None:
        if isinstance(error, SystemExit):
            raise error
        if not is_shown():
            time.sleep(_IMPORTING)
        if _is_broken_connection(error):
            error = _not_met(error)
        return _say(error, command, "" if is_shown() else f" on rank {rank()} of {ranks()}")
    if isinstance(error, SystemExit):
        cause = _board.cause(wait=0)
        if cause is None:
            raise error
        status = _end_after(cause, command)
    elif _is_broken_connection(error):
        status = _end_of_a_connection(error, _board, command)
    else:
        status = _end_of_its_own(error, _board, command)
    if rank() == 0 and ranks() > local_ranks():
        # With this process the store goes, and other machines' ranks are to look there first.
        time.sleep(rank_board.INTERVAL + 1)
    # Python's own end would wait for torch's threads of a broken process group, or abort in them (torch 2.7).
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_of_its_own(error: BaseException, board: Board, command: str) -> int:
    if not is_shown():
        time.sleep(_FIRST_RANK_FIRST)
    cause = board.claim(error)
    if cause is not None and not is_shown():
        return _end_after(cause, command)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _say(error, command, f" on rank {rank()} of {ranks()}")


def _end_of_a_connection(error: BaseException, board: Board, command: str) -> int:
    cause = board.cause(wait=_PATIENCE)
    if cause is not None:
        return _end_after(cause, command)
    if not is_shown():
        time.sleep(_PATIENCE)
    silent = board.silent()
    missing = ", ".join(silent) + (" does" if len(silent) == 1 else " do") if silent else "Another rank does"
    print_traceback(error)
    print(
        f"\n{command}: error on rank {rank()} of {ranks()}\n  The connection to the other ranks broke, or the time "
        f"to wait for them was over.\n  {missing[0].upper()}{missing[1:]} not answer: killed (out of memory?), "
        "hanging, or its machine is gone.\n  The same command goes on from what is saved.",
        file=sys.stderr,
        flush=True,
    )
    return 1


def _say(error: BaseException, command: str, where: str) -> int:
    if isinstance(error, UserError):
        return report(error, command, where)
    print_traceback(error)
    print(f"\n{command}: stopped by the error above{where}", file=sys.stderr, flush=True)
    return 1


def _end_after(cause: Failure, command: str) -> int:
    """Say in the machine's first rank which rank has failed, and with what, unless its own launcher says that."""
    if not is_shown():
        time.sleep(_PATIENCE)  # the launcher ends this process before it, silently
        return cause.status
    if cause.node == node():
        text = f"{command}: rank {cause.rank} has failed; see below for its message."
    else:
        text = f"{command}: rank {cause.rank} on {cause.host} has failed:\n\n{cause.text}"
    print(f"\n{text}", file=sys.stderr, flush=True)
    return cause.status


def _not_met(error: BaseException) -> UserError:
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    first, *_ = str(error).splitlines() or [""]
    return UserError(
        f"The {ranks()} ranks did not all meet at {place} ({first}).\nStart a launcher on every node, each "
        "with its own --node_rank and the same --world_size, --master_addr and --master_port; see whether another node "
        "has failed, and whether that port can be reached."
    )


def _is_broken_connection(error: BaseException) -> bool:
    if "torch" not in sys.modules:  # nor is there a connection
        return False
    from torch.distributed import DistError

    # Of gloo's errors torch 2.7 makes plain RuntimeErrors; their text names the source file.
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))
