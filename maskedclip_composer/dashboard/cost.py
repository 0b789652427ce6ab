"""What did it cost: device-hours, and money where the run's config has a price."""

import re

from maskedclip_composer.dashboard.answer import Answer, duration, number
from maskedclip_composer.dashboard.run import Run

QUESTION = "What did it cost?"


def cost(run: Run) -> Answer:
    """Answer by Composer's clock of the steps, times the devices that the run's provenance names.

    No price is assumed: money is said only where `estimate.price_per_gpu_hour` is given.
    """
    hours = run.series.get("time/total")
    if hours is None or not len(hours.finite):
        return Answer(question=QUESTION, verdict="Nothing yet", number="no step is done", level="unknown")
    spent = float(hours.finite[-1])
    devices, kind = _devices(run)
    device_hours = spent * devices
    lines = [f"{duration(3600 * spent)} on {devices} x {kind}, {number(device_hours)} device-hours"]
    price = run.setting("estimate", "price_per_gpu_hour")
    if left := _left(run, spent):
        lines.append(f"About {duration(3600 * left)} to go at the speed so far")
    memory = run.series.get("memory/high_water_gib")
    if memory is not None and len(memory.finite):
        lines.append(f"Memory: {number(float(memory.finite.max()))} GiB at most on the first rank")
    lines.append("Counted are the steps that were kept, not start-up, evaluation, or steps taken again after a kill.")
    amount = f"{number(device_hours)} device-hours"
    if price is None:
        lines.append("For money set estimate.price_per_gpu_hour.")
        return Answer(
            question=QUESTION, verdict=_so_far(run, duration(3600 * spent)), number=amount, level="good", lines=lines
        )
    money = f"{device_hours * float(price):,.2f}"
    lines.append(f"At {price} a device-hour (estimate.price_per_gpu_hour), in the currency of that price")
    return Answer(
        question=QUESTION, verdict=_so_far(run, money), number=f"{amount} at {price} each", level="good", lines=lines
    )


def _so_far(run: Run, amount: str) -> str:
    return amount if run.state == "finished" else f"{amount} so far"


def _devices(run: Run) -> tuple[int, str]:
    """Return the number of processes, which have a device each, and what kind they are."""
    found = re.fullmatch(r"(\d+) x (.+)", str(run.provenance.get("device", "")))
    return (int(found[1]), found[2]) if found else (1, "device of a kind that is not recorded")


def _left(run: Run, spent: float) -> float:
    if run.total_steps is None or not run.step or run.state == "finished":
        return 0.0
    return spent * (run.total_steps - run.step) / run.step
