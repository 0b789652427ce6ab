"""The whole weights of a model out of a sharded checkpoint."""

import json
from pathlib import Path

import torch
from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.sharded import read_sharded

_MODEL = "state.model."


def read_sharded_model(folder: Path) -> dict[str, Tensor]:
    """Put the shards of every weight together; optimiser state is not read.

    Args:
        folder: The checkpoint.

    Returns:
        Weights under the names that a checkpoint of one file has in `state.model`.

    Raises:
        RefusedError: As in `read_sharded`.
        UserError: It is damaged, or shards do not cover a weight.
    """
    refused = "Use the encoder.safetensors of the run instead."
    shards: dict[str, list[tuple[list[int], Tensor]]] = {}
    for name, value in read_sharded(folder, if_refused=refused, with_tensors=True, under=_MODEL).items():
        if isinstance(value, Tensor):
            weight, bracket, offsets = name.removeprefix(_MODEL).rpartition("[")
            shards.setdefault(weight, []).append((json.loads(bracket + offsets), value))
    return {name: _joined(folder, name, parts) for name, parts in shards.items()}


def _joined(folder: Path, name: str, parts: list[tuple[list[int], Tensor]]) -> Tensor:
    first = parts[0][1]
    if len(parts) == 1 and not any(parts[0][0]):
        return first
    ends = [[start + size for start, size in zip(offsets, part.shape, strict=True)] for offsets, part in parts]
    whole = first.new_empty([max(sizes) for sizes in zip(*ends, strict=True)])
    covered = torch.zeros(whole.shape, dtype=torch.bool)
    for offsets, part in parts:
        place = tuple(slice(start, start + size) for start, size in zip(offsets, part.shape, strict=True))
        whole[place], covered[place] = part, True
    if not covered.all():
        raise UserError(f"{folder} lacks a shard of {name}.\nIt may be cut short: use an earlier one of the same run.")
    return whole
