"""A proxy on this machine between a client and its S3 server, which fails as a test says."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

Fault = Callable[[str, str], str | int]
"""What to do about a request of this method and path: "" passes it on, "drop" hangs up, "stall" never answers (for
five seconds), a number is the status to answer."""


@contextmanager
def proxy(server: str, fault: Fault) -> Iterator[str]:
    host = urlparse(server).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            what = fault(self.command, self.path)
            if what in ("drop", "stall"):
                time.sleep(5 if what == "stall" else 0)
                self.close_connection = True
                return
            if what:
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
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

        def log_message(self, *_):
            pass

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front.daemon_threads = True
    thread = threading.Thread(target=front.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{front.server_port}"
    finally:
        front.shutdown()
        thread.join()
        front.server_close()
