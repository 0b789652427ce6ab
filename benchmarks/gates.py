"""What the step must keep to, in numbers that are the same in every run; the exit status is 1 where one does not.

OMP_NUM_THREADS=1 python benchmarks/gates.py; docs/performance.md explains the table.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from contestants import Step, Task, check_losses, in_double
from rounds import print_table
from sizes import PLAIN, SIZES, build_network, make_batch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskedclip_composer.compute import ActivationConfig, ComputeConfig
from maskedclip_composer.costs.counts import count_flops, saved_bytes
from maskedclip_composer.models.compiled import compile_blocks
from maskedclip_composer.models.views import Views

OURS = ComputeConfig(compile="none")  # the CPU's compiler takes minutes; it changes none of these counts
SWITCHES = ("packed", "masked_only", "distinct_texts", "distinct_logits", "fused_optimizer")
TOLERANCE = 1e-5  # relative, of losses in float32


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A number and its limit from above; without a limit it is shown for comparison."""

    name: str
    value: float
    limit: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the value keeps to the limit; nan does not."""
        return self.limit is None or self.value <= self.limit

    def row(self) -> list[str]:
        """Write the table's row."""
        verdict = "" if self.limit is None else "ok" if self.holds else "FAILS"
        return [self.name, f"{self.value:.4g}", "" if self.limit is None else f"{self.limit:g}", verdict]


class _OperationCounter(TorchDispatchMode):
    """Counts what computes: neither views nor what only makes room."""

    FREE = ("aten::detach", "aten::_unsafe_view", "aten::empty", "aten::empty_like", "aten::new_empty")
    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += not (func.is_view or func._schema.name in self.FREE)
        return func(*args, **(kwargs or {}))


def count_operations(function: Callable[[], object]) -> int:
    """Count the ATen operators of `function` that compute something."""
    with _OperationCounter() as counter:
        function()
    return counter.operations


def saved(step: Step) -> int:
    """Return the bytes that the forward pass keeps for the backward pass."""
    return saved_bytes(lambda: step.forward()["total"], [*step.net.parameters(), *step.net.buffers(), *step.inputs])


def compare_counts(task: Task) -> Iterator[Gate]:
    """Compare a step's counts with the peer's."""
    torch.manual_seed(0)
    ours = task.ours(OURS)
    task = replace(task, weights=ours.net.state_dict())
    long = replace(task, max_tokens=256)
    # The same parameters and the same state of the optimiser in all; counting a step changes both.
    naive, fused = task.peer("explicit"), task.peer("sdpa")
    check_losses({"peer": naive, "peer, sdpa": fused, "peer, 256": long.peer("sdpa"), "ours": ours}, TOLERANCE)
    flops = count_flops(ours.gradients)
    for tokens, peer, limit in ((task.max_tokens, fused, 0.97), (256, long.peer("sdpa"), 0.90)):
        yield Gate(name=f"FLOPs / peer, {tokens} tokens", value=flops / count_flops(peer.gradients), limit=limit)
    kept = saved(ours)
    yield Gate(name="saved bytes / naive", value=kept / saved(naive), limit=0.86)
    yield Gate(name="saved bytes / peer with SDPA", value=kept / saved(fused))
    for step in (ours, naive, fused):
        step()  # AdamW makes its state in the first step, which must not count
    operations = count_operations(ours)
    yield Gate(name="operations / naive", value=operations / count_operations(naive), limit=0.25)
    yield Gate(name="operations / peer with SDPA", value=operations / count_operations(fused))
    gradients = count_operations(ours.gradients)
    yield Gate(name="forward and backward alone / naive", value=gradients / count_operations(naive.gradients))


def contrastive_bytes(compute: ComputeConfig, pairs: int, texts: int) -> int:
    """Return what the label-guided loss of `pairs` pairs keeps for its backward pass, inputs included."""
    sizes = SIZES["tiny"]
    torch.manual_seed(0)
    net = build_network(sizes, compute).net
    batch = make_batch(sizes, pairs, texts, max_tokens=None if compute.distinct_texts else 32)
    objective: Any = net.objectives["lg_clip"]
    with torch.no_grad():
        outputs = objective(Views(net, batch))
    outputs = {key: value.requires_grad_(value.is_floating_point()) for key, value in outputs.items()}
    return saved_bytes(lambda: objective.loss(**outputs), [])


def contrastive_growth(pairs: Sequence[int], texts: int = 16) -> Iterator[Gate]:
    """Fit the exponent with which the contrastive memory grows in the number of pairs."""
    for name, compute, limit in (("ours", OURS, 1.1), ("all pairs", PLAIN, None)):
        least, most = (contrastive_bytes(compute, number, texts) for number in (pairs[0], pairs[-1]))
        exponent = math.log(most / least) / math.log(pairs[-1] / pairs[0])
        span = f"{pairs[0]} to {pairs[-1]} pairs"
        yield Gate(name=f"contrastive bytes, exponent, {span}: {name}", value=exponent, limit=limit)


