"""The drill of kills by the clock: where they all come too late nothing was rehearsed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.drill import kills
from tests.drill.fault import Seen


@pytest.mark.parametrize(("hits", "kept"), [(0, False), (2, False), (3, True), (6, True)])
def test_half_of_the_kills_have_to_hit(hits: int, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    process = SimpleNamespace(is_alive=lambda: False, kill=lambda: None)
    runs = SimpleNamespace(train=lambda *_, **__: [0], start=lambda *_, **__: [process], steps=lambda name: [])
    statuses = iter([[kills.KILLED]] * hits + [[0]] * (6 - hits))
    monkeypatch.setattr(kills, "Runs", lambda folder: runs)
    monkeypatch.setattr(kills, "finish", lambda processes: next(statuses))
    monkeypatch.setattr(kills, "same", lambda *_, also: Seen(what=also, kept=True))
    seen = kills.by_the_clock(tmp_path, times=6)
    assert seen == Seen(what=f"{hits} of 6 kills hit", kept=kept)
