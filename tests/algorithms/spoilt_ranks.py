"""A step that is NaN on the second of two ranks alone, by either policy; every rank calls it."""

from typing import Any

import torch.distributed as dist

from maskedclip_composer.errors import UserError
from maskedclip_composer.types import Batch
from tests import tiny
from tests.broken import LossIsNan, NanImages
from tests.composer_run import fit

SPOILT = 2


def spoilt_runs(shares: list[Batch], *, fsdp: bool) -> dict[str, Any]:
    """Return what became of a run with a spoilt second step, and of one that never had that step.

    Args:
        shares: This rank's part of each step, two or more.
        fsdp: Shard with FSDP2.

    Returns:
        The whole parameters at the end of "skipped" and "never had"; of "loss alone", where a loss is NaN and no
        gradient, its skipped steps on all ranks; "faults" of the first; "messages" of all ranks that stopped.
    """
    faults: list[dict[str, Any]] = []
    nan = NanImages([SPOILT], rank=1)
    skip: dict[str, Any] = {"fsdp": fsdp, "non_finite": "skip"}
    trainer, skipped, _ = fit(
        tiny.net("maskedclip"), shares, callbacks=[nan], record_fault=lambda fault: faults.append(fault) or "", **skip
    )
    trainer.close()
    trainer, never_had, _ = fit(tiny.net("maskedclip"), shares[: SPOILT - 1] + shares[SPOILT:], fsdp=fsdp)
    trainer.close()
    loss = LossIsNan("mim", [SPOILT], rank=1)
    trainer, _, _ = fit(tiny.net("maskedclip"), shares, callbacks=[loss], **skip)
    steps = trainer.state.algorithms[0].state_dict()["skipped_steps"]
    trainer.close()
    message = "it did not stop"
    try:
        fit(tiny.net("maskedclip"), shares, fsdp=fsdp, callbacks=[nan])
    except UserError as error:
        message = str(error)
    return {
        "skipped": skipped.parameters[-1],
        "never had": never_had.parameters[-1],
        "loss alone": _of_all_ranks(steps),
        "faults": faults,
        "messages": _of_all_ranks(message),
    }


def _of_all_ranks(value: Any) -> list[Any]:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found
