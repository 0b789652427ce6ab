"""What has become of a run: `state.json` of its folder, which also tells a run that was killed."""

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from maskedclip_composer.callbacks.atomic import write_whole

STATE_FILE = "state.json"

State = Literal["running", "finished", "failed", "not finite", "killed", "unknown"]

WORDS: dict[State, str] = {
    "running": "running",
    "finished": "finished",
    "failed": "stopped before its end",
    "not finite": "stopped by a step that was not finite",
    "killed": "killed: its process is gone; the same command continues it",
    "unknown": "not at its end, and nothing tells whether it runs",
}


def write_state(folder: Path, state: State) -> None:
    """Write what this process does with the run. A process that is killed leaves `running` behind."""
    process = psutil.Process()
    content = {
        "state": state,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_began": process.create_time(),
        "time": now(),
    }
    write_whole(folder / STATE_FILE, json.dumps(content, indent=2) + "\n")


def read_state(folder: Path) -> State:
    """Return what has become of a run; `unknown` where it has left no file, or a damaged one.

    A run that says `running` is called killed when its process is gone; whether a process of another machine is cannot
    be seen from here.
    """
    try:
        content = json.loads((folder / STATE_FILE).read_text())
        state = content["state"]
        if state == "running" and content["host"] == socket.gethostname() and not _lives(content):
            return "killed"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
    return state if state in WORDS else "unknown"


def now() -> str:
    """Return the time as people and machines read it."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _lives(content: dict[str, Any]) -> bool:
    try:
        # Numbers of processes are used again: the time tells.
        return abs(psutil.Process(int(content["pid"])).create_time() - content["process_began"]) < 1
    except psutil.Error:
        return False
