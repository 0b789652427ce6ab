"""Tensors that have a shape and no values, so that a step of any size is counted on any machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

M = TypeVar("M", bound=nn.Module)
_aten: Any = torch.ops.aten


class Shapes:
    """A world in which modules have shapes and no values: `build` makes them, `active` runs them.

    Leans on torch's FakeTensorMode (2.7): its tensors seem to lie on the CPU, so that autocast and the choice of
    kernels are a CPU's, and have no memory.
    """

    def __init__(self) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)

    def build(self, make: Callable[[], M]) -> M:
        """Build a module without making its weights; `make` must not read any."""
        with torch.device("meta"):
            module = make()
        with self._mode:
            return module.to_empty(device="cpu")

    def of(self, batch: Any) -> Any:
        """Return a nested batch of which images have no values, and all other tensors are real and on the CPU."""

        def convert(tensor: Tensor) -> Tensor:
            if tensor.dtype != torch.uint8:
                return tensor.cpu()
            with self._mode:
                return torch.empty(tensor.shape, dtype=tensor.dtype)

        return tree_map_only(Tensor, convert, batch)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run operators on shapes, where any of their tensors has no values."""
        with self._mode, _RealNumbers():
            yield


class _RealNumbers(TorchDispatchMode):
    """Computes what depends on given numbers alone, so that shapes that follow from them are known.

    Labels, texts and masks decide how many rows a step has (`unique`, `tensor[mask]`, `int(tensor)`), which tensors
    without values cannot tell. They are small and come with the batch: operators of real tensors alone run, as do those
    that make integers; all others give tensors without values.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(isinstance(tensor, FakeTensor) for tensor in tensors):
            if func is _aten.index.Tensor:
                args = (args[0], _positions(args[1]))
            if func is _aten._local_scalar_dense.default and args[0].dtype == torch.bool:
                return False
            return func(*args, **kwargs)
        if tensors or func is _aten.scalar_tensor.default or not _makes_floats(args, kwargs):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def _positions(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Turn real boolean masks into the positions that they select."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is None or isinstance(index, FakeTensor) or index.dtype != torch.bool:
            found.append(index)
            continue
        with unset_fake_temporarily():
            found += index.nonzero(as_tuple=True)
    return found


def _makes_floats(args: Any, kwargs: dict[str, Any]) -> bool:
    dtype = kwargs.get("dtype")
    if dtype is None:  # numbers of the kind that is given, as in arange, or torch's default
        return any(isinstance(leaf, float) for leaf in tree_leaves(args))
    return dtype.is_floating_point
