"""Figure 2 of the paper: ROC against the share of training data, a panel per task and a line per encoder."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.report.groups import Key, Results
from maskedclip_composer.report.summary import Summary

# Okabe & Ito's colours for all kinds of colour vision, without yellow, which is lost on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# In grey the markers tell; more encoders than colours differ by the line too.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
_LINES = ("-", "--", "-.", ":")
_DODGE = 0.06  # between encoders, so that their bars do not hide each other


@dataclass(frozen=True)
class Look:
    """How one encoder is drawn, the same in every panel."""

    colour: str
    marker: str
    line: str

    @classmethod
    def of(cls, index: int) -> "Look":
        """Return the look of the encoder in that place of the suite."""
        return cls(
            _COLOURS[index % len(_COLOURS)],
            _MARKERS[index % len(_MARKERS)],
            _LINES[index // len(_COLOURS) % len(_LINES)],
        )


def efficiency_figure(results: Results, summaries: Mapping[Key, Summary], protocol: str) -> Figure:
    """Draw all panels with one legend."""
    across = min(4, len(results.tasks))
    down = math.ceil(len(results.tasks) / across)
    legend_columns = max(1, min(across * 2, len(results.encoders)))
    legend_height = 0.5 + 0.25 * math.ceil(len(results.encoders) / legend_columns)
    figure = Figure(figsize=(max(4.5, 3.2 * across), 2.9 * down + legend_height), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for place, task in zip(axes, results.tasks, strict=False):
        draw_panel(place, results, summaries, protocol, task)
    for place in axes[::across]:
        place.set_ylabel("ROC (%)")
    for place in axes[len(results.tasks) :]:
        place.remove()
    figure.suptitle(
        f"{results.protocol_title(protocol)}: ROC by amount of training data, bars: 95 % interval", fontsize=11
    )
    handles = {
        label: handle for place in axes for handle, label in zip(*place.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=legend_columns, fontsize=9, frameon=False
    )
    return figure


def panel_figure(results: Results, summaries: Mapping[Key, Summary], protocol: str, task: str) -> Figure:
    """Draw one panel with its legend, for screens."""
    figure = Figure(figsize=(4.2, 3.4 + 0.22 * math.ceil(len(results.encoders) / 2)), layout="constrained")
    axes = figure.subplots()
    draw_panel(axes, results, summaries, protocol, task)
    axes.set_ylabel("ROC (%)")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def draw_panel(axes: Axes, results: Results, summaries: Mapping[Key, Summary], protocol: str, task: str) -> None:
    """Draw the means over seeds with their intervals; amounts stand at equal distances, shots apart from shares."""
    amounts = results.amounts(protocol)
    runs = [[amount for amount in amounts if _kind(amount) == kind] for kind in ("none", "shots", "share")]
    middle = (len(results.encoders) - 1) / 2
    for index, encoder in enumerate(results.encoders):
        look, label = Look.of(index), _literal(encoder)
        for run in runs:
            found = [amount for amount in run if _key(task, protocol, amount, encoder) in summaries]
            if not found:
                continue
            chosen = [summaries[_key(task, protocol, amount, encoder)] for amount in found]
            means = [100 * summary.mean["roc"] for summary in chosen]
            low = [
                max(0.0, mean - 100 * summary.intervals["roc"][0]) for mean, summary in zip(means, chosen, strict=True)
            ]
            high = [
                max(0.0, 100 * summary.intervals["roc"][1] - mean) for mean, summary in zip(means, chosen, strict=True)
            ]
            axes.errorbar(
                [amounts.index(amount) + _DODGE * (index - middle) for amount in found],
                means,
                yerr=[low, high],
                label=label,
                color=look.colour,
                marker=look.marker,
                linestyle=look.line,
                markersize=5,
                linewidth=1.5,
                elinewidth=0.8,
                capsize=2,
            )
            label = "_nolegend_"
    axes.set_title(_literal(results.task_title(task)), fontsize=11)
    # Side by side, more than five names run into each other.
    axes.set_xticks(range(len(amounts)), [amount.name for amount in amounts], rotation=45 if len(amounts) > 5 else 0)
    axes.set_xlim(-0.5, len(amounts) - 0.5)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def render(figure: Figure, form: Literal["png", "svg"]) -> bytes:
    """Return the file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "report"}):
        figure.savefig(buffer, format=form, dpi=200, metadata={"Date": None} if form == "svg" else {"Software": None})
    return buffer.getvalue()


def _kind(amount: Amount) -> str:
    if amount.fraction is not None:
        return "share"
    return "shots" if amount.shots is not None else "none"


def _literal(name: str) -> str:
    """Keep matplotlib from taking a dollar sign for mathematics."""
    return name.replace("$", r"\$")


def _key(task: str, protocol: str, amount: Amount, encoder: str) -> Key:
    return Key(task=task, protocol=protocol, amount=amount, encoder=encoder)
