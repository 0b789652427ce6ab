"""Some faults of the streams, of each kind the quick ones; `make drill` rehearses all."""

import pytest

from tests.drill.fault import Fault, rehearse
from tests.drill.streams import FAULTS

QUICK = (
    "a byte of a shard is flipped in the store",
    "a shard would be written outside the cache (../..)",
    "a byte is flipped in the cache between two runs",
    "two runs on one cache",
    "stale shared memory of a killed run",
)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in QUICK], ids=lambda fault: fault.name)
def test_the_promise_is_kept(fault: Fault, tmp_path):
    pytest.importorskip("moto.server", reason="moto[server] is not installed", exc_type=ImportError)
    seen, _ = rehearse(fault, tmp_path)
    assert seen.kept, seen.what
    assert seen.lost == 0


def test_every_name_is_of_a_fault_and_every_fault_has_a_name_of_its_own():
    names = [fault.name for fault in FAULTS]
    assert set(QUICK) <= set(names)
    assert len(set(names)) == len(names)
