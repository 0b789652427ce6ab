"""From counts to GiB, hours and money."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.costs.devices import Device
from maskedclip_composer.costs.passes import Precision
from maskedclip_composer.costs.plan import Plan
from maskedclip_composer.costs.step_cost import Build, StepCost, step_activations

GIB = 2**30
# GiB that a process needs beside what is counted: CUDA's context, workspaces of libraries, buffers of the network
# between GPUs, gaps between tensors. A rule of thumb, not a measurement.
RESERVE = 2.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one kind of GPU makes of a run.

    Attributes:
        fits: Whether memory and `RESERVE` lie within the device's.
        hours: On the clock; None where the peak is not known.
        gpu_hours: Times the number of GPUs.
        price: None where none is given.
    """

    fits: bool
    hours: float | None
    gpu_hours: float | None
    price: float | None


def precision_of(config: TrainConfig) -> Precision:
    """Return the precision of the run on a GPU."""
    return config.trainer.get("precision") or "amp_bf16"


def memory_gib(config: TrainConfig, cost: StepCost, ranks: int) -> dict[str, float]:
    """Return what a rank's memory is taken by, in GiB."""
    state = cost.state_bytes(config.parallelism, ranks, chunked=config.compute.chunk_size is not None)
    parts = {name: size / GIB for name, size in state.items()}
    return parts | {"activations": cost.activations[precision_of(config)].peak / GIB}


def estimate(config: TrainConfig, cost: StepCost, plan: Plan, device: Device) -> Estimate:
    """Estimate a run on `plan.ranks` devices, at `config.estimate.mfu` of their peak."""
    assumed = config.estimate
    memory = sum(memory_gib(config, cost, plan.ranks).values())
    hours = None
    if device.tflops and precision_of(config) != "fp32":  # the peaks are those of 16 bits
        hours = plan.steps * cost.flops.total / (device.tflops * 1e12 * assumed.mfu) / 3600
    gpu_hours = None if hours is None else hours * plan.ranks
    price = None if gpu_hours is None or assumed.price_per_gpu_hour is None else gpu_hours * assumed.price_per_gpu_hour
    return Estimate(fits=memory + RESERVE <= device.memory, hours=hours, gpu_hours=gpu_hours, price=price)


def smaller(config: TrainConfig, ranks: int) -> Iterator[tuple[str, TrainConfig]]:
    """Yield settings that may need less memory, each alone, and the config with them.

    The settings are written as a shell takes them; what they change beside memory stands behind, as its comment.
    """
    compute = config.compute
    activation = compute.activation
    if compute.compile != "none" and activation.image == "none":
        kept = replace(activation, image="budget:0.5")
        yield "compute.activation.image=budget:0.5", replace(config, compute=replace(compute, activation=kept))
    if activation.image != "full":
        kept = replace(activation, image="full")
        yield "compute.activation.image=full", replace(config, compute=replace(compute, activation=kept))
    # Training refuses the setting of a tower that a recipe lacks.
    has_decoders = any(objective.has_decoder for objective in config.objectives.present().values())
    towers = ["image", *(["text"] if config.reads_texts else []), *(["decoders"] if has_decoders else [])]
    kept = replace(activation, **dict.fromkeys(towers, "full"))
    if kept != activation and len(towers) > 1:
        setting = ", ".join(f"{tower}: full" for tower in towers)
        changed = replace(config, compute=replace(compute, activation=kept))
        yield shlex.quote(f"compute.activation={{{setting}}}"), changed
    images = sum(stream.batch_size for stream in config.data.streams().values()) // ranks
    chunk = max(1, images // 8)
    if compute.chunk_size is None or compute.chunk_size > chunk:
        yield f"compute.chunk_size={chunk}", replace(config, compute=replace(compute, chunk_size=chunk))
    if ranks > 1 and config.parallelism == "ddp":
        yield "parallelism=fsdp", replace(config, parallelism="fsdp")
    if compute.residual == "float32" and precision_of(config) != "fp32":
        rounded = replace(config, compute=replace(compute, residual="autocast"))
        yield "compute.residual=autocast  # changes rounding", rounded
    halved = {name: stream.batch_size // 2 for name, stream in config.data.streams().items()}
    if all(size and size % ranks == 0 for size in halved.values()):
        streams = {name: replace(stream, batch_size=halved[name]) for name, stream in config.data.streams().items()}
        names = " ".join(f"data.{name}.batch_size={size}" for name, size in halved.items())
        yield f"{names}  # another recipe", replace(config, data=replace(config.data, **streams))


def remedies(config: TrainConfig, cost: StepCost, build: Build, ranks: int) -> Iterator[tuple[str, float]]:
    """Yield what `smaller` yields, with the GiB that a rank then takes, where that is less than now."""
    now = sum(memory_gib(config, cost, ranks).values())
    for override, changed in smaller(config, ranks):
        activations = cost.activations
        if changed.parallelism == config.parallelism:
            activations = step_activations(changed, build, ranks=ranks, precisions=(precision_of(config),))
        needed = sum(memory_gib(changed, replace(cost, activations=activations), ranks).values())
        if needed < now:
            yield override, needed
