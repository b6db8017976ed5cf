"""The agent beside Locust in a pod: starts it as it is told, says how far it is, and hands out what it wrote; nothing but the standard library.

It listens on CONTROL_PORT (9000) and keeps everything in LOAD_FOLDER:

    POST /run          starts Locust with the arguments and the order of the body ({"arguments": [...], "order": {...}}); 409 while one runs
    POST /end          lets the calls under way end, and Locust with them
    GET  /state        {"running", "code", "calls", "failed", "begun"}: whether it runs, its exit code, calls recorded, when the load began
    GET  /file/NAME    a file of the folder from ?offset=N on, a bounded piece of it
    GET  /healthz      200 once it listens
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
# What comes home in one answer through the API server.
PIECE_BYTES = 4 << 20
SERVER_ERROR = 500


class Locust:
    """At most one Locust at a time, in a folder of its own that the next one empties."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0
        self._calls = 0
        self._failed = 0

    def run(self, arguments: list[str], order: dict[str, Any]) -> bool:
        """Start Locust; tell whether it was free."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return False
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._read = self._calls = self._failed = 0
            told = {**os.environ, "FAASMESH_LOAD": json.dumps({**order, "folder": str(self.folder)})}
            with (self.folder / "locust.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), *arguments],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=told, cwd=self.folder,
                )
            return True

    def end(self) -> None:
        """Let the calls under way end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)

    def state(self) -> dict[str, Any]:
        """Return how far it is."""
        with self._lock:
            code = self._process.poll() if self._process is not None else None
            self._count()
            begun = self.folder / "begun"
            text = begun.read_text() if begun.exists() else ""
            return {"running": self._process is not None and code is None, "code": code, "calls": self._calls, "failed": self._failed, "begun": float(text) if text else None}

    def _count(self) -> None:
        file = self.folder / "calls.jsonl"
        if not file.exists():
            return
        with file.open("rb") as stream:
            stream.seek(self._read)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        statuses = [int(json.loads(line)["status"]) for line in whole.splitlines()]
        self._calls += len(statuses)
        self._failed += sum(status == 0 or status >= SERVER_ERROR for status in statuses)


class Control(BaseHTTPRequestHandler):
    """Answers the testbed."""

    protocol_version = "HTTP/1.1"
    locust: Locust

    def do_GET(self) -> None:
        """Say how far it is, or hand out a piece of a file."""
        asked = urlsplit(self.path)
        file = self.locust.folder / asked.path.removeprefix("/file/")
        if asked.path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n")
        elif asked.path == "/state":
            self._answer(HTTPStatus.OK, json.dumps(self.locust.state()).encode())
        elif asked.path.startswith("/file/") and file.parent == self.locust.folder and file.is_file():
            with file.open("rb") as stream:
                stream.seek(int(parse_qs(asked.query).get("offset", ["0"])[0]))
                self._answer(HTTPStatus.OK, stream.read(PIECE_BYTES))
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there is no such thing\n")

    def do_POST(self) -> None:
        """Start or end Locust."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/run":
            told = json.loads(body)
            free = self.locust.run(told["arguments"], told["order"])
            self._answer(HTTPStatus.OK if free else HTTPStatus.CONFLICT, b"{}")
        elif self.path == "/end":
            self.locust.end()
            self._answer(HTTPStatus.OK, b"{}")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there is no such thing\n")

    def log_message(self, *_: object) -> None:
        """Keep quiet: the log of a pod is for what goes wrong."""

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until the pod ends."""
    Control.locust = Locust(Path(os.environ["LOAD_FOLDER"]))
    server = ThreadingHTTPServer(("", int(os.environ.get("CONTROL_PORT", "9000"))), Control)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    Control.locust.end()


if __name__ == "__main__":
    main()
