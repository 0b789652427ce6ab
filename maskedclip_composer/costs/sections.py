"""What passes between named places of a step: seconds, operations or bytes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

REST = "rest"  # what passes outside of all sections


class Sections(Generic[T]):
    """Reads a counter or a clock wherever a section begins or ends.

    Sections may lie in each other; what passes in an inner one is not counted for the outer one.

    Args:
        read: Returns the present reading, such as `time.perf_counter`.
    """

    def __init__(self, read: Callable[[], T]):
        self._read = read
        self._inside: list[str] = []
        self._base = REST
        self._marks: list[tuple[str, T]] = []

    def begin(self, name: str) -> None:
        """Let a section begin that lasts until the next one begins; it must not be within another."""
        assert not self._inside
        self._base = name
        self._mark(name)

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count what passes inside for `name`."""
        self._inside.append(name)
        self._mark(name)
        try:
            yield
        finally:
            self._inside.pop()
            self._mark(self._inside[-1] if self._inside else self._base)

    def totals(self, between: Callable[[T, T], float]) -> dict[str, float]:
        """Return what passed in each section from the first mark to the last, by name.

        Args:
            between: Takes two readings, the earlier first, to what passed between them.
        """
        found: dict[str, float] = {}
        for (name, first), (_, second) in zip(self._marks, self._marks[1:], strict=False):
            found[name] = found.get(name, 0) + between(first, second)
        return found

    def _mark(self, name: str) -> None:
        self._marks.append((name, self._read()))
