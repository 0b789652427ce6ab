"""One forward and one backward pass, counted; of tensors with values or without."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from maskedclip_composer.costs.counts import PeakBytes, SavedBytes, flop_counter
from maskedclip_composer.costs.sections import REST, Sections
from maskedclip_composer.distributed import apart
from maskedclip_composer.models.block import TokenBlock
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.types import Batch

Precision = Literal["fp32", "amp_bf16", "amp_fp16"]
# What the blocks keep that the compiler takes, of E_I and bridge and of the decoders.
IMAGE_BLOCKS, DECODER_BLOCKS = "image_blocks", "decoder_blocks"
Within = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """Operations of a step of one rank, two for a multiplication and an addition.

    Attributes:
        forward: By part of the forward pass: masked, whole, packed, encoder (E_I of what one objective alone asks for),
            bridge, text, teacher, objectives (decoders and heads), loss and rest.
        backward: Of the backward pass.
    """

    forward: dict[str, int]
    backward: int

    @property
    def total(self) -> int:
        """Of the step."""
        return sum(self.forward.values()) + self.backward


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Memory of a forward and a backward pass beside parameters, gradients and batch, in bytes.

    Attributes:
        saved: What the forward pass keeps for the backward pass, by part as in `StepFlops.forward`, but that of
            blocks which can be compiled as `IMAGE_BLOCKS` and `DECODER_BLOCKS`; with autocast also the weights in 16
            bits.
        peak: The most that is held at once.
    """

    saved: dict[str, int]
    peak: int

    @property
    def total_saved(self) -> int:
        """Of all parts."""
        return sum(self.saved.values())


def count_step(model: MaskedCLIP, batch: Batch, within: Within = contextlib.nullcontext) -> StepFlops:
    """Count the operations of forward pass, losses and backward pass.

    Args:
        model: On the CPU, with values or without.
        batch: Likewise.
        within: Where operators run; `Shapes.active` for tensors without values.
    """
    with apart(), within(), flop_counter() as counter:
        sections = Sections(counter.get_total_flops)
        with _timed(model, sections), torch.autocast("cpu", torch.bfloat16):
            sections.begin(REST)
            outputs = model(batch)
            sections.begin("loss")
            loss = model.loss(outputs, batch)["total"]
        sections.begin("backward")
        loss.backward()
        sections.begin(REST)
    counts = {name: int(count) for name, count in sections.totals(lambda first, second: second - first).items()}
    return StepFlops(backward=counts.pop("backward"), forward={name: count for name, count in counts.items() if count})


def measure_activations(
    model: MaskedCLIP, batch: Batch, precision: Precision, within: Within = contextlib.nullcontext
) -> Activations:
    """Follow the memory of forward pass, losses and backward pass; arguments as in `count_step`."""
    with within():
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    known: list[Tensor] = [*model.parameters(), *model.buffers(), *tree_leaves(batch), *gradients]
    saved = SavedBytes(known)
    sections = Sections(lambda: saved.total)
    with (
        apart(),
        within(),
        PeakBytes(known) as memory,
        _timed(model, sections),
        _blocks_told_apart(model, sections),
    ):
        sections.begin(REST)
        with saved.watch(), torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
            outputs = model(batch)
            sections.begin("loss")
            loss = model.loss(outputs, batch)["total"]
            sections.begin(REST)
        loss.backward()
    found = sections.totals(lambda first, second: second - first)
    return Activations(saved={name: int(size) for name, size in found.items() if size}, peak=memory.peak)


@contextlib.contextmanager
def _timed(model: MaskedCLIP, sections: Sections[Any]) -> Iterator[None]:
    """Let the network tell `sections` what it does."""
    before = model.net.timed
    model.net.timed = sections.section
    try:
        yield
    finally:
        model.net.timed = before


@contextlib.contextmanager
def _blocks_told_apart(model: MaskedCLIP, sections: Sections[Any]) -> Iterator[None]:
    """Make sections of the student's blocks that `compile_blocks` compiles; those of other layers keep no budget."""
    towers = {IMAGE_BLOCKS: model.net.branch, DECODER_BLOCKS: model.net.objectives}
    blocks = [(name, block) for name, tower in towers.items() for block in tower.modules()]
    blocks = [(name, block) for name, block in blocks if isinstance(block, TokenBlock)]
    for name, block in blocks:
        block.forward = _in_section(sections, name, block.forward)
    try:
        yield
    finally:
        for _, block in blocks:
            del block.forward  # the class's own is there again


def _in_section(sections: Sections[Any], name: str, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        with sections.section(name):
            return forward(*args, **kwargs)

    return run
