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


def write_state(folder: Path, state: State) -> int:
    """Write what this process does with the run, and return how often the run was killed and continued.

    A process that is killed leaves `running` behind, which the next one counts.
    """
    process = psutil.Process()
    kills = count_kills(folder) + int(state == "running" and _left(folder).get("state") == "running")
    content = {
        "state": state,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_began": process.create_time(),
        "kills": kills,
        "time": now(),
    }
    write_whole(folder / STATE_FILE, json.dumps(content, indent=2) + "\n")
    return kills


def count_kills(folder: Path) -> int:
    """Return how often a run was killed and continued, as far as its folder knows."""
    try:
        return int(_left(folder).get("kills", 0))
    except (TypeError, ValueError):
        return 0


def read_state(folder: Path) -> State:
    """Return what has become of a run; `unknown` where it has left no file, or a damaged one.

    A run that says `running` is called killed when its process is gone; whether a process of another machine is cannot
    be seen from here.
    """
    content = _left(folder)
    state = content.get("state")
    if state == "running" and content.get("host") == socket.gethostname() and not _lives(content):
        return "killed"
    return state if state in WORDS else "unknown"


def now() -> str:
    """Return the time as people and machines read it."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _left(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / STATE_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _lives(content: dict[str, Any]) -> bool:
    try:
        # Numbers of processes are used again: the time tells.
        return abs(psutil.Process(int(content["pid"])).create_time() - content["process_began"]) < 1
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
