"""Gathering features over ranks."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
import torch.nn.functional as F
from torch import Tensor

_apart = False


@contextmanager
def apart() -> Iterator[None]:
    """Let this rank compute as if there were no other, for what the others do not take part in."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


def gather_with_gradient(features: Tensor) -> Tensor:
    """Concatenate [n, ...] of all ranks to [ranks * n, ...], with gradients to every rank's rows.

    The backward pass adds the gradients that all ranks computed for this rank's rows. When every rank computes the same
    loss of the gathered rows, DDP's average over ranks then is the gradient of a single process.
    """
    if _is_alone():
        return features
    gathered = torch.cat(dist_functional.all_gather(features.contiguous()))
    if gathered.requires_grad:
        # With gloo torch 2.7 receives gradients into tensors of their own strides, but sends contiguous ones: a
        # transposed gradient, as of an einsum, would arrive scrambled.
        gathered.register_hook(lambda gradient: gradient.contiguous())
    return gathered


def gather(values: Tensor) -> Tensor:
    """Concatenate [n, ...] of all ranks to [ranks * n, ...], without gradients."""
    if _is_alone():
        return values
    gathered = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, values.contiguous())
    return torch.cat(gathered)


def gather_table_with_gradient(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate tables [rows, dim] of all ranks, with gradients, and the indices [n] of all ranks into them.

    Ranks may differ in rows: each table ends with zeros up to the longest of them, which no index points to.

    Returns:
        The table [ranks * longest, dim], and the indices into it, [ranks * n].
    """
    if _is_alone():
        return table, index
    longest = max_on_hosts(len(table))
    padded = F.pad(table, (0, 0, 0, longest - len(table)))
    return gather_with_gradient(padded), gather(index + dist.get_rank() * longest)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Add up a tensor of equal shape over ranks, without gradients."""
    if _is_alone():
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor) -> Tensor:
    """Average a tensor of equal shape over ranks, without gradients.

    A sum over a rank's items divided by the ranks' mean count becomes, under DDP's average over ranks, the mean over
    all ranks' items, however unevenly they are spread.
    """
    if _is_alone():
        return values
    return sum_over_ranks(values) / dist.get_world_size()


def max_over_ranks(value: Tensor) -> Tensor:
    """Return the largest value that any rank has, element by element."""
    if _is_alone():
        return value
    largest = value.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def max_on_hosts(value: int) -> int:
    """Return the largest value that any rank has, without waiting for a device."""
    if _is_alone():
        return value
    assert dist.group.WORLD is not None
    largest = torch.tensor(value, device="cpu")
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=_group_of_hosts(dist.group.WORLD))
    return int(largest)


@cache
def _group_of_hosts(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """Return a group that takes tensors on the CPU. Composer 0.32.1 starts NCCL alone on GPUs, which takes none.

    Args:
        world: The default group; another one, of a later start in the same process, gets a group of its own.
    """
    if dist.get_backend(world) == "gloo":
        return world
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    return group


def _is_alone() -> bool:
    return _apart or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
