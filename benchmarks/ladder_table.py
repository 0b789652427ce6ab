"""What the GPU ladder says: its table with quotients of every peer, and the goals beside what was reached."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

DATASHEET = 989e12  # H100 and H200, dense bfloat16 (NVIDIA's data sheet)
USEFUL = (
    "Useful FLOPs are the same for every rung: distinct texts, nothing computed twice, and decoders over every patch, "
    "so that predicting removed patches alone counts as speed."
)
REFERENCES = {"tf32": "TF32", "p0": "P0", "p1": "P1", "p1c": "P1 compiled"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one rung measured; times in milliseconds, memory in GiB, `error` in place of numbers where it failed."""

    key: str
    title: str
    median: float = 0.0
    least: float = 0.0
    largest: float = 0.0
    images: float = 0.0  # a second
    flops: float = 0.0  # useful ones a second
    peak: float = 0.0
    warmup: float = 0.0  # seconds, compilation included
    losses: dict[str, float] | None = None
    difference: float = 0.0  # of the losses from the first rung's
    max_pairs: int | None = None
    error: str | None = None

    @property
    def measured(self) -> bool:
        """Whether there is a time."""
        return self.median > 0


def table(rows: Sequence[Row], matmul: float) -> list[str]:
    """Return the lines of a Markdown table; `matmul` is the measured rate of a large product, in FLOP/s."""
    times = {row.key: row.median for row in rows if row.measured}
    known = [key for key in REFERENCES if key in times]
    header = ["rung", "ms (least-largest)", "images/s", "MFU of measured (of 989)", "peak GiB", "warm-up s"]
    header += [*(f"x {REFERENCES[key]}" for key in known), "losses differ by"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        if row.max_pairs is not None:
            lines.append([row.title, f"largest batch {row.max_pairs} + {row.max_pairs}", *[""] * (len(header) - 2)])
        elif not row.measured:
            lines.append([row.title, row.error or "", *[""] * (len(header) - 2)])
        else:
            use = f"{row.flops / matmul:.1%} ({row.flops / DATASHEET:.1%})" if matmul else ""
            cells = [row.title, f"{row.median:.1f} ({row.least:.1f}-{row.largest:.1f})", f"{row.images:.0f}", use]
            cells += [f"{row.peak:.1f}", f"{row.warmup:.0f}"]
            cells += [f"{times[key] / row.median:.2f}" for key in known]
            lines.append([*cells, f"{row.difference:.1e}{f' ({row.error})' if row.error else ''}"])
    return ["| " + " | ".join(line) + " |" for line in lines]


def goals(rows: Sequence[Row], pairs: int) -> list[str]:
    """Return the goals that belong to this batch, each with what the best exact rung reached.

    A rung whose losses differ from the first one's computes something else: it reaches nothing, and nothing is compared
    with it.
    """
    found = {row.key: row for row in rows if row.measured and row.error is None}
    wrong = [row.title for row in rows if row.measured and row.error is not None]
    exact = [row for key, row in found.items() if key not in REFERENCES and not key.startswith(("p0", "fp8"))]
    best = min(exact, key=lambda row: row.median, default=None)
    if best is None:
        return ["Goals: no exact rung of ours was measured with the losses of the first."]
    lines = [f"Best exact rung: {best.title}."]
    if wrong:
        lines.append(f"Not counted, because their losses differ: {'; '.join(wrong)}.")

    def judge(goal: str, value: float | None, limit: float, at_most: bool = False) -> None:
        reached = value is not None and (value <= limit if at_most else value >= limit)
        verdict = "not measured" if value is None else f"{value:.2f} {'reached' if reached else 'MISSED'}"
        lines.append(f"- {goal}: {verdict}")

    quotients = {key: found[key].median / best.median if key in found else None for key in REFERENCES}
    if pairs == 180:
        for name, limit in (("floor", 800), ("goal", 875), ("moonshot", 940)):
            judge(f"{name}, {limit} images/s", best.images, limit)
        judge("1.25x of P1", quotients["p1"], 1.25)
        judge("1.6x of P0", quotients["p0"], 1.6)
        judge("2.5x of TF32", quotients["tf32"], 2.5)
        judge("peak <= 55 GiB", best.peak, 55, at_most=True)
        for key, limit in (("fp8-teacher", 1000), ("fp8-linears", 1200)):
            judge(f"{key}, {limit} images/s (not exact)", found[key].images if key in found else None, limit)
    elif pairs <= 12:
        judge("1.4x of P1", quotients["p1"], 1.4)
    return lines


def plain(rows: Sequence[Row]) -> list[dict]:
    """Return the rows for JSON."""
    return [asdict(row) for row in rows]
