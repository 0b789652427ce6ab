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

_IF_DAMAGED = "It may be cut short: use an earlier one of the same run."


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

    Composer 0.32.1 itself unpickles everything, which executes code that a checkpoint carries. The file's checksums are
    compared first: a flipped bit in a tensor's values is no error to torch, and one in a name looks like another type.

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
    if _is_archive(path):  # what is none fails below
        check_sums(path, if_damaged=_IF_DAMAGED)
    content = read_pickle(path, HARMLESS, if_refused=if_refused, if_damaged=_IF_DAMAGED)
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
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error), re.IGNORECASE)
        if found is None:
            # torch's own first line advises to switch the check off.
            raise UserError(f"{path} is not a readable checkpoint (no pickle of torch.save).\n{if_damaged}") from error
        if _is_archive(path if content is None else content):
            check_sums(path, content=content, if_damaged=if_damaged)  # a flipped bit in a name, too, is another type
        raise RefusedError(path, found.group(1).rstrip("."), if_refused) from error
    except Exception as error:  # a damaged pickle can end in any
        raise _unreadable(path, error, if_damaged) from error


def check_sums(path: Path, *, if_damaged: str, content: IO[bytes] | None = None) -> None:
    """Compare every record of what torch.save wrote, tensors too, with its CRC32; torch.load (2.7) does not.

    Takes 0.7 s a GB (`time python -m zipfile -t FILE.pt`, 2.1 GB, one core of an AMD EPYC, from the page cache).

    Args:
        path: The file, a zip archive.
        if_damaged: The remedy where one differs.
        content: What torch.save wrote, where it is only a part of the file.

    Raises:
        UserError: One differs, or the archive cannot be read.
    """
    try:
        with zipfile.ZipFile(path if content is None else content) as archive:
            changed = archive.testzip()
    except Exception as error:  # a damaged header can end in any
        raise _unreadable(path, error, if_damaged) from error
    finally:
        if content is not None:
            content.seek(0)
    if changed is not None:
        raise UserError(f"{path} is damaged: {changed} in it is not what was written.\n{if_damaged}")


def _is_archive(file: Path | IO[bytes]) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # it has the end of one, and that is damaged
        return True


def _unreadable(path: Path, error: Exception, remedy: str) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} is not a readable checkpoint ({reason}).\n{remedy}")
