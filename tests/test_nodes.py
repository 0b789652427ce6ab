"""Two nodes of one rank each, which believe to be on machines of their own."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch.distributed as dist

from maskedclip_composer import nodes
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.nodes import check_nodes
from tests.ranks import run_ranks


def check(folder: Path, *overrides: str, separate: bool = False, one_machine: bool = False) -> None:
    """Check a run of the debug yaml; a NODE in an override becomes the node's number. Prints the message."""
    dist.init_process_group("gloo")
    node = dist.get_rank()
    nodes._PATIENCE = 0.3
    if not one_machine:
        nodes._BOOT = folder / f"boot_id{node}"
        nodes._BOOT.write_text(str(node))
    output = folder / (f"output{node}" if separate else "output")
    output.mkdir(exist_ok=True)
    overrides = (f"output={output}", *(override.replace("NODE", str(node)) for override in overrides))
    try:
        check_nodes(load_config(TrainConfig, "yamls/debug.yaml", list(overrides)), output)
    except UserError as error:
        sys.exit(f"refused: {error}")


def refusal(folder: Path, *overrides: str, **options: bool) -> str:
    """Return the message of the first node; both must refuse."""
    statuses = run_ranks(partial(check, **options), 2, folder, nodes=2, grace=20.0, arguments=overrides)
    first, second = ((folder / f"rank{rank}.log").read_text() for rank in range(2))
    assert statuses == [1, 1], first + second
    assert "refused" in second
    return first


def is_fine(folder: Path, *overrides: str, **options: bool) -> bool:
    return run_ranks(partial(check, **options), 2, folder, nodes=2, grace=20.0, arguments=overrides) == [0, 0]


def test_nodes_that_share_their_output_are_fine(tmp_path):
    assert is_fine(tmp_path)
    assert not list((tmp_path / "output").iterdir())


def test_two_nodes_on_one_machine(tmp_path):
    assert "Nodes 0 and 1 are on the same machine" in refusal(tmp_path, one_machine=True)


@pytest.mark.parametrize("more", [[], ["parallelism=fsdp"], ["parallelism=fsdp", "checkpoint.resume=false"]])
def test_nodes_with_outputs_of_their_own(tmp_path, more):
    message = refusal(tmp_path, *more, separate=True)
    assert f"output={tmp_path / 'output0'} is not the same folder on all nodes: node 1 (" in message
    assert "Use a folder on a disk that the nodes share" in message
    assert ("checkpoint.resume=false" in message) == (not more)


def test_a_run_that_will_not_be_continued_needs_no_shared_output(tmp_path):
    assert is_fine(tmp_path, "checkpoint.resume=false", separate=True)


def test_nodes_that_share_a_cache(tmp_path):
    message = refusal(tmp_path, f"data.unpaired.local={tmp_path / 'cache'}")
    assert "data.unpaired.local: node 0 (" in message
    assert f"share the cache {tmp_path / 'cache'}" in message


def test_nodes_with_caches_of_their_own(tmp_path):
    assert is_fine(tmp_path, f"data.unpaired.local={tmp_path / 'cacheNODE'}", f"data.paired.local={tmp_path / 'aNODE'}")
