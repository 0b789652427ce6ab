"""What a run would cost, said before anything is spent."""

import os

import torch
from rich.console import Console
from rich.table import Table

from maskedclip_composer.build import build_model, build_schedule
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.costs.devices import DEVICES, Device, peak_tflops
from maskedclip_composer.costs.estimate import (
    GIB,
    RESERVE,
    Estimate,
    estimate,
    memory_gib,
    precision_of,
    remedies,
)
from maskedclip_composer.costs.passes import StepFlops
from maskedclip_composer.costs.plan import Plan, make_plan
from maskedclip_composer.costs.step_cost import StepCost, step_cost, step_flops

_WIDTH = 100  # columns where the output is no terminal


def dry_run(config: TrainConfig) -> None:
    """Print steps, operations, memory, hours and price of a run; on rank 0 alone, and without a trace.

    The indexes of the data are read, those of remote ones into their cache as in training. No GPU is used, no weights
    are read, no folder is made.

    Raises:
        UserError: As in training, where data and sizes do not fit together.
    """
    if int(os.environ.get("RANK", 0)):
        return
    ranks = config.estimate.ranks or int(os.environ.get("WORLD_SIZE", 1))
    console = Console(width=None if Console().is_terminal else _WIDTH, highlight=False)
    plan = make_plan(config, ranks)
    build_schedule(config, plan.steps_per_epoch)
    devices = {name: DEVICES[name] for name in config.estimate.gpus} | _present()

    # Each part as soon as it is known: some recipes take a minute for one of them.
    console.print(f"Dry run of {config.run_name}: nothing is trained and nothing is written.\n")
    console.print(_run_table(plan))
    flops = step_flops(config, build_model, ranks=ranks)
    console.print(_flops_table(flops, plan))
    cost = step_cost(config, build_model, ranks=ranks, precisions=(precision_of(config),), flops=flops)
    console.print(_memory_table(config, cost, plan))
    estimates = {name: estimate(config, cost, plan, device) for name, device in devices.items()}
    console.print(_device_table(config, devices, estimates))
    console.print(_assumptions(config))
    if not all(each.fits for each in estimates.values()):
        _print_remedies(console, config, cost, plan)


def _present() -> dict[str, Device]:
    """Return the machine's own GPU, if there is one."""
    if not torch.cuda.is_available():
        return {}
    name = torch.cuda.get_device_name()
    memory = torch.cuda.get_device_properties(0).total_memory / GIB
    return {f"here: {name}": Device(tflops=peak_tflops(name) or 0.0, memory=memory, names=(name,))}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _run_table(plan: Plan) -> Table:
    table = _table("Data", "", "images", "a step", "of it a rank", "passes an epoch")
    for name, samples in plan.samples.items():
        batch = plan.batch[name]
        passes = plan.steps_per_epoch * batch / samples
        table.add_row(name, f"{samples:,}", f"{batch:,}", f"{batch // plan.ranks:,}", f"{passes:.2f}")
    seen = plan.steps * plan.images_per_step
    table.add_section()
    table.caption = (
        f"{plan.steps_per_epoch:,} steps an epoch, {plan.steps:,} steps of {plan.images_per_step:,} images in all, "
        f"{seen:,} images seen, ranks: {plan.ranks}\n"
    )
    table.caption_justify = "left"
    return table


def _flops_table(flops: StepFlops, plan: Plan) -> Table:
    total = flops.total
    table = _table("Operations of a step on one rank", "", "TFLOP", "share")
    parts = {f"forward, {name}": count for name, count in flops.forward.items()} | {"backward": flops.backward}
    for name, count in parts.items():
        table.add_row(name, f"{count / 1e12:,.3f}", f"{count / total:.1%}")
    table.add_row("useful operations", f"{total / 1e12:,.3f}", "")
    table.caption = f"{_number(total * plan.ranks * plan.steps / 1e15)} PFLOP in the whole run\n"
    table.caption_justify = "left"
    return table


def _memory_table(config: TrainConfig, cost: StepCost, plan: Plan) -> Table:
    own = precision_of(config)
    parts = memory_gib(config, cost, plan.ranks)
    title = f"\nMemory of one rank ({config.parallelism}, ranks: {plan.ranks}, {own})"
    table = _table(title, "", "GiB", "of")
    trained = ", ".join(f"{name} {size / 1e6:,.1f} M" for name, size in cost.parameters.items())
    notes = {
        "parameters": trained,
        "parameters, whole": "gathered again for chunks, until the backward pass ends",
        "teacher": f"{cost.teachers / 1e6:,.1f} M",
        "fixed": f"{cost.fixed / 1e6:,.1f} M, such as positions",
        "activations": "the most at once, for the backward pass and in passing",
    }
    for name, size in parts.items():
        table.add_row(name, f"{size:,.2f}", notes.get(name, ""))
    table.add_row("total", f"{sum(parts.values()):,.2f}", f"not counted: about {RESERVE:.0f} GiB of CUDA and libraries")
    for precision, found in cost.activations.items():
        table.add_row(f"kept for backward, {precision}", f"{found.total_saved / GIB:,.2f}", "")
    table.columns[2].justify = "left"
    return table


def _device_table(config: TrainConfig, devices: dict[str, Device], estimates: dict[str, Estimate]) -> Table:
    title = f"\nOn GPUs, at {config.estimate.mfu:.0%} of their peak in bfloat16"
    table = _table(title, "", "memory GiB", "fits", "peak TFLOP/s", "hours", "GPU-hours", "price")
    for name, found in estimates.items():
        device = devices[name]
        table.add_row(
            name,
            f"{device.memory:.1f}",
            "yes" if found.fits else "no",
            f"{device.tflops:,.1f}" if device.tflops else "?",
            _number(found.hours),
            _number(found.gpu_hours),
            _number(found.price),
        )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _assumptions(config: TrainConfig) -> str:
    lines = ["", "Each pair is counted with a text of its own of data.max_tokens tokens: the most it can be."]
    if config.compute.compile != "none":
        lines.append("Compiled blocks are counted as plain ones; they need no more memory, with a budget less.")
    if precision_of(config) == "fp32":
        lines.append("trainer.precision=fp32: no hours, because the peaks are those of bfloat16.")
    if config.compute.fp8 != "none":
        lines.append(f"compute.fp8={config.compute.fp8}: the peaks are those of bfloat16 all the same.")
    return "\n".join([*lines, ""])


def _print_remedies(console: Console, config: TrainConfig, cost: StepCost, plan: Plan) -> None:
    console.print("[bold]Where it does not fit: GiB of one rank with each of these alone[/bold]")
    for override, size in remedies(config, cost, build_model, plan.ranks):
        console.print(f"{size:7,.2f}  {override}", markup=False, soft_wrap=True)
