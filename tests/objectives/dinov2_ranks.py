"""One rank of a step of dinov2 under DDP: python -m tests.objectives.dinov2_ranks FOLDER; rank 0 saves the result."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from maskedclip_composer.objectives.dinov2 import Dinov2
from maskedclip_composer.types import Batch
from tests import tiny
from tests.objectives import crops


def step(batch: Batch, net: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of this rank's images and the gradients, which DDP averages."""
    loss = Dinov2.loss(**net(batch)["dinov2"])
    loss.backward()
    inner = net.module if isinstance(net, nn.parallel.DistributedDataParallel) else net
    return loss.detach(), {name: p.grad for name, p in inner.named_parameters() if p.grad is not None}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    batch = tiny.share(crops.batch(4, 0), dist.get_rank(), dist.get_world_size())
    loss, gradients = step(batch, nn.parallel.DistributedDataParallel(crops.net()))
    dist.all_reduce(loss)
    if dist.get_rank() == 0:
        torch.save((loss / dist.get_world_size(), gradients), folder / "step.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
