"""From counts to GiB, hours and money."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from maskedclip_composer.compute import ActivationConfig
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
    state = cost.state_bytes(config.parallelism, ranks)
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
    """Yield settings that need less memory, each alone, as the override to give and the config with it."""
    compute = config.compute
    activation = compute.activation
    if compute.compile != "none" and activation.image == "none":
        kept = replace(activation, image="budget:0.5")
        yield "compute.activation.image=budget:0.5", replace(config, compute=replace(compute, activation=kept))
    if activation.image != "full":
        kept = replace(activation, image="full")
        yield "compute.activation.image=full", replace(config, compute=replace(compute, activation=kept))
    if (activation.image, activation.text, activation.decoders) != ("full", "full", "full"):
        towers = ActivationConfig(image="full", text="full", decoders="full")
        changed = replace(config, compute=replace(compute, activation=towers))
        yield "compute.activation={image: full, text: full, decoders: full}", changed
    images = sum(stream.batch_size for stream in config.data.streams().values()) // ranks
    chunk = max(1, images // 8)
    if compute.chunk_size is None or compute.chunk_size > chunk:
        yield f"compute.chunk_size={chunk}", replace(config, compute=replace(compute, chunk_size=chunk))
    if ranks > 1 and config.parallelism == "ddp":
        yield "parallelism=fsdp", replace(config, parallelism="fsdp")
    halved = {name: stream.batch_size // 2 for name, stream in config.data.streams().items()}
    if all(size and size % ranks == 0 for size in halved.values()):
        streams = {name: replace(stream, batch_size=halved[name]) for name, stream in config.data.streams().items()}
        names = " ".join(f"data.{name}.batch_size={size}" for name, size in halved.items())
        yield f"{names}, another recipe", replace(config, data=replace(config.data, **streams))


def remedies(config: TrainConfig, cost: StepCost, build: Build, ranks: int) -> Iterable[tuple[str, float]]:
    """Yield what `smaller` yields, each with the GiB that a rank then takes."""
    for override, changed in smaller(config, ranks):
        activations = cost.activations
        if changed.parallelism == config.parallelism:
            activations = step_activations(changed, build, ranks=ranks, precisions=(precision_of(config),))
        yield override, sum(memory_gib(changed, replace(cost, activations=activations), ranks).values())
