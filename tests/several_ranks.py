"""What one rank of `test_distributed.py` does. Rank 0 saves what it found to results.pt of the folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import BertTokenizerFast

from maskedclip_composer.compute import ActivationConfig, ComputeConfig
from maskedclip_composer.distributed import (
    _group_of_hosts,
    gather,
    gather_table_with_gradient,
    gather_with_gradient,
    max_on_hosts,
)
from maskedclip_composer.losses.contrastive import label_guided_clip_loss
from maskedclip_composer.losses.distinct_texts import distinct_text_clip_loss
from maskedclip_composer.models.compiled import compile_blocks
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.recompute import set_activation
from maskedclip_composer.objectives.att_mim import AttMimConfig
from maskedclip_composer.objectives.ent_mlm import EntMlmConfig
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.types import Batch
from tests import tiny
from tests.algorithms.spoilt_ranks import spoilt_runs
from tests.composer_run import fit
from tests.objectives import mmclip

STEPS = 3
DISTINCT_GRADIENTS = ("image", "text", "scale")
STAGES: tuple[Literal["feature", "input"], ...] = ("feature", "input")  # of MMCLIP's mask
# Ways to compute the step of maskedclip, run under DDP and FSDP2 too.
WAYS = {
    "recomputed": ComputeConfig(activation=ActivationConfig(image="full", text="full", decoders="full")),
    "in chunks": ComputeConfig(chunk_size=3, activation=ActivationConfig(image="full")),
    "unpacked": ComputeConfig(packed=False, masked_only=False),
    "compiled": ComputeConfig(compile="blocks"),
}
# Recipe and bridge depth of the runs under DDP and FSDP2. Depth 0 makes a unit without parameters. More than two ranks
# run the first alone.
RUNS = [("maskedclip", 1), ("maskedclip", 0), ("mmclip", 0), ("mlip", 0), ("dinov2", 0)]


def net_computed(way: str) -> PretrainNet:
    """Build maskedclip to be computed in one of `WAYS`; compiled graphs run without code generation, in seconds."""
    net = tiny.net("maskedclip", compute=WAYS[way])
    set_activation(net, WAYS[way].activation)
    compile_blocks(net, WAYS[way], torch.device("cpu"), backend="aot_eager_decomp_partition")
    return net


def mmclip_net(stage: Literal["feature", "input"], folder: Path) -> PretrainNet:
    folder.mkdir(exist_ok=True)
    tokenizer = BertTokenizerFast.from_pretrained(tiny.save_text_tower(folder))
    return mmclip.net(
        tokenizer,
        LgClipConfig(embed_dim=16),
        AttMimConfig(dim=32, depth=1, num_heads=2, mask_stage=stage),
        EntMlmConfig(dim=32, depth=1, num_heads=2),
    )


def mmclip_batch() -> Batch:
    """Make a batch whose second half of pairs has nothing hidden in its texts."""
    batch = mmclip.batch(4, 4)
    batch["paired"]["text_noise"] = torch.tensor([0.2, 0.2, 0.9, 0.9])[:, None].repeat(1, 7)
    return batch


def half_hidden_batch() -> Batch:
    """Make a batch whose second half has no hidden patch in any view: one rank's share."""
    batch = tiny.batch(4, 0)
    batch["paired"]["block_mask"][2:] = False
    return batch


def plain_net() -> PretrainNet:
    """MaskedCLIP whose pairs are all compared with each other."""
    return tiny.net("maskedclip", compute=ComputeConfig(distinct_logits=False))


def batches() -> list:
    return [tiny.batch(4, 4, seed=seed) for seed in range(STEPS)]


def projections() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(5)
    return nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)


def contrastive_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(6)
    image, text = torch.randn(2, 8, 6)
    return image, text, torch.tensor([0, 1, 2, 0, 3, 1, 0, 4]), torch.tensor(5.0)


