"""Which metrics are drawn, and which of them together."""

from collections.abc import Callable, Sequence

import numpy as np

from maskedclip_composer.dashboard.chart import Chart, Line
from maskedclip_composer.dashboard.collapse import watch_config
from maskedclip_composer.dashboard.run import Run

_DIAGNOSTICS = "diagnostics/"


def charts(run: Run) -> list[Chart]:
    """Return the charts of what the run has recorded; each has a line at least."""
    watch = watch_config(run)
    losses = [name for name in run.series if name.startswith("loss/train/")]
    found = [_chart(run, name.removeprefix("loss/train/") + " loss", "loss", [name]) for name in _total_first(losses)]
    found += [
        _chart(run, f"{name.split('/')[1]}: loss above its least", "nats", [name])
        for name in _matching(run, lambda name: name.endswith("/above_floor"))
    ]
    scales = _matching(run, lambda name: name.endswith("/logit_scale"))
    found += [
        _chart(run, f"{name.split('/')[1]}: logit scale", "scale", [name], _limit(run, name, watch.logit_scale))
        for name in scales
    ]
    found.append(
        _chart(run, "Retrieval within the batch", "share right", _matching(run, lambda name: "/retrieval_" in name
               or name.endswith("retrieval_at_1")))
    )  # fmt: skip
    found.append(
        _chart(run, "Variance of features", "variance", _matching(run, lambda name: name.endswith("variance")))
    )
    found.append(
        _chart(run, "Effective rank of features", "directions", _matching(run, lambda name: name.endswith("_rank")))
    )
    shown = {"above_floor", "logit_scale"}
    rest = _matching(
        run,
        lambda name: (
            name.count("/") == 2
            and name.rsplit("/", 1)[1] not in shown
            and "retrieval" not in name
            and not name.endswith(("variance", "_rank"))
        ),
    )
    found += [_chart(run, name.removeprefix(_DIAGNOSTICS), "value", [name]) for name in rest]
    found.append(_chart(run, "Gradient norm, before clipping", "norm", ["diagnostics/gradient_norm"], _clip(run)))
    found.append(_chart(run, "Learning rates", "rate", sorted(name for name in run.series if name.startswith("lr-"))))
    found.append(_chart(run, "Images a second", "images/s", ["throughput/samples_per_sec"]))
    found.append(_chart(run, "Time of a measured step", "s", ["time/step"]))
    found.append(_chart(run, "Share of a step that waits for data", "share", ["time/data_wait_share"]))
    found.append(
        _chart(run, "Memory of the first rank", "GiB", ["memory/high_water_gib", "diagnostics/host_memory_gib"])
    )
    return [chart for chart in found if chart.lines]


def _chart(run: Run, title: str, unit: str, names: Sequence[str], marks: Sequence[tuple[str, float]] = ()) -> Chart:
    lines = []
    for name in names:
        series = run.series.get(name)
        if series is None:
            continue
        if any(len(line.y) == len(series) and np.array_equal(line.y, series.y) for line in lines):
            continue  # groups of one learning rate
        lines.append(Line(name=_short(name, names), x=series.x, y=series.y))
    return Chart(title=title, unit=unit, lines=lines, marks=list(marks))


def _short(name: str, names: Sequence[str]) -> str:
    short = name.removeprefix(_DIAGNOSTICS)
    return (
        short.removeprefix("lr-AdamW/").removeprefix("memory/").removesuffix("_gib").replace("_", " ")
        if len(names) > 1
        else short
    )


def _matching(run: Run, is_wanted: Callable[[str], bool]) -> list[str]:
    return [name for name in run.series if name.startswith(_DIAGNOSTICS) and is_wanted(name)]


def _total_first(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (not name.endswith("/total"), list(names).index(name)))


def _limit(run: Run, name: str, share: float | None) -> list[tuple[str, float]]:
    """Mark where the watch warns, once the scale is near enough to it for the curve to be seen beside it."""
    limit = run.setting("objectives", name.split("/")[1], "max_logit_scale")
    newest = run.series[name].finite
    if share is None or limit is None or not len(newest) or newest.max() < 0.5 * float(limit):
        return []
    return [("warns", share * float(limit))]


def _clip(run: Run) -> list[tuple[str, float]]:
    norm = run.setting("optimizer", "max_grad_norm")
    return [("clipped above", float(norm))] if isinstance(norm, int | float) else []
