"""An S3 server, and a proxy before it that fails by rules, in a process of their own.

Of their own, because loader processes are forked: this process has no threads.
"""

import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.data_prep.proxy import Proxy
from tests.s3 import BUCKET, environment, s3_server


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What happens to requests.

    Attributes:
        at: A part of the path of the requests that it is about.
        what: As of `proxy.Fault`, or "die": from now on connections are refused.
        skip: How many requests pass before.
        times: How many it is about, then; None for all.
        seconds: Of "die": after which the server is there again; None for never.
    """

    at: str
    what: str | int | bytes
    skip: int = 0
    times: int | None = None
    seconds: float | None = None


class FaultyS3:
    """Holds the files of a folder below s3://shards/set; the environment points to it."""

    def __init__(self, commands: Connection, server: str) -> None:
        import boto3

        self._commands = commands
        self.client: Any = boto3.client("s3", endpoint_url=server)
        self.client.create_bucket(Bucket=BUCKET)

    def fill(self, folder: Path) -> None:
        """Upload a folder's files, past the proxy."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(path.relative_to(folder).as_posix(), path.read_bytes())

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"set/{name}", Body=content)

    def get(self, name: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=f"set/{name}")["Body"].read()

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=f"set/{name}")

    def obey(self, *rules: Rule) -> None:
        """Fail by these rules from now on; without any, work."""
        self._commands.send(rules)
        self._commands.recv()


@contextmanager
def faulty_s3() -> Iterator[FaultyS3]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    os.environ.update(environment(""))
    process.start()
    server, url = ours.recv()
    os.environ.update(environment(url))
    try:
        yield FaultyS3(ours, server)
    finally:
        process.kill()
        process.join()


def _serve(commands: Connection) -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # or every request is printed
    rules: list[tuple[Rule, list[int]]] = []
    lock = threading.Lock()

    def fault(method: str, path: str) -> str | int | bytes:
        with lock:
            for rule, seen in rules:
                if rule.at in path:
                    seen[0] += 1
                    if rule.skip < seen[0] and (rule.times is None or seen[0] <= rule.skip + rule.times):
                        if rule.what == "die":
                            threading.Thread(target=proxy.stop).start()
                            if rule.seconds is not None:
                                threading.Timer(rule.seconds, lambda: proxy.front or proxy.start()).start()
                            return "drop"
                        return rule.what
        return ""

    with s3_server() as server:
        proxy = Proxy(server, fault)
        commands.send((server, proxy.url))
        while True:
            new = commands.recv()
            with lock:
                rules[:] = [(rule, [0]) for rule in new]
            if proxy.front is None:
                proxy.start()
            commands.send(None)
