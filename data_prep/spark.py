"""The parts of a conversion on Spark: each is one task, which runs the function that the local engine runs."""

import importlib.util
import json
import os
import pickle
import re
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from data_prep.ledger import Ledger, Outcome, Part, outcome_from_json, row_from_json
from data_prep.parts import Objection, write_part
from data_prep.pool import prepare_from
from data_prep.remote import locate
from data_prep.writer import Workplace, is_remote
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.data.schema import Kind
from maskedclip_composer.errors import UserError

if TYPE_CHECKING:
    import pandas
    from pyspark.sql import SparkSession

_MAX_JOBS = 256  # threads of the driver, each of which waits for one part


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is done to every part. Arguments as of `convert.convert`."""

    kind: Kind
    root: Path | str
    recipe: Recipe
    objection: Objection | None


def check_options(master: str, out: str, work: Path | None, workers: int | None) -> None:
    """Refuse what does not go together with `--spark`, and a Spark that cannot be there.

    Raises:
        UserError: An option is wrong, pyspark or Java is missing, or no master answers.
    """
    if workers is not None:
        raise UserError("--workers is for this machine alone; with --spark its master decides, such as local[4]")
    if work is None and is_remote(out) and not _is_local(master):
        raise UserError(f"--spark {master}: give --work DIR, a folder that all machines of the cluster share")
    if importlib.util.find_spec("pyspark") is None:
        raise UserError("--spark needs pyspark: pip install 'maskedclip-composer[spark]'")
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise UserError("--spark needs Java 17: install it (Debian: apt-get install openjdk-17-jre-headless)")
    if master.startswith("spark://") and not any(map(_answers, master.removeprefix("spark://").split(","))):
        raise UserError(f"--spark {master}: no master answers there; start it, or correct the address")


def _is_local(master: str) -> bool:
    return master.startswith("local")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError):
        return False
    return True


def convert_parts(
    master: str, workplace: Workplace, ledger: Ledger, todo: list[Part], task: Task
) -> Iterator[tuple[Part, Path, list[Outcome]]]:
    """Convert parts on Spark.

    Every part is a job of one task. `toLocalIterator` over one data frame of all parts would run them one after the
    other, and `collect` would tell of the first only after the last; this way memory holds the parts under way alone.

    Yields:
        In the order in which they end: the part, the folder with its shards, which no other attempt at it touches,
        and what became of its rows.

    Raises:
        UserError: Spark did not start, or gave up on a part.
    """
    aside = workplace.folder.resolve() / "aside"
    if urlparse(str(aside)).path != str(aside):
        raise UserError(f"work folder {workplace.folder}: Streaming joins no folder whose path has ? or #; give --work")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    log = workplace.folder / "spark.log"
    session = _start(master, log)
    context = session.sparkContext
    convert = _part_function(task, context.broadcast(_pickled(task.objection)), aside)

    def run(part: Part, rows: str) -> Any:
        frame = session.createDataFrame([(part.number, rows)], "number int, rows string").coalesce(1)
        return frame.mapInPandas(convert, "number int, folder string, outcomes string").collect()[0]

    waiting = iter(todo)
    running: dict[Future[Any], Part] = {}
    pool = ThreadPoolExecutor(_MAX_JOBS)
    try:
        while True:
            # Twice the cores, of which a cluster may have more by now: the next part is there when one ends.
            free = min(2 * context.defaultParallelism, _MAX_JOBS) - len(running)
            for part in islice(waiting, max(0, free)):
                rows = "\n".join(json.dumps(asdict(row)) for row in ledger.rows(part))
                running[pool.submit(run, part, rows)] = part
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                part = running.pop(future)
                yield part, aside / _result(future, part, log)["folder"], _outcomes(future)
    finally:
        context.cancelAllJobs()
        pool.shutdown(cancel_futures=True)
        session.stop()


def _result(future: Future[Any], part: Part, log: Path) -> Any:
    try:
        return future.result()
    except Exception as error:  # of the Java side, in many shapes
        raise UserError(
            f"Spark gave up on part {part.name}: {_cause(error)}; more is in {log}. Run the same command again: "
            "finished parts are kept"
        ) from error


def _outcomes(future: Future[Any]) -> list[Outcome]:
    return [outcome_from_json(line) for line in future.result()["outcomes"].splitlines()]


def _part_function(task: Task, objection: Any, aside: Path) -> Any:
    """Make the function that runs on the executors: rows of a part in, its shards aside, outcomes out."""

    def convert(frames: "Iterator[pandas.DataFrame]") -> "Iterator[pandas.DataFrame]":
        import cv2
        import pandas

        cv2.setNumThreads(1)  # Spark runs a task per core
        for frame in frames:
            for number, text in zip(frame["number"], frame["rows"], strict=True):
                rows = [row_from_json(line) for line in text.splitlines()]
                # An attempt of its own: another one at the same part, earlier or at the same time, may still write.
                name = f"{number:05}-{uuid.uuid4().hex}"
                photographs = (prepare_from(locate(task.root, row.image), task.recipe) for row in rows)
                found = write_part(aside / name, task.kind, rows, photographs, pickle.loads(objection.value))
                outcomes = "\n".join(json.dumps(asdict(outcome)) for outcome in found)
                yield pandas.DataFrame({"number": [number], "folder": [name], "outcomes": [outcomes]})

    return convert


def _pickled(objection: Objection | None) -> bytes:
    # Spark pickles functions with cloudpickle, but broadcasts with pickle.
    from pyspark import cloudpickle

    return cloudpickle.dumps(objection)


def _start(master: str, log: Path) -> "SparkSession":
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.Builder().master(master).appName("data_prep")
    options = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
    if _is_local(master):
        options |= {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    for name, value in options.items():
        builder = builder.config(name, value)
    try:
        with _stderr_to(log):
            return builder.getOrCreate()
    except Exception as error:  # of the Java side, in many shapes
        raise UserError(
            f"--spark {master}: Spark did not start: {_cause(error)}; more is in {log}. It needs Java 17 or later, "
            "and a master such as local[4] or spark://host:7077"
        ) from error


@contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """Let processes that are started meanwhile, the Java side and its workers, write messages to a file."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _cause(error: Exception) -> str:
    """Find the line that says what happened among the stack traces of two languages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    of_python = [line for line in lines if re.match(r"(?!org\.|py4j\.|java\.)[\w.]*(Error|Exception): ", line)]
    of_java = [line for line in lines if "Exception: " in line]
    found = of_python or of_java or lines or [type(error).__name__]
    return found[-1 if of_python else 0][:300]
