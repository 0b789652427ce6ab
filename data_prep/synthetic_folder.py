"""Whether a folder is a made-up set: finished, left by an interrupted run, or somebody else's."""

import json
import shutil
from pathlib import Path

from maskedclip_composer.errors import UserError

RECORD = "synthetic.json"


def is_finished(out: Path, record: dict[str, int]) -> bool:
    """Whether `out` holds the result of the same settings; refuses everything but that and an empty place."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"--out {out}: is a file; give a folder that is new or empty.")
    if not any(out.iterdir()):
        return False
    found = _read_record(out)
    if found is None:
        raise UserError(
            f"--out {out}: holds files that this command did not write; give a folder that is new or empty."
        )
    if found != record:
        differing = [
            f"{key} {found.get(key)} there, {value} wanted" for key, value in record.items() if found.get(key) != value
        ]
        raise UserError(
            f"--out {out}: holds a set made with other settings ({'; '.join(differing)}).\n"
            "Give another folder, or remove this one first."
        )
    return True


def clear(partial_out: Path) -> None:
    """Remove what an interrupted run left, and only that."""
    if not partial_out.exists():
        return
    if partial_out.is_dir() and (_read_record(partial_out) is not None or not any(partial_out.iterdir())):
        shutil.rmtree(partial_out)
        return
    raise UserError(f"{partial_out}: is in the way and was not written by this command; move it or give another --out.")


def _read_record(folder: Path) -> dict[str, int] | None:
    try:
        return json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
