"""Runs on several ranks of which one fails: the run ends at once and says why, and the same command goes on."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
from streaming import MDSWriter

from maskedclip_composer.data.schema import COLUMNS
from tests.data.conftest import record
from tests.drill.compare import difference_in_samples
from tests.drill.fault import Fault, Seen
from tests.drill.runs import DEBUG, SETTINGS, Runs, free_port
from tests.small_run import debug_overrides

# Each node has its shared memory for itself.
NODE = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "-"]
CAN_BE_NODE = subprocess.run([*NODE, "true"], capture_output=True, check=False).returncode == 0
DIST_TIMEOUT = 15  # seconds, of the fault that needs it


def ended(
    folder: Path,
    *,
    fault: str,
    overrides: Sequence[str] = (),
    rank: int = 1,
    nodes: int = 1,
    status: Sequence[int],
    says: str,
    within: float,
) -> Seen:
    """Start two ranks by Composer's launcher, see how they end, and continue.

    Args:
        folder: Of this fault alone.
        fault: One of `launched.FAULTS`, or none.
        overrides: Of the run that fails; the others do without them.
        rank: Which rank fails.
        nodes: 2 gives each rank a launcher.
        status: What the launcher of the first rank may exit with.
        says: A pattern that its terminal must show.
        within: Seconds that it may take from the fault, where it comes at a step, to the end of the last process.
    """
    runs = Runs(folder)
    whole = runs.train("whole", ranks=2)
    (folder / "broken").mkdir()
    base = debug_overrides(runs.shards, runs.text_tower, folder / "broken")
    arguments = [str(folder / "broken"), fault, str(rank), DEBUG, *base, *SETTINGS, "data.num_workers=1", *overrides]
    launchers = [_launch(folder, node, nodes, arguments, port) for port in [free_port()] for node in range(nodes)]
    for launcher in launchers:
        launcher.wait()
    left = _left_running(patience=10.0)
    file = folder / "broken" / "fault"
    seconds = time.time() - float(file.read_text()) if file.exists() else None
    printed = (folder / "node0.log").read_text()
    found = re.search(says, printed)
    end = runs.train("broken", "data.num_workers=1", ranks=2)
    if any(whole) or any(end):
        log = runs.log("whole" if any(whole) else "broken")
        return Seen(what=f"exit {whole} without the fault, {end} when continued: {log[-1500:]}", kept=False)
    lost, extra = difference_in_samples(runs.steps("whole"), runs.steps("broken"))
    kept = (
        launchers[0].returncode in status
        and found is not None
        and (seconds or 0) <= within
        and not (left or lost or extra)
    )
    said = f"“{found[0]}”" if found else f"nothing of {says!r} in {printed[-1500:]}"
    after = "" if seconds is None else f" after {seconds:.0f} s"
    what = f"exit {launchers[0].returncode}{after}; {said}"
    what += f"; left running: {left}" if left else ""
    return Seen(what=f"{what}; {extra} samples too many" if extra else what, lost=lost, kept=kept)


def bad_photograph(folder: Path) -> Seen:
    """Let one photograph of the unpaired stream be none: the rank that it falls to fails."""
    bad = folder / "bad"
    with MDSWriter(out=str(bad), columns=COLUMNS["unpaired"], hashes=["xxh64"], size_limit=20_000) as writer:
        for number in range(33):
            good = record("unpaired", number)
            # As long as it was: the order of samples follows from the sizes of shards.
            writer.write(good | ({"image": bytes(len(good["image"]))} if number == 20 else {}))
    return ended(
        folder,
        fault="none",
        overrides=[f"data.unpaired.remote={bad}"],
        status=[2],
        says=r"data\.unpaired sample \d+ \(TOY: unpaired/20\.jpg\)[^\n]*",
        within=60.0,
    )


def _launch(folder: Path, node: int, nodes: int, arguments: list[str], port: int) -> subprocess.Popen[bytes]:
    place = ["-n", "2"]
    if nodes > 1:
        place = f"-n 1 --world_size {nodes} --node_rank {node} --master_addr 127.0.0.1 --master_port {port}".split()
    command = [sys.executable, "-m", "composer.cli", *place, "-m", "tests.drill.launched", *arguments]
    temporary = folder / f"tmp{node}"
    temporary.mkdir()
    with (folder / f"node{node}.log").open("wb") as log:
        return subprocess.Popen(
            [*NODE, *command] if nodes > 1 else command,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _left_running(patience: float) -> list[str]:
    """Return what still runs of the session after `patience` seconds; ranks' loader processes take 5 s to notice."""
    deadline = time.monotonic() + patience
    while True:
        own = [p for p in psutil.process_iter(["pid", "cmdline", "status"]) if _is_of_the_run(p)]
        if not own or time.monotonic() > deadline:
            return [" ".join(p.info["cmdline"])[-80:] for p in own]
        time.sleep(0.2)


def _is_of_the_run(process: psutil.Process) -> bool:
    try:
        same = os.getsid(process.pid) == os.getsid(0)
    except (ProcessLookupError, PermissionError):
        return False
    words = process.info["cmdline"] or []
    return same and process.info["status"] != psutil.STATUS_ZOMBIE and "tests.drill.launched" in words


FAULTS = [
    Fault(
        name="a rank of two is killed",
        expected="all end within 30 s, the terminal names the rank; the same command loses no sample",
        within=400.0,
        run=partial(
            ended, fault="die", status=[1, 241, 143], says=r"Rank 1 on \S+ does not answer|Rank 1 crashed", within=30.0
        ),
    ),
    Fault(
        name="the first rank of two is killed",
        expected="all end within 30 s, the terminal says which rank was killed; the same command loses no sample",
        within=400.0,
        run=partial(ended, fault="die", rank=0, status=[256 - signal.SIGKILL], says="Rank 0 crashed", within=30.0),
    ),
    Fault(
        name="a rank of two raises",
        expected="all end within 30 s with its traceback and exit status 1; the same command loses no sample",
        within=400.0,
        run=partial(ended, fault="raise_error", status=[1], says="RuntimeError: a rehearsed error", within=30.0),
    ),
    Fault(
        name="one rank's data are bad",
        expected="all end with one message that names the photograph, exit status 2; repaired, no sample is lost",
        within=400.0,
        run=bad_photograph,
    ),
    Fault(
        name="a rank of two hangs",
        expected=f"all end within trainer.dist_timeout ({DIST_TIMEOUT} s here) and 45 s, the terminal names the rank",
        within=500.0,
        run=partial(
            ended,
            fault="stop",
            overrides=[f"trainer.dist_timeout={DIST_TIMEOUT}"],
            status=[1],
            says=r"Rank 1 on \S+ does not answer",
            within=DIST_TIMEOUT + 45.0,
        ),
    ),
]
if CAN_BE_NODE:
    FAULTS.append(
        Fault(
            name="one machine of two is gone",
            expected="the other ends within 40 s, its terminal names the rank; the same command loses no sample",
            within=400.0,
            run=partial(
                ended,
                fault="die_with_launcher",
                nodes=2,
                status=[1],
                says=r"Rank 1 on \S+ does not answer",
                within=40.0,
            ),
        )
    )
