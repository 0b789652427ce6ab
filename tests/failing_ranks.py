"""What ranks of `test_rank_failure.py` do: each ends as train.py would, with the status and words of `stop`."""

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from maskedclip_composer import rank_board, rank_failure
from maskedclip_composer.errors import UserError

COMMAND = "train.py"


def rank() -> int:
    return int(os.environ["RANK"])


def ending_as_train(work: Callable[[], None]) -> None:
    rank_failure._PATIENCE, rank_board.INTERVAL = 1.0, 0.3
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # as Composer does
    try:
        dist.init_process_group("gloo")
        rank_failure.share_failures(COMMAND)
        work()
    except (Exception, SystemExit) as error:
        sys.exit(rank_failure.stop(error, COMMAND))


def wait_for_others() -> None:
    dist.all_reduce(torch.ones(1))


def bad_photograph() -> None:
    raise UserError("data.paired: eye7.jpg cannot be read.\nCheck it.")


def programming_error() -> None:
    raise RuntimeError("boom")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_the_last_rank(action: Callable[[], None], folder: Path) -> None:
    """The others wait for it in a collective."""
    is_last = rank() == int(os.environ["WORLD_SIZE"]) - 1
    ending_as_train(action if is_last else wait_for_others)


def on_the_first(folder: Path) -> None:
    ending_as_train(bad_photograph if rank() == 0 else wait_for_others)


def on_all(folder: Path) -> None:
    ending_as_train(bad_photograph)


def before_the_group(folder: Path) -> None:
    """One rank cannot read what is read before ranks know of each other."""
    try:
        if rank() == 1:
            bad_photograph()
        dist.init_process_group("gloo")
    except (Exception, SystemExit) as error:
        sys.exit(rank_failure.stop(error, COMMAND))


def alone(folder: Path) -> None:
    """The other node is never started."""
    if rank() == 0:
        try:
            dist.init_process_group("gloo", timeout=timedelta(seconds=2))
        except (Exception, SystemExit) as error:
            sys.exit(rank_failure.stop(error, COMMAND))


def while_the_first_computes(folder: Path) -> None:
    """The first rank is not in a collective, and so learns of it from the store alone."""
    rank_board.GRACE = 0.5
    ending_as_train(bad_photograph if rank() == 1 else partial(time.sleep, 200))


if __name__ == "__main__":
    on_the_last_rank(globals()[sys.argv[1]], Path())
