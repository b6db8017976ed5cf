"""Watching: changes arrive in order with their moment, a watch goes on where the server ended it, and one that is lost says so."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from clusters.apiserver import ApiServer, Unreachable
from clusters.waiting import eventually
from clusters.watching import Watch

# Each answer of the server: what it sends, and whether it then goes on in silence.
Script = list[tuple[Sequence[Any], bool]]


class Server(ThreadingHTTPServer):
    """Sends one script after another to whoever watches."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[dict[str, list[str]]] = []
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    """Speaks as much of a watch as the case needs."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(parse_qs(urlsplit(self.path).query))
        told, silent = self.server.script.pop(0) if self.server.script else ((), True)
        self.send_response(200 if told != "refused" else 403)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in told:
            text = json.dumps(line).encode() + b"\n"
            # A line may come in two pieces, and two lines in one.
            for piece in (text[:7], text[7:]):
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
        if silent:
            self.server.over.wait(10)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with the case's script."""
    server = Server(request.param)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def watch_of(server: Server, tmp_path: Path) -> Watch:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }))  # fmt: skip
    return Watch(ApiServer.open(kubeconfig), "/api/v1/namespaces/ns/pods", "7")


def told(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"name": name, "resourceVersion": str(version)}}}


FIRST = [told("ADDED", "a", 8), told("MODIFIED", "a", 9)]
SECOND = [told("BOOKMARK", "", 12), told("DELETED", "a", 13)]


@pytest.mark.parametrize("server", [[(FIRST, False), (SECOND, True)]], indirect=True)
def test_changes_arrive_in_order_with_their_moment_also_when_the_server_begins_anew(server: Server, tmp_path: Path) -> None:
    began = time.time()

    def heard() -> list[Any]:
        changes = watch.changes()
        assert len(changes) == 3
        return changes

    with watch_of(server, tmp_path) as watch:
        changes = eventually(heard, within=5, every=0.02)

    assert [(change.kind, change.name) for change in changes] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert began <= changes[0].at <= changes[1].at <= changes[2].at <= time.time()
    assert [asked["resourceVersion"] for asked in server.asked] == [["7"], ["9"]]


@pytest.mark.parametrize("server", [[([], True)]], indirect=True)
def test_a_silent_watch_is_closed_at_once(server: Server, tmp_path: Path) -> None:
    with watch_of(server, tmp_path) as watch:
        eventually(lambda: server.asked[0], within=5, every=0.02, ignoring=(IndexError,))
        began = time.monotonic()

    assert time.monotonic() - began < 2
    assert watch.changes() == []


@pytest.mark.parametrize(
    "server",
    [[("refused", False)], [([{"type": "ERROR", "object": {"message": "too old resource version"}}], False)]], indirect=True, ids=["refused", "gone"],
)
def test_a_watch_that_is_lost_says_so(server: Server, tmp_path: Path) -> None:
    def failed() -> Unreachable:
        with pytest.raises(Unreachable) as raised:
            watch.changes()
        return raised.value

    with watch_of(server, tmp_path) as watch:
        lost = eventually(failed, within=5, every=0.02, ignoring=(pytest.fail.Exception,))

    assert "watch of /api/v1/namespaces/ns/pods" in str(lost)
    del server
