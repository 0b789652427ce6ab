"""A hub on this machine: what huggingface_hub sends to it is kept."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Answers as the hub does to the making of repositories and branches, and to uploads.

    `files` are those of the repository, `created` the request that made it, `tokens` what the requests were signed
    with. With `refuses` every request is answered by that status.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.created: dict[str, Any] = {}
        self.branches: list[str] = []
        self.tokens: set[str | None] = set()
        self.paths: list[str] = []
        self.refuses: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({"sha": COMMIT, "id": "clinic/retina", "siblings": []})

    def do_HEAD(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self.server.objects[self.path.rsplit("/", 1)[-1]] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        body, path = self._body(), self.path
        if path.endswith("/repos/create"):
            self.server.created = json.loads(body)
            return self._answer({"url": f"{self.server.url}/clinic/retina", "id": "clinic/retina"})
        if "/branch/" in path:
            self.server.branches.append(path.rsplit("/", 1)[-1])
            return self._answer({})
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            large = (".safetensors", ".onnx")
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(large) else "regular"}
                for file in files
            ]
            return self._answer({"files": [mode | {"shouldIgnore": False, "oid": None} for mode in modes]})
        if path.endswith("/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.server.url}/object/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.objects[value["oid"]]
            return self._answer({"commitUrl": f"{self.server.url}/clinic/retina/commit/{COMMIT}", "commitOid": COMMIT})
        return self._answer({"errors": [], "warnings": []})  # validate-yaml

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, content: dict[str, Any]) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        self.server.paths.append(self.path)
        body = json.dumps(content).encode()
        self.send_response(self.server.refuses or 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def hub() -> Iterator[Hub]:
    """Yield a hub that runs."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
