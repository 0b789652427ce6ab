"""What torch.compile keeps of a transformer block for the backward pass, by the memory budget it is given.

python benchmarks/block_budget.py; docs/costs.md explains the table. Nothing is compiled to machine code: the compiler's
division into forward and backward alone decides.
"""

import argparse
from functools import partial
from typing import Any, cast

import torch
import torch._functorch.config as functorch_config
from rounds import print_table
from timm.layers.norm import LayerNorm
from torch import Tensor

from maskedclip_composer.costs.counts import saved_bytes
from maskedclip_composer.models.attention import SelfAttention
from maskedclip_composer.models.block import TokenBlock

BUDGETS = (0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def kept(block: Any, x: Tensor, precision: str) -> int:
    """Return the bytes that a pass of `block` keeps, the weights in 16 bits included."""

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "amp_bf16"):
            return block(x)

    forward()  # compiles
    return saved_bytes(forward, block.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=512, help="of the block (%(default)s)")
    parser.add_argument("--sequences", type=int, default=64, help="of 65 tokens (%(default)s)")
    args = parser.parse_args()
    torch.manual_seed(0)
    block = TokenBlock(
        args.width, args.width // 64, qkv_bias=True, norm_layer=LayerNorm, attn_layer=cast(Any, SelfAttention)
    )
    x = torch.randn(args.sequences, 65, args.width, requires_grad=True)
    precisions = ("amp_bf16", "fp32")
    plain = {precision: kept(block, x, precision) for precision in precisions}
    rows = []
    for budget in BUDGETS:
        shares = []
        for precision in precisions:
            torch._dynamo.reset()
            with functorch_config.patch(activation_memory_budget=budget):
                compiled = partial(torch.compile, backend="aot_eager_decomp_partition", dynamic=False)(block)
                shares.append(f"{kept(compiled, x, precision) / plain[precision]:.2f}")
        rows.append([budget, *shares])
    print(f"A block {args.width} wide, {args.sequences} sequences of 65 tokens, torch {torch.__version__}\n")
    print_table(["budget", "share of the plain block, amp_bf16", "fp32"], rows)


if __name__ == "__main__":
    main()
