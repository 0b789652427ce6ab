"""One rank of a rehearsed run: composer -n 2 -m tests.drill.launched FOLDER FAULT RANK FILE.yaml [key=value ...].

Trains as train.py does. On the rank RANK the fault, one of `FAULTS` or none, comes at `STEP`; FOLDER/fault tells when.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from composer import Trainer
from composer.core import Event

import maskedclip_composer.build
import train
from tests.drill.runs import At, Recorder, die

STEP = 5


def stop() -> None:
    """Hang, as a process does that waits for a disk or a device that does not answer."""
    os.kill(os.getpid(), signal.SIGSTOP)


def raise_error() -> None:
    """Fail as a programming error does."""
    raise RuntimeError("a rehearsed error")


def die_with_launcher() -> None:
    """Vanish as a machine does whose power fails."""
    os.kill(os.getppid(), signal.SIGKILL)
    die()


FAULTS: dict[str, Callable[[], None]] = {fault.__name__: fault for fault in (die, stop, raise_error, die_with_launcher)}


def main(folder: Path, fault: str, bad_rank: int, arguments: list[str]) -> int:
    """Train with a fault."""
    rank = int(os.environ["RANK"])
    build = maskedclip_composer.build.build_trainer

    def act() -> None:
        (folder / "fault").write_text(str(time.time()))
        FAULTS[fault]()

    def build_with_more(config: Any) -> Trainer:
        trainer = build(config)
        trainer.state.callbacks.append(Recorder(folder / f"rank{rank}.steps", 0))
        if rank == bad_rank and fault in FAULTS:
            trainer.state.callbacks.append(At(Event.BATCH_START, STEP, act))
        return trainer

    maskedclip_composer.build.build_trainer = build_with_more  # only in this process, which ends with the run
    torch.set_num_threads(1)
    return train.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
