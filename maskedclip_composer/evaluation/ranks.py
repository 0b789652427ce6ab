"""Sharing evaluation work between processes, and none of it where there is one process."""

from typing import TypeVar

from torch import distributed

T = TypeVar("T")

# Ranks wait for one that downloads a whole split or decodes every photograph; Composer's 300 s would end them.
DIST_TIMEOUT = 3600.0  # seconds


def rank() -> int:
    """Return this process's number, 0 where there is one process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gather_objects(value: T) -> list[T]:
    """Return every rank's value, in the order of the ranks; all ranks must call."""
    if world_size() == 1:
        return [value]
    values: list = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values
