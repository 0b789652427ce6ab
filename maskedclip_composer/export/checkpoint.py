"""Reading a Composer checkpoint without running what it may carry."""

import datetime
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar  # pyright: ignore[reportAttributeAccessIssue]
from torch.torch_version import TorchVersion

from maskedclip_composer.errors import UserError

# What Composer 0.32.1 stores beside tensors: timestamps, NumPy's random state, metric values. None of them runs code.
_HARMLESS = [
    datetime.timedelta,
    np.ndarray,
    np.dtype,
    _reconstruct,
    scalar,
    TorchVersion,
    *(getattr(np.dtypes, name) for name in ("UInt32DType", "Int64DType", "Float32DType", "Float64DType", "BoolDType")),
]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a `.pt` file of Composer onto the CPU, admitting tensors, containers, numbers and a short list of types.

    Composer 0.32.1 itself unpickles everything, which executes code that a checkpoint carries.

    Raises:
        UserError: The file is absent, damaged, or holds any other type.
    """
    if not path.is_file():
        raise UserError(
            f"No checkpoint at {path}.\nGive a run folder, its checkpoints/*.pt, or an encoder .safetensors."
        )
    content = read_pickle(
        path,
        _HARMLESS,
        if_refused="Use the encoder.safetensors of the run instead.",
        if_damaged="It may be cut short: use an earlier one of the same run.",
    )
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a Composer checkpoint.")
    return content


def read_pickle(path: Path, admitted: Sequence[Any], *, if_refused: str, if_damaged: str) -> Any:
    """Read what torch.save wrote onto the CPU, without running code.

    Args:
        path: The file.
        admitted: Types and functions that may occur beside tensors, containers and numbers.
        if_refused: The remedy where the file holds another type.
        if_damaged: The remedy where the file cannot be read.

    Raises:
        UserError: The file is damaged, or holds a type that is not admitted; the message names it.
    """
    try:
        with torch.serialization.safe_globals(list(admitted)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # a foreign file, and the error follows
            # Files of torch before 1.6 are no zip archives, and only archives can be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # torch's own text advises to switch the check off.
        found = re.search(r"GLOBAL (\S+)", str(error), re.IGNORECASE)
        reason = found.group(1).rstrip(".") if found else "unknown"
        raise UserError(
            f"{path} was refused: it holds an object of type {reason}, and reading it could run code.\n{if_refused}"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is not a readable checkpoint ({str(error).splitlines()[0]}).\n{if_damaged}") from error
