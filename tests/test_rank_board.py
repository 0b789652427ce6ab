"""Another rank has failed and this one does not notice: it is ended from a thread, and ends what it has begun."""

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from maskedclip_composer import rank_board, rank_failure
from maskedclip_composer.rank_board import Board, Failure

FAILURE = Failure(rank=1, node=0, host="there", status=2, text="eye7.jpg cannot be read.")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """The store of two ranks, of which this process is the first."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "RANK": 0, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(rank_board, "INTERVAL", 0.01)
    monkeypatch.setattr(rank_board, "GRACE", 0.01)
    return store


def end_from_the_thread(
    monkeypatch: pytest.MonkeyPatch, store: TCPStore, registered: Callable[[], None], events: list
) -> threading.Thread:
    """Let the other rank fail, wait until this process would have ended, and return the thread that ended it."""
    ended = threading.Event()

    def leave(status: int) -> None:
        events.append(status)
        ended.set()

    at_exit = SimpleNamespace(register=lambda function: None, _run_exitfuncs=registered)
    monkeypatch.setattr(rank_board, "atexit", at_exit)
    monkeypatch.setattr(rank_board, "os", SimpleNamespace(environ=os.environ, _exit=leave))
    board = Board(lambda failure: events.append(failure.text) or failure.status)
    store.set(rank_board._FAILURE, json.dumps(asdict(FAILURE)))
    assert ended.wait(60)
    assert board.is_ending.is_set()
    return board._thread


def test_what_is_registered_for_the_end_runs_after_the_message(monkeypatch: pytest.MonkeyPatch, store: TCPStore):
    events: list = []
    thread = end_from_the_thread(monkeypatch, store, lambda: events.append("tracker closed"), events)
    thread.join(60)
    assert events == [FAILURE.text, "tracker closed", FAILURE.status]


def test_what_hangs_at_the_end_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch, store: TCPStore):
    monkeypatch.setattr(rank_board, "CLOSING", 0.05)
    events: list = []
    hangs = threading.Event()

    def wait() -> None:
        hangs.wait(60)

    thread = end_from_the_thread(monkeypatch, store, wait, events)
    assert events == [FAILURE.text, FAILURE.status]
    hangs.set()
    thread.join(60)  # before the real os._exit is back
    assert not thread.is_alive()


def test_messages_name_the_program_that_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    ends: list[Callable[[Failure], int]] = []
    monkeypatch.setattr(rank_failure, "Board", ends.append)
    monkeypatch.setattr(rank_failure, "_board", None)
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)
    monkeypatch.setattr(sys, "argv", ["/somewhere/mine.py", "x"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    rank_failure.share_failures()
    assert ends[0](FAILURE) == FAILURE.status
    assert capsys.readouterr().err == "\nmine.py: rank 1 has failed; see below for its message.\n"
