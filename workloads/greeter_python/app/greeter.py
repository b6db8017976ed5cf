# ruff: noqa: INP001  # a module of an image, no package here
"""The greeter in Python: says which version and pod answered and what it saw of the request, with the standard library's server.

Environment: PORT (8080), VERSION ("unversioned"), POD_NAME (host name), TARGET (adds "greeting": "Hello <TARGET>!", and the
header x-greeting).

    GET /healthz   200

Every other path, with any method, is a request to the function. Its answers are those of workloads/greeter; it does not misbehave.
It prints one JSON line when it listens and one for each request.
"""

import json
import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# /proc counts a process's age in ticks of USER_HZ, which Linux fixes at 100 for every program.
TICKS_PER_S = 100


def say(line: Mapping[str, object]) -> None:
    """Print one JSON line at once: a container's log is read while it runs."""
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def process_began_ms() -> float:
    """Return when the kernel made this process, in milliseconds since 1970 (to 10 ms): before the interpreter, its imports and this file."""
    with open("/proc/self/stat") as stat:  # noqa: PTH123  # pathlib is an import that nothing else here needs
        ticks = int(stat.read().rpartition(")")[2].split()[19])
    return (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / TICKS_PER_S) * 1000


class Server(ThreadingHTTPServer):
    """A server that starts without asking the resolver for its own name, and takes more than five callers at once."""

    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        """Bind; http.server would look up the host's full name first, which costs a cold start a DNS query for nothing."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class Greeter(BaseHTTPRequestHandler):
    """Answers every method alike."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    version = os.environ.get("VERSION") or "unversioned"
    pod = os.environ.get("POD_NAME") or os.uname().nodename
    target = os.environ.get("TARGET", "")
    counted = 0
    counting = threading.Lock()

    def __getattr__(self, name: str) -> object:
        """Serve any method; http.server looks for one `do_<METHOD>` for each."""
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self) -> None:
        """Answer a request, or a question for the function's health."""
        # As it arrived; http.server's own `path` has leading slashes merged.
        path, _, query = self.requestline.split()[1].partition("?")
        if path == "/healthz":
            self.answer(HTTPStatus.OK, b"ok\n", "text/plain; charset=utf-8", {})
            return
        request_id = self.headers.get("x-request-id", "")
        say({"request_id": request_id, "method": self.command, "path": path, "version": self.version})
        with self.counting:
            Greeter.counted += 1
            count = Greeter.counted
        read = self.read_body()
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        greeting = f"Hello {self.target}!" if self.target else ""
        said = {
            **({"greeting": greeting} if greeting else {}),
            "version": self.version, "pod": self.pod, "path": path, "query": query, "method": self.command, "protocol": self.request_version,
            "host": self.headers.get("host", ""), "headers": headers, "body_bytes": read, "count": count, "request_id": request_id,
        }
        identity = {"x-version": self.version, "x-pod": self.pod, "x-request-id": request_id, **({"x-greeting": greeting} if greeting else {})}
        self.answer(HTTPStatus.OK, json.dumps(said).encode() + b"\n", "application/json", identity)

    def read_body(self) -> int:
        """Read the body to its end, keep none of it, and return its length; one of unknown length (chunked) is not read."""
        left = length = int(self.headers.get("content-length") or 0)
        while left > 0 and (chunk := self.rfile.read(min(left, 1 << 16))):
            left -= len(chunk)
        return length - left

    def answer(self, status: HTTPStatus, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        """Send an answer whole."""
        self.send_response(status)
        for name, value in {"content-type": content_type, "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Leave http.server's own log out: a request has its line already."""


def main() -> None:
    """Serve until SIGTERM."""
    began = process_began_ms()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Server(("", int(os.environ.get("PORT") or 8080)), Greeter) as server:
        say({"runtime": f"python {sys.version.split()[0]}", "process_began_ms": began, "listening_ms": time.time() * 1000})
        server.serve_forever()


if __name__ == "__main__":
    main()
