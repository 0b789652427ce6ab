"""All faults of `make drill`, by the part of docs/reliability.md that makes their promise."""

from tests.drill import continued, images, kills, numbers, ranks, streams
from tests.drill.fault import Fault

PARTS: dict[str, list[Fault]] = {
    "resume": [*kills.FAULTS, *continued.FAULTS],
    "streams": streams.FAULTS,
    "ranks": ranks.FAULTS,
    "numbers": numbers.FAULTS,
    "images": images.FAULTS,
}
