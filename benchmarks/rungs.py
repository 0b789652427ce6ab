"""The rungs of the GPU ladder: peers first, then ours with one saving more each time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from contestants import Step, Task
from sizes import PLAIN
from timm.models.vision_transformer import Block
from transformers.models.bert.modeling_bert import BertLayer

from maskedclip_composer.compute import ActivationConfig, ComputeConfig
from maskedclip_composer.models.attention import AttentionBackend

EXACT, EIGHT_BITS = 1e-2, 5e-2  # how far losses may be from the first rung's

XFORMERS: dict[str, AttentionBackend] = {"xformers": "xformers", "varlen": "xformers_varlen"}


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One variant of the step.

    Attributes:
        key: Short name, for the command line and for quotients.
        title: What it is.
        build: Makes the step.
        amp: Run under bfloat16 autocast; otherwise in float32 with TF32 products.
        compiled: It uses torch.compile.
        cuda: It needs a GPU.
        tolerance: See EXACT.
    """

    key: str
    title: str
    build: Callable[[Task], Step]
    amp: bool = True
    compiled: bool = False
    cuda: bool = False
    tolerance: float = EXACT


def all_rungs() -> list[Rung]:
    """Return the ladder from bottom to top."""
    return [*peers(), *ours()]


def peers() -> Iterator[Rung]:
    """Yield what public code does."""
    explicit = "peer P0, explicit attention"
    yield Rung(key="tf32", title=f"{explicit}, TF32", build=lambda task: task.peer("explicit"), amp=False)
    yield Rung(key="p0", title=explicit, build=lambda task: task.peer("explicit"))
    yield Rung(
        key="p0-256",
        title="peer P0, texts padded to 256",
        build=lambda task: replace(task, max_tokens=256).peer("explicit"),
    )
    yield Rung(key="p1", title="peer P1, SDPA", build=lambda task: task.peer("sdpa"))
    yield Rung(key="p1c", title="peer P1, blocks compiled", build=compiled_peer, compiled=True)


def compiled_peer(task: Task) -> Step:
    """Build P1 with its blocks compiled, so that compiling does not count as ours alone."""
    step = task.peer("sdpa")
    for module in step.net.modules():
        if isinstance(module, Block | BertLayer):
            module.compile(dynamic=False)
    return step


def ours() -> Iterator[Rung]:
    """Yield the plain path and one saving after another."""
    compute = PLAIN
    yield rung("plain", "ours, plain", compute)
    compute = replace(compute, distinct_texts=True, distinct_logits=True)
    yield rung("texts", "+ distinct texts and logits", compute)
    compute = replace(compute, fused_optimizer=True)
    yield rung("fused", "+ fused AdamW", compute)
    compute = replace(compute, masked_only=True)
    yield rung("masked", "+ pixels of removed patches alone", compute)
    compute = replace(compute, packed=True)
    yield rung("packed", "+ packed encoder pass", compute)
    compute = replace(compute, compile="blocks")
    yield rung("compiled", "+ compiled blocks", compute)
    narrow = replace(compute, residual="autocast")
    yield rung("residual", "+ bfloat16 between blocks", narrow)
    for key, attention in XFORMERS.items():
        yield rung(key, f"compiled, attention by {attention}", compute, attention=attention, cuda=True)
    budgets = ActivationConfig(image="budget:0.9", decoders="budget:0.9")
    yield rung("budget", "the same, activation budget 0.9", replace(narrow, activation=budgets))
    recomputed = ActivationConfig(image="full", text="full", decoders="full")
    yield rung("full", "compiled, every block computed twice", replace(compute, activation=recomputed))
    for name in ("teacher", "linears"):
        found = replace(narrow, fp8=name)
        yield rung(f"fp8-{name}", f"bfloat16 between blocks, 8 bits: {name}", found, cuda=True, tolerance=EIGHT_BITS)


def rung(
    key: str,
    title: str,
    compute: ComputeConfig,
    *,
    attention: AttentionBackend = "sdpa",
    cuda: bool = False,
    tolerance: float = EXACT,
) -> Rung:
    """Make a rung of ours."""
    return Rung(
        key=key,
        title=title,
        build=lambda task: replace(task, attention=attention).ours(compute),
        compiled=compute.compile != "none",
        cuda=cuda,
        tolerance=tolerance,
    )


def with_precision(task: Task, rung: Rung) -> Task:
    """Return the task in the rung's precision."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return replace(task, autocast=torch.bfloat16 if rung.amp else None)
