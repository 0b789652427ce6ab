"""All faults of `make drill`, by the part of docs/reliability.md that makes their promise."""

from tests.drill import streams
from tests.drill.fault import Fault

PARTS: dict[str, list[Fault]] = {
    "streams": streams.FAULTS,
}
