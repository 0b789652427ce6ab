"""What a computation costs in numbers that are the same in every run."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


def count_flops(function: Callable[[], object]) -> int:
    """Count floating point operations of matrix products and convolutions, two for each multiplication.

    Attention runs as plain matrix products meanwhile: torch 2.7 has no formula for the CPU's fused kernel and would
    count it as nothing.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return counter.get_total_flops()


class _CallCounter(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def count_calls(function: Callable[[], object]) -> int:
    """Count the ATen operators that `function` runs, views included."""
    with _CallCounter() as counter:
        function()
    return counter.calls


def saved_bytes(forward: Callable[[], Tensor], known: Iterable[Tensor]) -> int:
    """Sum up the storages that `forward` keeps for the backward pass, without those of `known` tensors."""
    skipped = {tensor.untyped_storage().data_ptr() for tensor in known}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in skipped:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = forward()
    del graph  # alive until here: a freed address could be given out again and be counted once for two
    return sum(found.values())
