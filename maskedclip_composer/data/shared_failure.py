"""The first failure of a rank's loader processes, known to all of them."""

import multiprocessing
import os
from ctypes import c_bool, c_char

from torch.utils.data import get_worker_info

from maskedclip_composer.errors import UserError


class SharedFailure:
    """The first failure in any loader process of this rank, in place of the `threading.Event` that Streaming polls.

    A process that waits for a shard which another one failed to fetch would wait for ever, and the loader takes batches
    in order, so it is the waiting process that has to raise, with the other's cause.
    """

    def __init__(self) -> None:
        self._flag = multiprocessing.RawValue(c_bool, False)
        self._message = multiprocessing.RawArray(c_char, 4096)
        self._parent: int | None = None

    def watch_parent(self) -> None:
        """In a loader process: count the end of the training process, which may be killed, as a failure.

        Otherwise this process would go on reading what nobody asks for, in a cache that the next run wants.
        """
        self._parent = os.getppid() if get_worker_info() is not None else None

    def is_set(self) -> bool:
        """Whether any process has failed."""
        return self._flag.value or self._is_orphan()

    def _is_orphan(self) -> bool:
        return self._parent is not None and os.getppid() != self._parent

    def set(self) -> None:
        """Tell every process to stop."""
        self._flag.value = True

    def record(self, error: BaseException) -> None:
        """Keep the first cause and tell every process to stop."""
        if not self._flag.value:
            self._message.value = str(error).encode()[:4095]
        self.set()

    def error(self) -> UserError:
        """Return the first cause as the exception to raise."""
        if self._is_orphan():
            return UserError("data: the training process has ended")
        cause = self._message.value.decode(errors="replace")
        return UserError(cause or "data: reading stopped before the epoch's end; see the traceback above")
