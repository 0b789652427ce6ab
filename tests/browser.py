"""Pages in headless Chromium, and MLflow's pages in a server of their own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")


def look(address: str, folder: Path, *flags: str) -> tuple[str, str]:
    """Open a page, with a profile in `folder`; return what the flags print, and what the browser logs."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    # A frame in a process of its own is not waited for.
    command += ["--no-first-run", f"--user-data-dir={folder / 'profile'}", "--disable-features=IsolateSandboxedIframes"]
    command += ["--window-size=1500,1000", "--virtual-time-budget=30000", *flags, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout, done.stderr


@contextmanager
def mlflow_server(tracking_uri: str, folder: Path) -> Iterator[str]:
    """Serve a store from `folder`; the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", tracking_uri]
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=folder, stdout=silent, stderr=silent, start_new_session=True) as own:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2)
                break
            except OSError:
                assert own.poll() is None
                time.sleep(0.5)
        yield address
        os.killpg(own.pid, signal.SIGTERM)  # the server's workers too, which would live on
