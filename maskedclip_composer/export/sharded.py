"""Reading a sharded checkpoint, a folder that torch.distributed.checkpoint wrote, without running what it may carry."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.checkpoint import HARMLESS, RefusedError, check_sums, read_pickle

LAYOUT = ".metadata"
# What torch 2.7 pickles into the layout beside containers, strings and numbers: records, sizes, and the folder's path.
_RECORDS = {
    (kind.__module__, kind.__qualname__)
    for kind in (
        BytesStorageMetadata,
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        StorageMeta,
        TensorProperties,
        TensorStorageMetadata,
        _StorageInfo,
    )
} | {
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
}
_MODEL = "state.model."
_IF_DAMAGED = "It may be cut short: use an earlier one of the same run."


def read_sharded(folder: Path, *, if_refused: str, with_tensors: bool = False, under: str = "") -> dict[str, Any]:
    """Read a sharded checkpoint onto the CPU, admitting what `read_checkpoint` admits.

    torch 2.7 itself unpickles the layout and whatever is no tensor, which executes code that a checkpoint carries.
    Every item is compared with its checksums, but the layout has none: a flipped bit in a name there passes.

    Args:
        folder: The checkpoint.
        if_refused: The remedy where it holds another type.
        with_tensors: Return them too. Without, only their checksums are compared.
        under: Start of the names that are read; others are neither read nor compared.

    Returns:
        What it holds by dotted name, such as `state.timestamp.Timestamp.batch`; of tensors every shard, under the name
        with the shard's offsets: `state.model.net.logit_scale[0]`.

    Raises:
        RefusedError: It holds any other type.
        UserError: A file is absent, damaged or cut short.
    """
    layout = _read_layout(folder, if_refused)
    content: dict[str, Any] = {}
    for index, place, file in _places(folder, layout):
        if not index.fqn.startswith(under):
            continue
        is_tensor = isinstance(layout.state_dict_metadata.get(index.fqn), TensorStorageMetadata)
        part = _part(file, place)
        if is_tensor and not with_tensors:
            continue
        name = f"{index.fqn}{list(index.offset or [])}" if is_tensor else index.fqn
        content[name] = read_pickle(file, HARMLESS, if_refused=if_refused, if_damaged=_IF_DAMAGED, content=part)
    return content


def read_sharded_model(folder: Path, *, if_refused: str) -> dict[str, Tensor]:
    """Return the weights of the model in a sharded checkpoint, each joined from its shards; the rest is not read.

    Raises:
        RefusedError: It holds what could run code.
        UserError: A file is absent, damaged or cut short, or a shard is missing.
    """
    layout = _read_layout(folder, if_refused)
    whole = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in layout.state_dict_metadata.items()
        if name.startswith(_MODEL) and isinstance(entry, TensorStorageMetadata)
    }
    lacking = {name: value.numel() for name, value in whole.items()}
    for index, place, file in _places(folder, layout):
        if index.fqn not in whole:
            continue
        value = read_pickle(file, HARMLESS, if_refused=if_refused, if_damaged=_IF_DAMAGED, content=_part(file, place))
        target = whole[index.fqn]
        for axis, start in enumerate(index.offset or ()):
            target = target.narrow(axis, start, value.shape[axis])
        target.copy_(value)
        lacking[index.fqn] -= value.numel()
    if any(lacking.values()):
        name = next(name for name, count in lacking.items() if count)
        raise UserError(f"{folder} does not hold every shard of {name.removeprefix(_MODEL)}.\n{_IF_DAMAGED}")
    return {name.removeprefix(_MODEL): value for name, value in whole.items()}


class _RecordsOnly(pickle.Unpickler):
    """Admits the records of a layout."""

    def __init__(self, file: io.BufferedReader, path: Path, if_refused: str):
        super().__init__(file)
        self.path, self.if_refused = path, if_refused

    def find_class(self, module: str, name: str, /) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) not in _RECORDS and not is_dtype:
            raise RefusedError(self.path, f"{module}.{name}", self.if_refused)
        return super().find_class(module, name)


def _read_layout(folder: Path, if_refused: str) -> Metadata:
    path = folder / LAYOUT
    if not path.is_file():
        raise UserError(f"{folder} is no whole checkpoint: it has no {LAYOUT}.\n{_IF_DAMAGED}")
    try:
        with path.open("rb") as file:
            layout = _RecordsOnly(file, path, if_refused).load()
    except RefusedError:
        raise
    except Exception as error:  # a damaged pickle can end in any
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}).\n{_IF_DAMAGED}") from error
    if not isinstance(layout, Metadata):
        raise UserError(f"{path} holds a {type(layout).__name__}, not a layout.\n{_IF_DAMAGED}")
    return layout


def _part(file: Path, place: _StorageInfo) -> io.BytesIO:
    """Return the bytes of one item, which agree with their checksums."""
    with file.open("rb") as stream:
        stream.seek(place.offset)
        part = io.BytesIO(stream.read(place.length))
    check_sums(file, content=part, if_damaged=_IF_DAMAGED)
    return part


def _places(folder: Path, layout: Metadata) -> Iterator[tuple[MetadataIndex, _StorageInfo, Path]]:
    """Yield where each item lies; raises UserError where that is not in a file of this folder, or beyond its end."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    for index, place in layout.storage_data.items():
        size = sizes.get(place.relative_path)
        if size is None or not 0 <= place.offset <= place.offset + place.length <= size:
            raise UserError(
                f"{folder / place.relative_path} holds {size or 0} bytes, and {index.fqn} should lie at "
                f"{place.offset} to {place.offset + place.length}.\n{_IF_DAMAGED}"
            )
        if getattr(place, "transform_descriptors", None):
            raise UserError(f"{folder}: {index.fqn} was written by an extension of torch that is not supported.")
        yield index, place, folder / place.relative_path
