"""The first failure of a rank's loader processes, known to all of them."""

import multiprocessing
from ctypes import c_bool, c_char

from maskedclip_composer.errors import UserError


class SharedFailure:
    """The first failure in any loader process of this rank, in place of the `threading.Event` that Streaming polls.

    A process that waits for a shard which another one failed to fetch would wait for ever, and the loader takes batches
    in order, so it is the waiting process that has to raise, with the other's cause.
    """

    def __init__(self) -> None:
        self._flag = multiprocessing.RawValue(c_bool, False)
        self._message = multiprocessing.RawArray(c_char, 4096)

    def is_set(self) -> bool:
        """Whether any process has failed."""
        return self._flag.value

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
        cause = self._message.value.decode(errors="replace")
        return UserError(cause or "data: reading stopped before the epoch's end; see the traceback above")
