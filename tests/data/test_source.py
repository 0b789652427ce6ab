"""What a source does with its connections and with what it has downloaded in part."""

import multiprocessing
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.keys import StreamKeys
from maskedclip_composer.data.source import Source
from tests.s3 import environment

REMOTE = "s3://shards/set"


def source(folder: Path) -> Source:
    stream = StreamConfig(remote=REMOTE, local=str(folder), batch_size=1)
    return Source(StreamKeys.of_training("unpaired"), REMOTE, "", folder, DataConfig(unpaired=stream))


class Asked(list[tuple[str, tuple[str, int]]]):
    """The paths that a server was asked for, and the client's end of the connection of each."""

    def connections(self, name: str) -> set[tuple[str, int]]:
        return {client for path, client in self if path.endswith(name)}


@pytest.fixture
def asked(monkeypatch) -> Iterator[Asked]:
    """A store that holds every object, its name being the content, and keeps connections open."""
    asked = Asked()

    class Store(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            asked.append((self.path, self.client_address))
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.path)))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(self.path.encode())

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    for name, value in environment(f"http://127.0.0.1:{server.server_port}").items():
        monkeypatch.setenv(name, value)
    yield asked
    server.shutdown()
    server.server_close()


def test_forked_loader_processes_have_connections_of_their_own(tmp_path, asked):
    files = source(tmp_path)
    files.download("index.json", tmp_path / "index.json")
    files.download("again", tmp_path / "again")
    assert asked.connections("index.json") & asked.connections("again")  # they are kept

    names = ["first", "second"]
    fork = multiprocessing.get_context("fork")
    for name in names:
        process = fork.Process(target=files.download, args=(name, tmp_path / name))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert (tmp_path / name).read_text() == f"/shards/set/{name}"
    clients = [asked.connections(name) for name in ("again", *names)]
    assert len(set.union(*clients)) == sum(map(len, clients)), "a connection is shared"


class Slow:
    """A downloader that has written a part, as boto3 does, and writes the rest when it is told to."""

    def __init__(self) -> None:
        self.goes_on, self.ended = threading.Event(), threading.Event()

    def download(self, remote: str, local: str, timeout: float) -> None:
        part = Path(f"{local}.4fA1b2C3")
        part.write_bytes(bytes(1000))
        self.goes_on.wait(60)
        part.write_bytes(bytes(2000))
        part.rename(local)
        self.ended.set()


def test_an_abandoned_download_leaves_no_file(tmp_path, monkeypatch):
    files = source(tmp_path / "cache")
    slow, target = Slow(), tmp_path / "shard"
    monkeypatch.setattr(files, "_downloader", slow)
    monkeypatch.setattr(files, "_timeout", 0.2)
    with pytest.raises(TimeoutError):
        files.download("shard", target)
    assert list(tmp_path.iterdir()) == []
    slow.goes_on.set()
    assert slow.ended.wait(60)
    for _ in range(600):
        if not target.exists():
            break
        threading.Event().wait(0.1)
    assert list(tmp_path.iterdir()) == []
