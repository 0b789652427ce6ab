"""The table of embeddings: its columns, what it says of itself, and the parts that it is written in."""

import fcntl
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from maskedclip_composer.callbacks.atomic import publish, write_whole
from maskedclip_composer.errors import UserError
from maskedclip_composer.use.one_photograph import Photograph

FORMAT = "maskedclip-embeddings-1"
EMBEDDED, UNREADABLE = "embedded", "unreadable"
KEY = b"maskedclip"
"""Of the metadata, which is JSON."""

_KNOWN = {
    "status": pyarrow.string(),  # embedded or unreadable
    "reason": pyarrow.string(),  # why it is unreadable, else empty
    "crop": pyarrow.string(),  # cropped, full, failed or off
    "width": pyarrow.int32(),  # of the original, upright, in pixels; null where not known
    "height": pyarrow.int32(),
    "sha256": pyarrow.string(),  # of the original file; empty where not known
}
OWN = ("image", *_KNOWN, "features", "image_features")


def schema(columns: Sequence[str], dims: Mapping[str, int], about: Mapping[str, Any]) -> pyarrow.Schema:
    """Return the table's schema: image, what is carried along, what is known of the photograph, features.

    Args:
        columns: Carried along, as text.
        dims: Width of each column of features.
        about: What the table says of itself.

    Raises:
        UserError: A column is called as one of the table's own.
    """
    taken = [name for name in columns if name in OWN]
    if taken:
        raise UserError(
            f"The column {taken[0]} of the photographs' table is also one of the embeddings'.\n"
            f"Rename it, and any other of {', '.join(OWN[1:])}, or take it out."
        )
    fields = {"image": pyarrow.string()} | {name: pyarrow.string() for name in columns} | _KNOWN
    fields |= {name: pyarrow.list_(pyarrow.float32(), dim) for name, dim in dims.items()}
    return pyarrow.schema(list(fields.items()), metadata={KEY: json.dumps(dict(about), ensure_ascii=False)})


def rows(
    photographs: Sequence[Photograph], features: Mapping[str, np.ndarray], wanted: pyarrow.Schema
) -> pyarrow.Table:
    """Lay out photographs as rows; `features` has a row for each that was read; those of others are NaN."""
    columns = {
        "image": [one.name for one in photographs],
        "status": [UNREADABLE if one.reason else EMBEDDED for one in photographs],
        "sha256": [one.sha256 for one in photographs],
        **{name: [getattr(one, name) for one in photographs] for name in ("reason", "crop", "width", "height")},
    }
    read = np.array([not one.reason for one in photographs])
    arrays = []
    for field in wanted:
        if pyarrow.types.is_fixed_size_list(field.type):
            arrays.append(_with_gaps(features[field.name], read, field.type))
        else:
            values = columns.get(field.name) or [one.columns.get(field.name, "") for one in photographs]
            arrays.append(pyarrow.array(values, field.type))
    return pyarrow.Table.from_arrays(arrays, schema=wanted)


def _with_gaps(values: np.ndarray, read: np.ndarray, kind: pyarrow.FixedSizeListType) -> pyarrow.Array:
    # NaN, not null: pyarrow 19 cannot read back a list of fixed size that is null.
    whole = np.full((len(read), kind.list_size), np.nan, dtype=np.float32)
    whole[read] = values
    return pyarrow.FixedSizeListArray.from_arrays(whole.reshape(-1), kind.list_size)


def read_about(path: Path) -> dict[str, Any]:
    """Return what a table of embeddings says of itself.

    Raises:
        UserError: It is none, or damaged.
    """
    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        about = json.loads(metadata[KEY])
        if about["format"] != FORMAT:
            raise KeyError(about["format"])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.\nMake it with `python -m maskedclip_composer embed`.") from None
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path} is no table of embeddings ({error}).\nMake one with `python -m maskedclip_composer embed`."
        ) from error
    return about


class Parts:
    """A table that is written part by part into the folder `OUT.parts`, so that work which is killed can go on.

    Args:
        out: The table.
        plan: What decides the features, by the option that sets it. Parts of another plan are refused.
        size: Rows of a part.
    """

    def __init__(self, out: Path, plan: Mapping[str, Any], size: int):
        self._out, self._plan, self._size = out, dict(plan), size
        self.folder = out.with_name(f"{out.name}.parts")

    def open(self) -> int:
        """Make or enter the folder, for this process alone; return how many rows it has already.

        Raises:
            UserError: Another process works there, or the parts were begun otherwise.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("a")
            # Not flock, which the processes that read inherit: they outlive a killed parent by some seconds.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.folder}: another process is working there.\nWait for it, or give another --out."
            ) from None
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written ({error.strerror}).\nGive another --out.") from error
        noted = self.folder / "plan.json"
        if noted.is_file():
            difference = differences(json.loads(noted.read_text()), self._plan)
            if difference:
                raise UserError(
                    f"{self.folder} was begun with {difference}.\nGive that again to go on, or remove the folder to "
                    "begin anew."
                )
        else:
            write_whole(noted, json.dumps(self._plan, indent=1))
        return sum(pyarrow.parquet.read_metadata(path).num_rows for path in self._whole())

    def write(self, start: int, table: pyarrow.Table) -> None:
        """Write the part that begins at row `start`."""
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table, buffer)
        write_whole(self._path(start), buffer.getvalue())

    def join(self, wanted: pyarrow.Schema) -> None:
        """Write all parts, one after the other, as the table; then remove them."""
        aside = self.folder / "whole"
        with pyarrow.parquet.ParquetWriter(aside, wanted) as writer:
            for path in self._whole():
                writer.write_table(pyarrow.parquet.read_table(path, schema=wanted))
        publish(aside, self._out)
        self.remove()

    def remove(self) -> None:
        """Remove the folder, and what an earlier process left there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:012d}.parquet"

    def _whole(self) -> Iterator[Path]:
        """Yield the parts up to the first that is absent or damaged."""
        start = 0
        while (path := self._path(start)).is_file():
            try:
                start += pyarrow.parquet.read_metadata(path).num_rows
            except (OSError, pyarrow.ArrowException):  # the machine lost power
                return
            yield path


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in which options two plans differ; empty where they do not."""
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return ", ".join(f"{name} {_value(then.get(name))}, not {_value(now.get(name))}" for name in changed)


def _value(value: Any) -> str:
    return "(left out)" if value is None else str(value)
