"""Self-tests of the load generator: a real Locust, in its own process, against a server on loopback."""

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clusters.waiting import NeverReached
from workloads.load import LoadProfile, Persona
from workloads.load.generator import LoadBroken, load

PROFILE = LoadProfile(users=3, calls_per_s=20, longest_s=30)


class Function(BaseHTTPRequestHandler):
    """Answers as a sample function does; /fail answers 503, /close nothing."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/close":
            self.close_connection = True
            return
        body = json.dumps({"headers": {name.lower(): [value] for name, value in self.headers.items()}}).encode()
        self.send_response(503 if self.path == "/fail" else 200)
        self.send_header("x-version", "v1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Function) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_call_of_a_load_is_a_record_with_its_persona_and_its_fate(url, tmp_path):
    """One Locust for all of it: it takes a second to start."""
    with load(url, "function.example", "/", folder=tmp_path / "answered", personas=[Persona("b", {"cookie": "group=b"}), Persona("a")], profile=PROFILE, keep_seen=["host", "cookie"]) as running:
        began = running.elapsed_ms()
        running.await_calls(30)

    drawn = running.draw()

    assert drawn.count == len(drawn.records) > 30
    assert {record.status for record in drawn.records} == {200}
    assert {record.version for record in drawn.records} == {"v1"}
    assert {(*record.seen["x-persona"], *record.seen.get("cookie", [])) for record in drawn.records} == {("a",), ("b", "group=b")}
    assert all(record.seen["host"] == ["function.example"] for record in drawn.records)
    assert 0 < drawn.records[0].started_ms < began
    assert [record.started_ms for record in drawn.records] == sorted(record.started_ms for record in drawn.records)


@pytest.mark.parametrize(("path", "status"), [("/fail", 503), ("/close", 0)])
def test_a_call_that_fails_is_seen_to_fail(url, tmp_path, path, status):
    with load(url, "function.example", path, folder=tmp_path, profile=PROFILE) as running:
        running.await_calls(5)

    drawn = running.draw()

    assert {record.status for record in drawn.records} == {status}
    assert all(bool(record.error) == (status == 0) for record in drawn.records)


def test_a_load_whose_generator_was_killed_is_no_evidence(url, tmp_path):
    with load(url, "function.example", "/", folder=tmp_path, profile=PROFILE) as running:
        running.process.kill()
        with pytest.raises(NeverReached, match="Locust ended"):
            running.await_calls(10_000)

    with pytest.raises(LoadBroken, match="counted None calls"):
        running.draw()


def test_load_ends_with_the_process_that_ordered_it(url, tmp_path):
    """A killed run must not go on calling."""
    script = (
        "import pathlib, sys; from workloads.load import LoadProfile; from workloads.load.generator import load\n"
        "with load(sys.argv[1], 'x', '/', folder=pathlib.Path(sys.argv[2]), profile=LoadProfile(1, 5, 60)) as running:\n"
        "    print(running.process.pid, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, url, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        locust = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()

    for _ in range(100):
        try:
            os.kill(locust, 0)
        except ProcessLookupError:
            break
        threading.Event().wait(0.1)
    else:
        os.kill(locust, signal.SIGKILL)
        pytest.fail("Locust outlived the run that started it")


@pytest.mark.parametrize("wrong", [{"users": 0}, {"calls_per_s": 0}, {"longest_s": -1}, {"timeout_s": 0}])
def test_a_load_that_never_begins_or_never_ends_is_refused(wrong):
    with pytest.raises(ValueError, match="above 0"):
        LoadProfile(**{"users": 1, "calls_per_s": 1.0, "longest_s": 1.0, **wrong})
