"""The checkpoint folder of a run before training starts: sound, and of this run."""

import os
import re
from pathlib import Path

from composer.utils import dist

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.export.checkpoint import read_checkpoint
from maskedclip_composer.run_settings import refuse_other_settings

NAME = re.compile(r"ep\d+-ba(\d+)(-rank0\.pt)?")


def prepare_checkpoints(config: TrainConfig) -> Path:
    """Make the checkpoint folder and see to it that nothing there is overwritten, mixed up or damaged.

    A checkpoint that was cut short, because the run was killed while it was written, is renamed to `*.damaged`, and the
    newest whole one is what the run continues from. Composer 0.32.1 writes checkpoints in place and fails when it finds
    one newer than the latest it knows of.

    Raises:
        UserError: The folder cannot be written, belongs to a run of other settings, or resuming is off and it is used.
    """
    folder = config.run_folder / "checkpoints"
    refusal = f"output={config.output}: cannot write to {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{refusal}: {error.strerror}.\nChoose another folder with output=…") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{refusal}.\nChoose another folder with output=…")
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
    if found and not config.checkpoint.resume:
        raise UserError(
            f"checkpoint.resume=false, but {folder} already holds checkpoints of run_name={config.run_name}.\n"
            "Choose another run_name, remove the folder, or continue with checkpoint.resume=true."
        )
    if found:
        refuse_other_settings(config)
    if dist.get_global_rank() == 0:  # of all nodes: they share the folder
        _link_newest_whole(folder, found)
    dist.barrier()
    return folder


def _link_newest_whole(folder: Path, found: list[Path]) -> None:
    newest = None
    for path in sorted(found, key=_batch, reverse=True):
        if _is_whole(path):
            newest = path
            break
        path.rename(path.with_name(path.name + ".damaged"))
        print(f"{path} is damaged; it is kept as {path.name}.damaged, and the run continues from an earlier one.")
    ranks = dist.get_world_size() if newest is not None and newest.is_dir() else 1
    for link in (folder / f"latest-rank{rank}.pt" for rank in range(ranks)):
        if newest is None:
            link.unlink(missing_ok=True)
        elif not (link.is_symlink() and os.readlink(link) == newest.name):
            aside = folder / f"{link.name}.partial"
            aside.unlink(missing_ok=True)
            aside.symlink_to(newest.name)
            os.replace(aside, link)


def _is_whole(path: Path) -> bool:
    if path.is_dir():  # of FSDP; its .metadata is written last
        return (path / ".metadata").is_file()
    try:
        read_checkpoint(path)
    except UserError as error:
        if "was refused" in str(error):  # whole, but not harmless: Composer would unpickle, and so run, what it holds
            raise
        return False
    return True


def _batch(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])
