"""How fast: images a second, and what the steps wait for."""

import numpy as np

from maskedclip_composer.dashboard.answer import Answer, Level, duration, number, percent
from maskedclip_composer.dashboard.run import Run

QUESTION = "How fast is it?"
FEWEST = 5
"""Records under which nothing is said."""
WAITS = 0.1
"""Share of a step that waits for data from which on the loader is too slow."""
SLOWER = 0.8
"""Times the median of the run under which the newest tenth is called slow."""
UNEVEN = 2.0
"""Times the first quartile that the third one has to be for the speed to be called uneven."""


def speed(run: Run) -> Answer:
    """Answer by the median over the newest tenth of the records, five at least."""
    rate = _values(run, "throughput/samples_per_sec")
    if len(rate) < FEWEST:
        return Answer(
            question=QUESTION,
            verdict="Too early to say",
            number=f"{len(rate)} of the {FEWEST} records that a verdict needs",
            level="unknown",
        )
    newest, median = _newest(rate), float(np.median(rate))
    lines = []
    step = _values(run, "time/step")
    if len(step):
        lines.append(f"A step takes {duration(_newest(step))} (median of the newest records)")
    elif (per_second := _values(run, "throughput/batches_per_sec")).size:
        lines.append(f"A step takes {duration(1 / _newest(per_second))} (median of the newest records)")
    waits = _values(run, "time/data_wait_share")
    share = float(np.median(waits)) if len(waits) else None
    if share is not None:
        lines.append(f"Waiting for data: {percent(share)} of a step (median over the run)")
    mfu = _values(run, "throughput/mfu")
    if len(mfu):
        lines.append(f"MFU {percent(_newest(mfu))} of the device's peak")
    low, high = np.quantile(rate, [0.25, 0.75])
    lines.append(f"Over the run: median {number(median)}, middle half {number(low)} to {number(high)} images/s")
    verdict, level = _verdict(share, newest / median, high / low)
    return Answer(question=QUESTION, verdict=verdict, number=f"{number(newest)} images/s", level=level, lines=lines)


def _verdict(share: float | None, relative: float, spread: float) -> tuple[str, Level]:
    if share is not None and share >= WAITS:
        return f"It waits for data {percent(share)} of the time", "watch"
    if relative < SLOWER:
        return f"Slower of late: {percent(relative)} of its median", "watch"
    if spread >= UNEVEN:
        return "Uneven over the run", "watch"
    return ("Steady, and the loader keeps up" if share is not None else "Steady"), "good"


def _values(run: Run, name: str) -> np.ndarray:
    return run.series[name].finite if name in run.series else np.zeros(0)


def _newest(values: np.ndarray) -> float:
    return float(np.median(values[-max(FEWEST, len(values) // 10) :]))
