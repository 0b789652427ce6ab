"""PNG files of columns and maps."""

import io
import math
from itertools import groupby
from typing import TYPE_CHECKING, Any

from torch import Tensor

from maskedclip_composer.callbacks.picture_columns import Column, Map, Scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 2.6  # inches
UNIT = (0, 1, 0, 1)  # images and heat maps of any number of pixels cover each other


def draw(columns: list[Column], *, rows: list[str], title: str) -> bytes:
    """Draw one row per image and one column per view; neighbouring columns of the same scale share its colour bar.

    Args:
        columns: At least one, each with a cell for every row.
        rows: A label per image.
        title: Above the picture.

    Returns:
        A PNG file.
    """
    scales = [scale for scale, _ in groupby(column.scale for column in columns) if scale is not None]
    width = SIDE * len(columns) + 1.2 + 0.8 * max(0, len(scales) - 1)
    figure = _figure(width, SIDE * len(rows) + 0.7, title)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for scale, neighbours in groupby(zip(columns, axes.T, strict=True), key=lambda drawn: drawn[0].scale):
        heat, beside = None, []
        for column, places in neighbours:
            heat = _draw_column(column, places) or heat
            beside += places.tolist()
        if scale is not None and heat is not None:
            _colour_bar(figure, heat, beside, scale)
    for axis, label in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(label, fontsize=10)
    return _png(figure)


def draw_map(drawn: Map, *, title: str) -> bytes:
    """Draw one map.

    Args:
        drawn: The map.
        title: Above the picture.

    Returns:
        A PNG file.
    """
    figure = _figure(5.2, 4.6, title)
    axis = figure.subplots()
    axis.set(xticks=[], yticks=[])
    axis.set_title(drawn.title, fontsize=10)
    axis.set_xlabel(drawn.caption, fontsize=9)
    _colour_bar(figure, _heat(axis, drawn.values, drawn.scale), [axis], drawn.scale)
    return _png(figure)


def _draw_column(column: Column, axes: Any) -> Any:
    """Draw a column's cells; return one of its heat maps, None where it has none."""
    axes[0].set_title(column.title, fontsize=10)
    heat = None
    for axis, cell in zip(axes, column.cells, strict=True):
        axis.set(xticks=[], yticks=[])
        if cell is None:
            axis.set_frame_on(False)
            continue
        axis.imshow(cell.view.permute(1, 2, 0).numpy(), extent=UNIT)
        axis.set_xlabel(cell.caption, fontsize=9)
        if column.scale is not None and cell.heat is not None:
            heat = _heat(axis, cell.heat, column.scale, alpha=0.65)
    return heat


def _figure(width: float, height: float, title: str) -> "Figure":
    # Here and not above: matplotlib takes half a second, and pyplot, with its global state, is not needed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def _heat(axis: Any, values: Tensor, scale: Scale, alpha: float = 1.0) -> Any:
    side = math.isqrt(len(values))
    return axis.imshow(
        values.reshape(side, side).numpy(),
        extent=UNIT,
        vmin=scale.low,
        vmax=scale.high,
        alpha=alpha,
        cmap=scale.colours,
    )


def _colour_bar(figure: "Figure", heat: Any, axes: list[Any], scale: Scale) -> None:
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[scale.has_lower, scale.has_higher]
    bar = figure.colorbar(heat, ax=axes, extend=extend, shrink=0.8, label=scale.label)
    if scale.ticks is not None:
        bar.set_ticks(list(scale.ticks), labels=list(scale.ticks.values()))


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
