"""A line chart as SVG that stands in the page itself.

Drawn here and not by matplotlib, since a chart is drawn while the training waits: it takes a millisecond, not a
hundred, its colours follow the page into the dark, and its numbers are text of the page.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

import numpy as np
from jaxtyping import Float, Real

from maskedclip_composer.dashboard.answer import number

WIDTH, HEIGHT = 380, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 8, 34
_POINTS = 200
"""Points of a line at most: longer series are averaged."""
COLOURS = 6


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series of a chart; where `y` is not finite the line has a gap."""

    name: str
    x: Real[np.ndarray, " records"]
    y: Float[np.ndarray, " records"]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn together.

    Attributes:
        title: Above it.
        unit: Of the vertical axis.
        lines: In the order of their colours.
        marks: Horizontal lines: what stands there, and where.
        note: Below it.
    """

    title: str
    unit: str
    lines: list[Line]
    marks: list[tuple[str, float]] = field(default_factory=list)
    note: str = ""


def draw(chart: Chart) -> str:
    """Return the chart as an `<svg>`; every text in it is escaped."""
    lines = [Line(name=line.name, x=x, y=y) for line in chart.lines for x, y in [_averaged(line.x, line.y)]]
    x_ticks = _ticks(_range([line.x for line in chart.lines]), 4)
    shown = [line.y for line in lines] + [np.array([place]) for _, place in chart.marks]
    y_ticks = _ticks(_range(shown), 4)
    left, right = _extent([line.x for line in chart.lines], pad=False)
    low, high = _extent(shown, pad=True)

    def across(value: float) -> float:
        return _LEFT + (value - left) / (right - left) * (WIDTH - _LEFT - _RIGHT)

    def down(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    label = f"{chart.title}: " + ", ".join(_told(line) for line in chart.lines)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label, {chr(34): "&quot;"})}">']
    floor = HEIGHT - _BOTTOM
    for tick in y_ticks:
        if low <= tick <= high:
            y = down(tick)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{_tick(tick, y_ticks)}</text>')
    for tick in x_ticks:
        if left <= tick <= right:
            x = min(across(tick), WIDTH - _RIGHT - 10)
            parts.append(f'<text x="{x:.1f}" y="{floor + 14}" text-anchor="middle">{_tick(tick, x_ticks)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>')
    parts.append(f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">step</text>')
    middle = (_TOP + floor) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 11 {middle})"'
    parts.append(f'<text x="11" y="{middle}" {turned}>{escape(chart.unit)}</text>')
    for _, place in chart.marks:
        y = down(place)
        parts.append(f'<line class="mark" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for index, line in enumerate(lines):
        parts.append(_path(line, index % COLOURS, across, down))
    for name, place in chart.marks:
        above = f'x="{WIDTH - _RIGHT}" y="{down(place) - 4:.1f}" text-anchor="end"'
        parts.append(f'<text class="mark" {above}>{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def _path(line: Line, colour: int, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    pieces, pen = [], "M"
    for x, y in zip(line.x, line.y, strict=True):
        if not math.isfinite(y):
            pen = "M"
            continue
        pieces.append(f"{pen}{across(x):.1f} {down(y):.1f}")
        pen = "L"
    if len(pieces) == 1:  # a lone point would not be seen
        pieces.append("h0.1")
    return f'<path class="c{colour}" d="{"".join(pieces)}"><title>{escape(line.name)}</title></path>'


def _averaged(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means of as many neighbours as leave `_POINTS`; a block with a value that is not finite is a gap."""
    if len(y) <= _POINTS:
        return x, y
    edges = np.linspace(0, len(y), _POINTS + 1).astype(int)
    sizes = np.diff(edges)
    return np.add.reduceat(x, edges[:-1]) / sizes, np.add.reduceat(y, edges[:-1]) / sizes


def _range(columns: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([np.asarray(column, dtype=float) for column in columns])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-12):
        size = abs(low) / 2 or 0.5
        return low - size, high + size
    return low, high


def _extent(columns: Sequence[np.ndarray], *, pad: bool) -> tuple[float, float]:
    low, high = _range(columns)
    edge = 0.04 * (high - low) if pad else 0.0
    # A zero that is near belongs to the picture.
    return min(low - edge, 0.0 if 0 <= low < 0.15 * (high - low) else low - edge), high + edge


def _ticks(extent: tuple[float, float], about: int) -> list[float]:
    """Return round numbers: multiples of 1, 2 or 5 times a power of ten."""
    low, high = extent
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [index * step for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _tick(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    if abs(value) >= 1e6 or 0 < step < 1e-4:
        return f"{value:.2g}"
    return f"{value:,.{max(0, -math.floor(math.log10(step)))}f}"


def _told(line: Line) -> str:
    values = line.y[np.isfinite(line.y)]
    return f"{line.name} {number(float(values[-1])) if len(values) else 'nothing finite'}"
