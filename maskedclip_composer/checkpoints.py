"""The checkpoint folder of a run before training starts: sound, and of this run."""

import os
import shutil
from pathlib import Path
from typing import Any

import composer.algorithms
from composer.utils import dist

from maskedclip_composer.callbacks.atomic import link_whole
from maskedclip_composer.callbacks.whole_checkpoints import ASIDE, LATEST, newest_first
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.export.checkpoint import RefusedError, read_checkpoint
from maskedclip_composer.export.sharded import read_sharded
from maskedclip_composer.run_settings import refuse_other_settings

_IF_REFUSED = "Remove it, or if you have made it yourself continue with checkpoint.trust=true."


def prepare_checkpoints(config: TrainConfig) -> Path:
    """Make the checkpoint folder and see to it that nothing there is overwritten, mixed up or damaged.

    What a killed run has left half written is removed. A checkpoint that is damaged nevertheless, because it was copied
    in part or the disk is bad, is renamed to `*.damaged`, and the newest whole one is what the run continues from.
    Composer 0.32.1 fails when it finds one newer than the latest it knows of.

    Raises:
        UserError: The folder cannot be written, belongs to a run of other settings, holds what could run code, or
            resuming is off and it is used.
    """
    folder = config.run_folder / "checkpoints"
    refusal = f"output={config.output}: cannot write to {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{refusal}: {error.strerror}.\nChoose another folder with output=…") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{refusal}.\nChoose another folder with output=…")
    found = newest_first(folder)
    if found and not config.checkpoint.resume:
        raise UserError(
            f"checkpoint.resume=false, but {folder} already holds checkpoints of run_name={config.run_name}.\n"
            "Choose another run_name, remove the folder, or continue with checkpoint.resume=true."
        )
    if found:
        refuse_other_settings(config)
    if dist.get_global_rank() == 0:  # of all nodes: they share the folder
        shutil.rmtree(folder / ASIDE, ignore_errors=True)
        _link_newest_whole(folder, found, trust=config.checkpoint.trust)
    dist.barrier()
    return folder


def _link_newest_whole(folder: Path, found: list[Path], *, trust: bool) -> None:
    for path in found:
        if _is_whole(path, trust=trust):
            link_whole(folder / LATEST, path.name)
            return
        damaged = path.with_name(path.name + ".damaged")
        if damaged.is_dir():
            shutil.rmtree(damaged)
        path.rename(damaged)
        print(f"{path} is damaged; it is kept as {damaged.name}, and the run continues from an earlier one.")
    (folder / LATEST).unlink(missing_ok=True)


def _is_whole(path: Path, *, trust: bool) -> bool:
    """Tell whether a checkpoint can be read; raises RefusedError where Composer would run what it holds."""
    try:
        if path.is_dir():
            algorithms = read_sharded(path, if_refused=_IF_REFUSED).get("state.algorithms", [])
        else:
            algorithms = read_checkpoint(path, if_refused=_IF_REFUSED).get("state", {}).get("algorithms", [])
        _refuse_evaluated(path, algorithms)
    except RefusedError as error:
        if not trust:
            raise
        print(f"{str(error).splitlines()[0]} It is read nevertheless: checkpoint.trust=true.")
    except UserError:
        return False
    return True


def _refuse_evaluated(path: Path, algorithms: Any) -> None:
    """Refuse algorithms of Composer's own: 0.32.1 makes them from their text in the checkpoint, by `eval`."""
    for name, _ in algorithms:
        if hasattr(composer.algorithms, str(name)):
            raise RefusedError(path, f"composer.algorithms.{name}", _IF_REFUSED)