def contrastive_loss(rank: int, ranks: int, collect: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the loss of one rank's rows and its gradients for the two projections."""
    image, text, labels, scale = contrastive_inputs()
    image_projection, text_projection = projections()
    image_features, text_features = (
        collect(nn.functional.normalize(projection(rows.chunk(ranks)[rank]), dim=-1))
        for projection, rows in ((image_projection, image), (text_projection, text))
    )
    loss = label_guided_clip_loss(image_features, text_features, gather(labels.chunk(ranks)[rank]), scale)
    loss.backward()
    return loss.detach(), [image_projection.weight.grad, text_projection.weight.grad]


def distinct_contrastive_loss(rank: int, ranks: int) -> tuple[Tensor, list[Tensor]]:
    """As `contrastive_loss`, of distinct texts: the first rank has one, the second three, of which one is the first's.

    The gradients are of the two projections and of the logit scale.
    """
    image, text, labels, scale = contrastive_inputs()
    scale.requires_grad_()
    image_projection, text_projection = projections()
    of_pairs = torch.tensor([2, 2, 2, 2, 5, 2, 6, 5]).chunk(ranks)[rank]  # the text of each pair, a row of `text`
    rows, index = of_pairs.unique(return_inverse=True)
    images = nn.functional.normalize(image_projection(image.chunk(ranks)[rank]), dim=-1)
    texts = nn.functional.normalize(text_projection(text[rows]), dim=-1)
    own_labels = labels.chunk(ranks)[rank]
    all_texts, all_index = gather_table_with_gradient(texts, index)
    every = gather_with_gradient(images), all_texts, all_index, gather(own_labels)
    loss = distinct_text_clip_loss(images, texts, index, own_labels, *every, scale)
    loss.backward()
    assert scale.grad is not None
    return loss.detach(), [image_projection.weight.grad, text_projection.weight.grad, scale.grad]


def step_of_ddp(net: PretrainNet, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return losses, averaged over the ranks, and DDP's gradients of one step of a rank's batch."""
    wrapped = nn.parallel.DistributedDataParallel(MaskedCLIP(net))
    losses = wrapped.module.loss(wrapped(batch), batch)
    losses["total"].backward()
    gradients = {name: p.grad for name, p in wrapped.module.named_parameters() if p.grad is not None}
    return averaged(losses), gradients


def averaged(losses: dict) -> dict[str, Tensor]:
    result = {}
    for name, loss in losses.items():
        result[name] = torch.as_tensor(loss).detach().clone()
        dist.all_reduce(result[name])
        result[name] /= dist.get_world_size()
    return result


def sharded_units(model: nn.Module) -> int:
    return sum(isinstance(module, dist.fsdp.FSDPModule) for module in model.modules())


def share_of_batches() -> list[Batch]:
    return [tiny.share(batch, dist.get_rank(), dist.get_world_size()) for batch in batches()]


def run(net: PretrainNet, **options: Any) -> dict[str, Any]:
    """Train on this rank's shares and return what the ranks have in common."""
    trainer, record, metrics = fit(net, share_of_batches(), **options)
    trainer.close()
    return {
        "losses": [averaged(step) for step in record.losses],
        "parameters": record.parameters,
        "norms": [float(value) for _, value in metrics.data["diagnostics/gradient_norm"]],
        "units": sharded_units(trainer.state.model),
    }


def steps(folder: Path) -> dict:
    """Compute losses and gradients of single steps."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    results = {}
    loss, gradients = contrastive_loss(rank, ranks, gather_with_gradient)
    results["contrastive"] = averaged({"loss": loss, "image": gradients[0], "text": gradients[1]})
    loss, gradients = distinct_contrastive_loss(rank, ranks)
    results["distinct"] = averaged({"loss": loss} | dict(zip(DISTINCT_GRADIENTS, gradients, strict=True)))
    share = tiny.share(tiny.batch(4, 4), rank, ranks)
    results["step"] = step_of_ddp(tiny.net("maskedclip"), share)
    results["plain step"] = step_of_ddp(plain_net(), share)
    for stage in STAGES:
        net = mmclip_net(stage, folder / f"text_tower{rank}")
        results["mmclip", stage] = step_of_ddp(net, mmclip.share(mmclip_batch(), rank, ranks))
    results["dinov2"] = step_of_ddp(tiny.net("dinov2"), tiny.share(half_hidden_batch(), rank, ranks))
    return results


def gathers() -> dict:
    """Gather rows and tables."""
    rank = dist.get_rank()
    results = {}
    with patch.object(dist, "get_backend", return_value="nccl"):  # which takes no tensor on the CPU
        results["longest"] = max_on_hosts(3 - rank), max_on_hosts(rank)
    _group_of_hosts.cache_clear()
    table = torch.full((1 + rank, 2), 1.0 + rank)
    results["table"] = gather_table_with_gradient(table, torch.arange(2) * rank)
    results["gathered"] = gather(torch.arange(3) + 10 * rank)
    features = torch.ones(2, 3, requires_grad=True)
    transposed = torch.arange(12.0).reshape(3, 4).T  # a gradient that is not contiguous
    gather_with_gradient(features).backward(transposed)
    results["gradient of a gather"] = features.grad
    return results


def other_net() -> PretrainNet:
    """MaskedCLIP with weights that a checkpoint is to replace."""
    return tiny.net("maskedclip", seed=1)


def one(folder: Path) -> dict:
    """Continue on one rank what two have saved."""
    sharded, full = folder.parent / "sharded" / "ep0-ba2", folder.parent / "full" / "ep0-ba2-rank0.pt"
    return {
        ("maskedclip", 1, True): run(tiny.net("maskedclip"), fsdp=True),
        "sharded": run(other_net(), fsdp=True, load_path=str(sharded)),
        "full": run(other_net(), load_path=str(full)),
    }


def saved_to(folder: Path) -> dict[str, Any]:
    return {"save_folder": str(folder), "save_interval": "2ba"}


def two(folder: Path) -> dict:
    """Train every recipe in every way, and save both kinds of checkpoints."""
    results: dict = gathers() | steps(folder)
    for recipe, depth in RUNS:
        for fsdp in (False, True):
            net = tiny.net(recipe, bridge_depth=depth)
            saves = saved_to(folder.parent / "sharded") if fsdp and (recipe, depth) == RUNS[0] else {}
            results[recipe, depth, fsdp] = run(net, fsdp=fsdp, **saves)
    for way in WAYS:
        for fsdp in (False, True):
            results[way, fsdp] = run(net_computed(way), fsdp=fsdp)
    results["full"] = run(tiny.net("maskedclip"), fsdp=True, sharded=False, **saved_to(folder.parent / "full"))
    for fsdp in (False, True):
        results["spoilt", fsdp] = spoilt_runs(share_of_batches(), fsdp=fsdp)
    return results


def four(folder: Path) -> dict:
    """Train one recipe, and continue what two ranks have saved."""
    results: dict = steps(folder)
    for fsdp in (False, True):
        results["maskedclip", 1, fsdp] = run(tiny.net("maskedclip"), fsdp=fsdp)
    results["sharded"] = run(other_net(), fsdp=True, load_path=str(folder.parent / "sharded" / "ep0-ba2"))
    full = folder.parent / "full" / "ep0-ba2-rank0.pt"
    results["full"] = run(other_net(), fsdp=True, sharded=False, load_path=str(full))
    return results


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    ranks = dist.get_world_size()
    results = {1: one, 2: two, 4: four}[ranks](folder)
    if dist.get_rank() == 0:
        torch.save(results, folder / "results.pt")
    dist.barrier()
    dist.destroy_process_group()
