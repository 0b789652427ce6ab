"""What a model can be exported to: a module for each, with `write`, `recompute` and `WITH_TEXTS`."""

import importlib
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.golden import Golden
from maskedclip_composer.export.source import Source

# Imported when they are called for: transformers takes seconds, and ONNX may not be installed.
_MODULES = {"timm": "to_timm", "hf": "to_hugging_face", "onnx": "to_onnx", "safetensors": "to_safetensors"}


class LibraryError(UserError):
    """A library that a target is for is not installed."""


class Target(Protocol):
    """A module that writes an exported folder and reads it again.

    Attributes:
        WITH_TEXTS: Whether the text encoder is exported, too, where there is one.
    """

    WITH_TEXTS: bool

    def write(self, source: Source, folder: Path) -> list[str]:
        """Write the folder; return notes for the user."""
        ...

    def recompute(self, folder: Path, golden: Golden) -> dict[str, Tensor]:
        """Return what the folder makes of the golden inputs with the target's own loader, as `loader: name`."""
        ...


def target_of(name: str) -> Target:
    """Return the module of a target.

    Raises:
        UserError: There is none of this name.
    """
    if name not in _MODULES:
        raise UserError(f"golden.json says target={name!r}; known are {', '.join(_MODULES)}.\nExport the model again.")
    return cast(Target, importlib.import_module(f"maskedclip_composer.export.{_MODULES[name]}"))
