"""Weights out of somebody else's file, without running what the file may carry."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.checkpoint import read_pickle
from maskedclip_composer.export.exact import listed

WRAPPER = "module."  # DistributedDataParallel's


def read_weights(path: Path, entries: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read the named tensors of a `.safetensors` file or of what torch.save wrote (.pth, .pt, .bin).

    Facebook's checkpoints hold their options as an argparse.Namespace: it is admitted, because it runs no code.
    Names that all start with `module.` are of a wrapped model and lose that prefix; where only some have it, they
    keep it, and the check against the architecture lists them.

    Args:
        path: The file.
        entries: Under which of these the weights lie; the first that is there counts, else the file is the weights.

    Raises:
        UserError: The file is absent, damaged, holds objects that could run code, or holds no weights.
    """
    if not path.is_file():
        raise UserError(f"No file with weights at {path}.\nGive a .safetensors, .pth, .pt or .bin file.")
    if path.suffix == ".safetensors":
        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a readable safetensors file ({error}).\nFetch it again.") from error
    else:
        content = read_pickle(
            path,
            [argparse.Namespace],
            if_refused="Ask its author for a .safetensors file.",
            if_damaged="It may be cut short: fetch it again.",
        )
    for entry in entries:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
            break
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds {_kind(content)}, not weights by name.")
    foreign = [f"{key}: {_kind(value)}" for key, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        where = f" or under {', '.join(entries)}" if entries else ""
        raise UserError(f"{path} does not hold weights alone{where}; it also has\n{listed(foreign)}")
    wrapped = all(key.startswith(WRAPPER) for key in content)
    return {key.removeprefix(WRAPPER) if wrapped else key: value for key, value in content.items()}


def without(weights: Mapping[str, Tensor], prefixes: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights but for those whose names start with one of the prefixes."""
    return {key: value for key, value in weights.items() if not key.startswith(tuple(prefixes))}


def _kind(value: object) -> str:
    return "nothing" if value == {} else f"a {type(value).__name__}"
