"""Transformer blocks through torch.compile, one by one: shapes are few, and FSDP's hooks stay outside."""

import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from timm.layers.norm import LayerNorm
from torch import Tensor, nn
from torch._functorch import config as functorch_config

from maskedclip_composer.compute import ComputeConfig, budget
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.attention import AttentionBackend, SelfAttention, use_backend
from maskedclip_composer.models.block import TokenBlock
from maskedclip_composer.models.pretrain import PretrainNet

log = logging.getLogger(__name__)

# Shapes of blocks: packed and whole images, teacher, bridge, decoders, each with and without gradient.
_COMPILED_SHAPES = 64


def compile_blocks(
    net: PretrainNet,
    compute: ComputeConfig,
    device: torch.device,
    *,
    cache: Path | None = None,
    backend: str = "inductor",
) -> bool:
    """Compile the blocks of encoder, bridge, teacher and decoders as `compute.compile` says; return whether it did.

    Compiled code is kept in `cache`, so that the next start need not compile again.

    Args:
        net: The network, before it is wrapped for several ranks.
        compute: `compile` and the budgets of `activation`.
        device: Where it is going to run.
        cache: Folder of compiled code; the environment variable TORCHINDUCTOR_CACHE_DIR goes before it.
        backend: Of torch.compile.

    Raises:
        UserError: `compile: blocks` or a budget was asked for, and the compiler does not work here.
    """
    budgets = [budget(compute.activation.image), budget(compute.activation.decoders)]
    if compute.compile == "none" or (compute.compile == "auto" and device.type != "cuda" and budgets == [None, None]):
        return False
    if cache is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache.resolve()))
    if reason := _failure(device, backend, next(_attentions(net)).backend):
        if compute.compile == "blocks" or budgets != [None, None]:
            raise UserError(
                f"compute.compile={compute.compile}: torch.compile does not work here ({reason}).\n"
                "Set compute.compile=none, without budgets in compute.activation, or mend the compiler."
            )
        warnings.warn(f"Training goes on without torch.compile, which does not work here: {reason}", stacklevel=2)
        return False
    # Code of another network of this process, with the same shapes and another budget, would serve here.
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_SHAPES)
    towers: list[tuple[nn.Module | None, float | None]] = [
        (net.branch, budgets[0]),
        (net.teacher, None),
        (net.objectives, budgets[1]),
    ]
    for tower, share in towers:
        for block in tower.modules() if tower is not None else ():
            if isinstance(block, TokenBlock):
                # `forward` alone: a module's hooks, with which FSDP brings parameters together, run outside of it.
                block.forward = _compiled(block.forward, share, backend)
    log.info("Transformer blocks are compiled by %s", backend)
    return True


def _compiled(forward: Callable[..., Tensor], share: float | None, backend: str) -> Callable[..., Tensor]:
    compiled = torch.compile(forward, dynamic=False, backend=backend)
    if share is None:
        return compiled

    @functools.wraps(forward)
    def within_budget(*args: Any, **kwargs: Any) -> Tensor:
        # The partitioner reads it when it divides a graph into forward and backward, in the first call of a shape.
        with functorch_config.patch(activation_memory_budget=share):
            return compiled(*args, **kwargs)

    return within_budget


def _attentions(net: PretrainNet) -> Iterator[SelfAttention]:
    return (module for module in net.modules() if isinstance(module, SelfAttention))


def _failure(device: torch.device, backend: str, attention: AttentionBackend) -> str:
    """Return why a small block cannot be compiled for `device`, or an empty text."""
    block = TokenBlock(64, 2, qkv_bias=True, norm_layer=LayerNorm, attn_layer=SelfAttention).to(device)
    use_backend(block, attention)
    tokens = torch.randn(2, 8, 64, device=device, requires_grad=True)
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            torch.compile(block.forward, dynamic=False, backend=backend)(tokens).float().sum().backward()
    except Exception as error:  # whatever the compiler, its C++ or its Triton raises
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return ""
