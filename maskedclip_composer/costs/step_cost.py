"""What a training step costs: operations, memory, parameters; counted without running it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from torch import nn

from maskedclip_composer.compute import ActivationConfig, ComputeConfig, budget
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.costs.batches import made_up_batch
from maskedclip_composer.costs.fake import Shapes
from maskedclip_composer.costs.passes import (
    DECODER_BLOCKS,
    IMAGE_BLOCKS,
    Activations,
    Precision,
    StepFlops,
    count_step,
    measure_activations,
)
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.types import Batch

# What the compiler keeps of a block under a budget, as a share of what the plain block keeps: by so much more than the
# budget's share, and never more than the second. Upper bounds of the counts in docs/costs.md, with some room.
_SLACK, _MOST = 0.16, 0.71
Build = Callable[[TrainConfig], MaskedCLIP]


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a step of one rank costs.

    Attributes:
        parameters: Trained ones, by group: image_encoder, bridge, text_encoder and each objective.
        teachers: Number of parameters that follow others by momentum.
        fixed: Number of other parameters that are not trained, such as positions.
        flops: Useful operations.
        activations: Memory of the precisions that were asked for.
    """

    parameters: dict[str, int]
    teachers: int
    fixed: int
    flops: StepFlops
    activations: dict[Precision, Activations]

    def state_bytes(self, parallelism: Literal["ddp", "fsdp"], ranks: int, *, chunked: bool) -> dict[str, int]:
        """Return what one rank holds all the time, in bytes: float32 throughout, with AdamW's two moments.

        With fsdp everything is dealt over the ranks; where encodings are `chunked`, all trained parameters lie whole
        beside their shards by the end of the backward pass (`algorithms/keep_gathered.py`). DDP (torch 2.7 as Composer
        0.32.1 wraps it) keeps the gradients a second time, in the buckets that it sends.
        """
        trained = 4 * sum(self.parameters.values())
        parts = {"parameters": trained, "gradients": trained, "optimizer": 2 * trained}
        parts |= {"teacher": 4 * self.teachers} if self.teachers else {}
        parts |= {"fixed": 4 * self.fixed} if self.fixed else {}
        if ranks > 1 and parallelism == "ddp":
            parts["DDP's buckets"] = trained
        parts = {name: -(-size // (ranks if parallelism == "fsdp" else 1)) for name, size in parts.items()}
        return parts | ({"parameters, whole": trained} if parallelism == "fsdp" and chunked else {})


def step_cost(
    config: TrainConfig,
    build: Build,
    *,
    ranks: int = 1,
    precisions: tuple[Precision, ...],
    flops: StepFlops | None = None,
) -> StepCost:
    """Count what a step of one of `ranks` ranks costs, with all that `config.compute` says but what follows.

    The network is the one that `build` makes, with shapes alone: no weights are made, read or fetched, and nothing is
    computed. Each pair has a text of its own as long as `data.max_tokens`, which is an upper bound. `build` neither
    compiles nor takes 8-bit layers, so both are counted as plain ones; where the compiler has a budget, see `_SLACK`.

    Args:
        config: The run.
        build: `build.build_model`.
        ranks: Over which the batch is dealt.
        precisions: To follow the memory of.
        flops: What `step_flops` has counted, where it was called before.

    Raises:
        UserError: Sizes of the config do not fit together.
    """
    model, _, _ = _without_values(config, config.compute, build, ranks)
    teachers = sum(_numbers(teacher) for teacher, _ in model.net.momentum_pairs())
    untrained = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    return StepCost(
        parameters=_parameters(model),
        teachers=teachers,
        fixed=untrained - teachers,
        flops=flops or step_flops(config, build, ranks=ranks),
        activations=step_activations(config, build, ranks=ranks, precisions=precisions),
    )


def step_activations(
    config: TrainConfig, build: Build, *, ranks: int = 1, precisions: tuple[Precision, ...]
) -> dict[Precision, Activations]:
    """Follow the memory of a step; arguments as in `step_cost`."""
    model, batch, shapes = _without_values(config, config.compute, build, ranks)
    found: dict[Precision, Activations] = {}
    for precision in precisions:
        measured = measure_activations(model, batch, precision, shapes.active)
        found[precision] = _within_budget(measured, config.compute.activation)
    return found


def step_flops(config: TrainConfig, build: Build, *, ranks: int = 1, batch: Batch | None = None) -> StepFlops:
    """Count a step's useful operations: what is computed a second time to save memory does not count.

    Args:
        config: As in `step_cost`.
        build: Likewise.
        ranks: Likewise.
        batch: One rank's, in place of a made-up one; it is not read but for labels, texts and masks.
    """
    plain = replace(config.compute, activation=ActivationConfig(), chunk_size=None)
    model, made_up, shapes = _without_values(config, plain, build, ranks, batch)
    return count_step(model, made_up, shapes.active)


def _without_values(
    config: TrainConfig, compute: ComputeConfig, build: Build, ranks: int, batch: Batch | None = None
) -> tuple[MaskedCLIP, Batch, Shapes]:
    """Return the network in training mode and a batch, and the place to run them in."""
    encoder = config.image_encoder
    attention: Any = "explicit" if encoder.attention == "explicit" else "sdpa"  # xformers keeps what sdpa keeps
    described = replace(
        config,
        image_encoder=replace(encoder, pretrained=False, weights=None, attention=attention),
        text_encoder=replace(config.text_encoder, pretrained=False),
        from_weights=[],
        compute=compute,
    )
    shapes = Shapes()
    model = shapes.build(lambda: build(described)).train()
    batch = batch or made_up_batch(config, model.net.branch.image_encoder.grid, ranks)
    return model, cast(Batch, shapes.of(batch)), shapes


def _within_budget(found: Activations, activation: ActivationConfig) -> Activations:
    """Take off what the compiler is not to keep, which is asked of the blocks that it compiles alone."""
    parts = {IMAGE_BLOCKS: activation.image, DECODER_BLOCKS: activation.decoders}
    saved = {}
    for name, size in found.saved.items():
        share = budget(parts.get(name, "none"))
        saved[name] = size if share is None else int(size * min(_MOST, share + _SLACK))
    return Activations(saved=saved, peak=found.peak - found.total_saved + sum(saved.values()))


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _parameters(model: MaskedCLIP) -> dict[str, int]:
    net = model.net
    groups: dict[str, Any] = {"image_encoder": net.branch.image_encoder, "bridge": net.branch.bridge}
    groups |= {"text_encoder": net.text_encoder} if net.text_encoder is not None else {}
    groups |= dict(net.objectives.items())
    sizes = {
        name: sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        for name, module in groups.items()
    }
    return {name: size for name, size in sizes.items() if size}
