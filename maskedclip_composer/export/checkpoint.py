"""Reading a Composer checkpoint without running what it may carry."""

import datetime
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar  # pyright: ignore[reportAttributeAccessIssue]
from torch.torch_version import TorchVersion

from maskedclip_composer.errors import UserError

# What Composer 0.32.1 stores beside tensors: timestamps, NumPy's random state, metric values. None of them runs code.
HARMLESS = (
    datetime.timedelta,
    np.ndarray,
    np.dtype,
    _reconstruct,
    scalar,
    TorchVersion,
    *(getattr(np.dtypes, name) for name in ("UInt32DType", "Int64DType", "Float32DType", "Float64DType", "BoolDType")),
)

_IF_REFUSED = "Use the encoder.safetensors of the run instead."


class RefusedError(UserError):
    """What a file holds could run code when it is read."""

    def __init__(self, path: Path, kind: str, remedy: str):
        super().__init__(
            f"{path} was refused: it holds an object of type {kind}, and reading it could run code.\n{remedy}"
        )


def read_checkpoint(
    path: Path, *, if_refused: str = "Use the encoder.safetensors of the run instead."
) -> dict[str, Any]:
    """Read a `.pt` file of Composer onto the CPU, admitting tensors, containers, numbers and a short list of types.

    Composer 0.32.1 itself unpickles everything, which executes code that a checkpoint carries.

    Args:
        path: The file.
        if_refused: The remedy where the file holds another type.

    Raises:
        RefusedError: The file holds any other type.
        UserError: The file is absent or damaged.
    """
    if not path.is_file():
        raise UserError(
            f"No checkpoint at {path}.\nGive a run folder, its checkpoints/*.pt, or an encoder .safetensors."
        )
    content = read_pickle(
        path,
        HARMLESS,
        if_refused=if_refused,
        if_damaged="It may be cut short: use an earlier one of the same run.",
    )
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a Composer checkpoint.")
    return content


def read_pickle(
    path: Path, admitted: Sequence[Any], *, if_refused: str, if_damaged: str, content: IO[bytes] | None = None
) -> Any:
    """Read what torch.save wrote onto the CPU, without running code.

    Args:
        path: The file.
        admitted: Types and functions that may occur beside tensors, containers and numbers.
        if_refused: The remedy where the file holds another type.
        if_damaged: The remedy where the file cannot be read.
        content: What torch.save wrote, where it is only a part of the file.

    Raises:
        RefusedError: The file holds a type that is not admitted; the message names it.
        UserError: The file is damaged.
    """
    try:
        with torch.serialization.safe_globals(list(admitted)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # a foreign file, and the error follows
            if content is not None:
                return torch.load(content, map_location="cpu", weights_only=True)
            # Files of torch before 1.6 are no zip archives, and only archives can be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # torch's own text advises to switch the check off.
        found = re.search(r"GLOBAL (\S+)", str(error), re.IGNORECASE)
        if found is None and content is None and not zipfile.is_zipfile(path):  # zeros, which a power cut leaves
            raise _unreadable(path, error, if_damaged) from error
        raise RefusedError(path, found.group(1).rstrip(".") if found else "unknown", if_refused) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise _unreadable(path, error, if_damaged) from error


def _unreadable(path: Path, error: Exception, remedy: str) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} is not a readable checkpoint ({reason}).\n{remedy}")
