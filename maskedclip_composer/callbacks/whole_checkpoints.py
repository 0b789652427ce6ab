"""Checkpoints that are whole whenever they have their name, and the rotation of old ones."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from composer.callbacks import CheckpointSaver
from composer.core import State
from composer.loggers import Logger
from composer.utils import dist
from composer.utils.checkpoint import get_save_filename, save_checkpoint
from torch.distributed.checkpoint.api import CheckpointException

from maskedclip_composer.callbacks.atomic import link_whole, publish
from maskedclip_composer.errors import UserError

FILENAME = "ep{epoch}-ba{batch}-rank{rank}.pt"
NAME = re.compile(r"ep\d+-ba(\d+)(-rank0\.pt)?")  # a file, or a folder of FSDP's shards
LATEST = "latest-rank0.pt"
ASIDE = ".writing"  # in the checkpoint folder, so that a rename publishes


class WholeCheckpoints(CheckpointSaver):
    """Composer's saver, but what it writes gets its name and its link only when all of it is on the disk.

    Composer 0.32.1 writes under the final name, removes the link before it makes the new one, and rotates what this
    process has saved, so that a run which is continued leaves the checkpoints of before for ever. Here the newest
    `keep` of the folder stay.

    Args:
        folder: Where they go; all ranks see the same one.
        interval: A Composer time.
        keep: How many stay; -1 for all.
    """

    def __init__(self, folder: Path, *, interval: str, keep: int):
        super().__init__(
            str(folder),
            filename=FILENAME,
            latest_filename="latest-rank{rank}.pt",
            save_interval=interval,
            num_checkpoints_to_keep=keep,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: Composer's list of all checkpoints ever saved grows with every one and is not read."""
        return {}

    def _save_checkpoint(self, state: State, logger: Logger) -> None:
        self.last_checkpoint_batch = state.timestamp.batch
        folder = Path(self.folder)
        written = get_save_filename(state, str(folder / ASIDE / FILENAME))
        try:
            save_checkpoint(state, str(folder / ASIDE / FILENAME))
            if dist.get_global_rank() != 0:
                return
            # Of a sharded checkpoint Composer names a rank's file; torch has synchronised all of them with the disk.
            aside = Path(written).parent if state.fsdp_sharded_state_dict_enabled else Path(written)
            publish(aside, folder / aside.name)
        except (OSError, RuntimeError, CheckpointException) as error:
            if (reason := _disk_failure(error)) is None:
                raise
            shutil.rmtree(folder / ASIDE, ignore_errors=True)
            raise _unwritten(folder, state, reason) from error
        link_whole(folder / LATEST, aside.name)
        # Callbacks learn from this list which is the newest.
        self.saved_checkpoints = [str(folder / Path(written).relative_to(folder / ASIDE))]
        if self.num_checkpoints_to_keep > 0:
            for old in newest_first(folder)[self.num_checkpoints_to_keep :]:
                remove_checkpoint(old)


def newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, those of the most steps first."""
    found = {path: match for path in folder.iterdir() if (match := NAME.fullmatch(path.name))}
    return sorted(found, key=lambda path: int(found[path][1]), reverse=True)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint: it loses its name first, so that a folder that is half gone does not look like one."""
    if path.is_dir():
        aside = path.parent / ASIDE / path.name
        aside.parent.mkdir(exist_ok=True)
        os.replace(path, aside)
        shutil.rmtree(aside)
    else:
        path.unlink()


def _disk_failure(error: BaseException) -> str | None:
    """Return what the disk said, out of a chain of errors; None where it was not the disk."""
    seen: list[BaseException] = [error]
    for each in seen:
        if isinstance(each, OSError):
            return each.strerror
        # Of another rank only torch's own error arrives, not the disk's behind it.
        if isinstance(each, RuntimeError) and "inline_container" in str(each) and not each.__context__:
            return "a file could be written only in part"
        failures = each.failures.values() if isinstance(each, CheckpointException) else ()
        causes = [each.__cause__, each.__context__, *(failure for failure, _ in failures)]
        seen += [cause for cause in causes if cause is not None and cause not in seen]
    return None


def _unwritten(folder: Path, state: State, reason: str) -> UserError:
    earlier = newest_first(folder)
    kept = f"{earlier[0]} is whole, and the same command goes on from there" if earlier else "There is none before it"
    return UserError(
        f"The checkpoint of step {state.timestamp.batch.value} cannot be written to {folder}: {reason}.\n"
        f"Make room or mend the disk. {kept}."
    )