def block_widths(activation: str) -> float:
    """Return how many times its input's size a block of the bridge keeps for its backward pass."""
    budgets = ActivationConfig(image=activation)
    compute = replace(OURS, compile="none" if activation == "none" else "blocks", activation=budgets)
    torch.manual_seed(0)
    net = build_network(SIZES["tiny"], compute).net
    # Divides the graph as the compiler does, but generates no code, which would take minutes.
    compile_blocks(net, compute, torch.device("cpu"), backend="aot_eager_decomp_partition")
    block = net.get_submodule("branch.bridge.blocks.0")
    tokens = torch.randn(4, 64, net.branch.image_encoder.embed_dim, requires_grad=True)
    block(tokens).sum().backward()
    return saved_bytes(lambda: block(tokens), block.parameters()) / (tokens.numel() * tokens.element_size())


def activation_budgets() -> Iterator[Gate]:
    """Measure what a block keeps, eager and compiled with a budget."""
    yield Gate(name="token widths that a block keeps: eager", value=block_widths("none"))
    yield Gate(name="token widths that a block keeps: budget 0.9", value=block_widths("budget:0.9"), limit=10.1)
    yield Gate(name="token widths that a block keeps: budget 0.3", value=block_widths("budget:0.3"))


def variants() -> dict[str, ComputeConfig]:
    """Return each saving alone on top of the plain path, and all of them."""
    found = {name: replace(PLAIN, **{name: True}) for name in SWITCHES}
    found["distinct_texts and distinct_logits"] = replace(PLAIN, distinct_texts=True, distinct_logits=True)
    found["chunk_size=3"] = replace(PLAIN, chunk_size=3)
    found["activation full"] = replace(PLAIN, activation=ActivationConfig(image="full", text="full", decoders="full"))
    return found | {"all": OURS}


def equalities(pairs: int) -> Iterator[Gate]:
    """Compare the peer and every saving with the plain path in float64: losses, gradients, parameters after a step."""
    with in_double():
        torch.manual_seed(0)
        task = Task(sizes=SIZES["tiny"], pairs=pairs, texts=max(2, pairs // 2), max_tokens=40)
        weights = {name: value.clone() for name, value in task.ours(PLAIN).net.state_dict().items()}
        task = replace(task, weights=weights)
        reference = outcome(task.ours(PLAIN))
        outcomes = {"peer": outcome(task.peer("explicit"))}
        outcomes |= {name: outcome(task.ours(compute)) for name, compute in variants().items()}
    for name, found in outcomes.items():
        worst = {
            part: max(distance(found[part][key], value) for key, value in expected.items())
            for part, expected in reference.items()
        }
        yield Gate(name=f"{name} = plain: losses", value=worst["loss"], limit=1e-12)
        yield Gate(
            name=f"{name} = plain: gradients, parameters after a step",
            value=max(worst["gradients"], worst["parameters"]),
            limit=1e-10,
        )


def outcome(step: Step) -> dict[str, dict[str, Tensor]]:
    """Run a step; return its losses, its gradients, and the parameters after it."""
    losses = {name: value.detach() for name, value in step.losses().items()}
    step.gradients()
    named = [(name, parameter) for name, parameter in step.net.named_parameters() if parameter.grad is not None]
    gradients = {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}
    for name, gradient in gradients.items():
        if name.endswith("qkv.bias"):
            # Softmax does not see what all keys share: the true gradient is 0, and a quotient of it is noise.
            query, _, value = gradient.chunk(3)
            gradients[name] = torch.cat([query, value])
    gradients = {name: gradient for name, gradient in gradients.items() if not name.endswith("key.bias")}
    step.optimizer.step()
    step.update_teacher()
    parameters = {name: parameter.detach() for name, parameter in step.net.named_parameters()}
    # AdamW's first step is lr * sign(gradient): where the gradient is noise, so is the step.
    parameters = {name: value for name, value in parameters.items() if not name.endswith(("qkv.bias", "key.bias"))}
    return {"loss": losses, "gradients": gradients, "parameters": parameters}


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference relative to the norm of `expected`."""
    difference = torch.linalg.vector_norm(found - expected)
    return float(difference / torch.linalg.vector_norm(expected)) if difference else 0.0


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=SIZES, default="bench-ti", help="of the counts (%(default)s)")
    parser.add_argument("--pairs", type=int, default=4, help="and as many unpaired images (%(default)s)")
    parser.add_argument("--texts", type=int, default=2, help="different texts of the pairs (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = Task(sizes=SIZES[args.sizes], pairs=args.pairs, texts=args.texts, max_tokens=77)
    gates = [*compare_counts(task), *activation_budgets(), *contrastive_growth([128, 512]), *equalities(4)]
    print(f"Gates: {args.sizes}, {args.pairs} + {args.pairs} images, {args.texts} texts, torch {torch.__version__}\n")
    print_table(["gate", "value", "limit", ""], [gate.row() for gate in gates])
    failed = [gate.name for gate in gates if not gate.holds]
    print(f"{len(failed)} of {len(gates)} gates fail: {', '.join(failed)}" if failed else "All gates hold.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
