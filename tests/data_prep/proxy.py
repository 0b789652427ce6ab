"""A proxy on this machine between a client and its S3 server, which fails as a test says."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

Fault = Callable[[str, str], str | int | bytes]
"""What to do about a request of this method and path: "" passes it on, "drop" hangs up, "stall" never answers (for
five seconds), "cut" hangs up in the middle of the body, "trickle" sends ten bytes of it a second, a number is the
status to answer, bytes are what to answer in place of the object."""


class Proxy:
    """Listens on a port of its own until it is stopped; may be started again on the same port."""

    def __init__(self, server: str, fault: Fault) -> None:
        self.front: ThreadingHTTPServer | None = None
        self._handler = _handler(self, urlparse(server).netloc, fault)
        self.port = 0
        self.start()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.front = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self.front.daemon_threads = True
        self.port = self.front.server_port
        threading.Thread(target=self.front.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and hang up on those that are open."""
        front, self.front = self.front, None
        if front is not None:
            front.shutdown()
            front.server_close()


def _handler(proxy: Proxy, host: str, fault: Fault) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            what = fault(self.command, self.path)
            if what in ("drop", "stall") or proxy.front is None:
                time.sleep(5 if what == "stall" else 0)
                self.close_connection = True
                return
            if isinstance(what, bytes):
                status, headers, data = 200, [("Content-Type", "text/html"), ("ETag", '"0"')], what
            elif isinstance(what, int):
                status, headers, data = what, [], b""
            else:
                link = http.client.HTTPConnection(host, timeout=10)
                link.request(self.command, self.path, body, dict(self.headers))
                answer = link.getresponse()
                status, headers, data = answer.status, answer.getheaders(), answer.read()
                link.close()
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = dict(headers).get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command == "HEAD":
                return
            if what == "trickle":
                for at in range(len(data)):
                    self.wfile.write(data[at : at + 1])
                    time.sleep(0.1)
            elif what == "cut":
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
            else:
                self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def proxy(server: str, fault: Fault) -> Iterator[str]:
    running = Proxy(server, fault)
    try:
        yield running.url
    finally:
        running.stop()
