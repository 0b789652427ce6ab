"""Panels of points with colours by label and markers by set."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe and Ito's colours for all kinds of colour vision, without the yellow that white paper swallows.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "^", "s", "D", "P")
REST = "0.65"
_NAME = 36  # characters in the legend


@dataclass(frozen=True)
class Panel:
    """One space: its title and where its points lie."""

    title: str
    places: Float[np.ndarray, "points 2"]


def draw_panels(
    panels: Sequence[Panel],
    *,
    labels: Sequence[str | None] | None,
    sets: Sequence[str | None] | None,
    title: str,
    axis: str,
) -> bytes:
    """Draw panels of the same points.

    Args:
        panels: At least one.
        labels: Of each point; those that are most frequent have colours, the rest is grey.
        sets: Likewise with markers.
        title: Above the picture.
        axis: What the axes are.

    Returns:
        A PNG file.
    """
    count = len(panels[0].places)
    colour_of, colour_names = looks(labels, count, COLOURS, REST)
    marker_of, marker_names = looks(sets, count, MARKERS, "x")
    has_legend = labels is not None or sets is not None
    figure = Figure(figsize=(5.4 * len(panels) + 3.1 * has_legend, 6.0), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, horizontalalignment="left")
    order = np.random.default_rng(0).permutation(count)  # no label lies over all others
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for marker in dict.fromkeys(marker_of):
            rows = [row for row in order if marker_of[row] == marker]
            axes.scatter(
                *panel.places[rows].T,
                c=[colour_of[row] for row in rows],
                marker=marker,
                s=34 if count < 300 else 16,
                alpha=0.8,
                linewidths=1.0 if marker == "x" else 0,
            )
        axes.set_title(panel.title, fontsize=11)
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(f"{axis}: first direction", fontsize=9)
        axes.set_ylabel("second direction", fontsize=9)
    if has_legend:
        neutral = "0.3"
        handles = [Line2D([], [], color=look, marker="o", linestyle="", label=name) for name, look in colour_names]
        handles += [Line2D([], [], color=neutral, marker=look, linestyle="", label=name) for name, look in marker_names]
        figure.legend(handles=handles, loc="outside right center", fontsize=9, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def looks(
    values: Sequence[str | None] | None, count: int, choices: Sequence[str], rest: str
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the look of each point, and (name, look) for the legend: most frequent values first, then the rest."""
    if values is None:
        return [choices[0]] * count, []
    counts = Counter(value for value in values if value is not None)
    frequent = sorted(counts, key=lambda value: (-counts[value], value))
    look_of = dict(zip(frequent, choices, strict=False))
    names = [(f"{_short(value)} ({counts[value]})", look) for value, look in look_of.items()]
    if others := frequent[len(look_of) :]:
        names.append((f"{len(others)} others ({sum(counts[value] for value in others)})", rest))
    if missing := sum(value is None for value in values):
        names.append((f"none ({missing})", rest))
    return [rest if value is None else look_of.get(value, rest) for value in values], names


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
