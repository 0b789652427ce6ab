"""What the machines of one run must share, and what each must have for itself; checked before anything is written."""

import socket
import time
import uuid
from pathlib import Path

from composer.utils import dist

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.rank_board import node

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SHM = Path("/dev/shm")
_PATIENCE = 3.0  # seconds until a network disk shows what another machine has written


def check_nodes(config: TrainConfig, checkpoints: Path) -> None:
    """Refuse nodes that share what each must have for itself, or do not share what they must. All ranks call.

    Args:
        config: The run.
        checkpoints: The run's existing folder of checkpoints.

    Raises:
        UserError: Two nodes are on one machine; `output` is another folder on each node; a cache is not.
    """
    if dist.get_world_size() == dist.get_local_world_size():
        return
    _refuse_one_machine()
    _refuse_separate_outputs(config, checkpoints)
    for name, stream in config.data.streams().items():
        remote, local = stream.location()
        if remote is not None:
            _refuse_shared_cache(f"data.{name}.local", Path(local))


def _refuse_one_machine() -> None:
    """Refuse two nodes with the same shared memory, which Streaming names by numbers of its own on each node.

    The two would wait for each other until `trainer.dist_timeout`.
    """
    # The number of a tmpfs is its own on a running kernel; containers of one machine have a tmpfs each.
    memory = f"{_BOOT.read_text().strip()} {_SHM.stat().st_dev}" if _BOOT.exists() and _SHM.exists() else str(node())
    nodes = dict(dist.all_gather_object((node(), memory)))
    others = [number for number, other in nodes.items() if other == memory and number != node()]
    if others:
        first, second = sorted((node(), others[0]))
        raise UserError(
            f"Nodes {first} and {second} are on the same machine, {socket.gethostname()}.\n"
            "Start one launcher on each machine: composer -n with the number of its GPUs starts all ranks there."
        )


def _refuse_separate_outputs(config: TrainConfig, checkpoints: Path) -> None:
    """Refuse to write checkpoints, which the first rank does, or each its shards, where not all nodes see them."""
    if not config.checkpoint.resume and config.parallelism == "ddp":
        return
    blind = [place for place, sees in _seen(checkpoints).items() if not sees]
    if blind:
        also = ", or set checkpoint.resume=false" if config.parallelism == "ddp" else ""
        raise UserError(
            f"output={config.output} is not the same folder on all nodes: {', '.join(blind)} cannot see what node 0 "
            f"writes there, and could not continue from its checkpoints.\nUse a folder on a disk that the nodes share"
            f"{also}."
        )


def _refuse_shared_cache(key: str, folder: Path) -> None:
    """Refuse a cache of shards that several nodes share: each fetches and deletes shards as if it were alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sharing = [place for place, sees in _seen(folder).items() if sees]
    except OSError as error:
        raise UserError(f"{key}: cannot write to {folder}: {error.strerror}.\nSet {key} to another folder.") from error
    if len(sharing) > 1:
        raise UserError(
            f"{key}: {' and '.join(sharing)} share the cache {folder}.\n"
            f"Set {key} to a folder on a disk of each node's own, for example {key}=/scratch/shards."
        )


def _seen(folder: Path) -> dict[str, bool]:
    """Say for each node whether it sees what the first rank writes to its `folder`."""
    mark = folder / f".seen-{dist.all_gather_object(uuid.uuid4().hex)[0]}"
    if dist.get_global_rank() == 0:
        mark.touch()
    dist.barrier()
    deadline = time.monotonic() + _PATIENCE
    while not (sees := mark.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    place = f"node {node()} ({socket.gethostname()})"
    seen = dict(dist.all_gather_object((place, sees)))
    if dist.get_global_rank() == 0:
        mark.unlink()
    return seen
