"""What a computation costs in numbers that are the same in every run, also of tensors without values."""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_aten = torch.ops.aten


def flop_counter() -> FlopCounterMode:
    """Return torch's counter of matrix products and convolutions, two operations for each multiplication.

    torch 2.7 has no formula for the CPU's fused attention and would count it as nothing. Ours counts what the plain
    formula computes: that the fused backward pass computes the scores again is a way to do it, not part of the task.
    """
    formulas = {
        _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=formulas)


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * sdpa_flop_count(query, key, value)


def count_flops(function: Callable[[], object]) -> int:
    """Count floating point operations as `flop_counter` does."""
    with flop_counter() as counter:
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


class SavedBytes:
    """Sums up the storages that are kept for a backward pass.

    Args:
        known: Tensors that do not count, such as parameters and the batch.
    """

    def __init__(self, known: Iterable[Tensor]):
        self._known = {_storage(tensor) for tensor in known}
        self._found: dict[int, int] = {}
        self._alive: list[Tensor] = []

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Count what the forward passes inside keep."""

        def pack(tensor: Tensor) -> Tensor:
            if (storage := _storage(tensor)) not in self._known:
                self._found[storage] = tensor.untyped_storage().nbytes()
                self._alive.append(tensor)  # a freed address could be given out again, and be counted once for two
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
        self._alive.clear()

    @property
    def total(self) -> int:
        """Bytes so far."""
        return sum(self._found.values())


def saved_bytes(forward: Callable[[], Tensor], known: Iterable[Tensor]) -> int:
    """Sum up the storages that `forward` keeps for the backward pass, without those of `known` tensors."""
    saved = SavedBytes(known)
    with saved.watch():
        graph = forward()
    del graph
    return saved.total


class PeakBytes(TorchDispatchMode):
    """Follows how much memory the operators inside hold at once: `peak` bytes, without what was there before.

    Args:
        known: Tensors that were there before and may be written to.
    """

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self._seen = {_storage(tensor) for tensor in known}
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (key := _storage(tensor)) not in self._seen:
                storage = tensor.untyped_storage()
                self._seen.add(key)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._free, key, storage.nbytes())
        self.peak = max(self.peak, self._now)
        return result

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size


def _storage(tensor: Tensor) -> int:
    # Not data_ptr: tensors without values have none.
    return tensor.untyped_storage()._cdata
