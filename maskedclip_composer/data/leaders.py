"""What one rank of each machine does before the others may."""

import time
from collections.abc import Callable
from typing import TypeVar

from streaming.base.world import World
from torch import distributed

from maskedclip_composer.data.threads import DaemonThreads
from maskedclip_composer.errors import UserError

T = TypeVar("T")

# Seconds between looks at the others: each is a collective, which is short, so that no time limit of theirs is met.
_PAUSE = 0.1


def leaders_first(call: Callable[[], T]) -> T:
    """Return `call()`, called by each machine's first rank, and by the others once all of these have succeeded.

    Every rank must call; where torch.distributed is not initialised nobody waits.

    Raises:
        UserError: On every rank, what the call raised on one of the first ranks.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return call()
    world = World.detect()
    outcome = DaemonThreads().submit(call) if world.is_local_leader else None
    while True:
        ended = outcome is None or outcome.done()
        error = outcome.exception() if outcome is not None and ended else None
        said: list[tuple[bool, str]] = [(False, "")] * distributed.get_world_size()
        distributed.all_gather_object(said, (ended, str(error) if error else ""))
        if error is not None:
            raise error
        if failure := next((text for _, text in said if text), None):
            raise UserError(failure)
        if all(ended for ended, _ in said):
            return call() if outcome is None else outcome.result()
        time.sleep(_PAUSE)
