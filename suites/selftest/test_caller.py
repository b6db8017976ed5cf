"""The caller: its client asks for exact draws, and the programs themselves, built and run here, make them."""

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from clusters.paths import cache_root
from clusters.waiting import eventually
from workloads.caller.client import Caller, DrawIncomplete
from workloads.caller.tls import ClientTls
from workloads.greeter.client import Greeter

WORKLOADS = Path(__file__).parents[2] / "workloads"


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes


@dataclass
class RecordedKube:
    """Answers every request with one answer, and keeps what was asked."""

    answer: Answer
    asked: list[dict[str, Any]] = field(default_factory=list)

    def request(
        self, pod: str, namespace: str, port: int, method: str, path: str,
        body: bytes | None = None, headers: Mapping[str, str] | None = None, timeout: float = 0,
    ) -> Answer:  # fmt: skip
        """Note the request."""
        del headers
        self.asked.append({"to": f"{namespace}/{pod}:{port}{path}", "method": method, "body": body, "timeout": timeout})
        return self.answer


def answered(*indexes: int, count: int) -> Answer:
    records = [{"index": i, "status": 200, "error": "", "latency_ms": 1, "started_ms": 0} for i in indexes]
    draw = {"url": "u", "method": "GET", "count": count, "concurrency": 1, "began": "", "seconds": 1, "records": records}
    return Answer(200, json.dumps(draw).encode())


def test_an_order_says_what_was_asked_in_the_order_it_was_asked() -> None:
    kube = RecordedKube(answered(0, 1, count=2))

    Caller(kube, "ns", "pod").draw("http://f/", count=2, headers=[("B", "1"), ("a", ""), ("B", "2")], body=b"\0x", timeout_s=0.5, rate_per_s=4)

    (asked,) = kube.asked
    order = json.loads(asked["body"])
    assert (asked["method"], asked["to"]) == ("POST", "ns/pod:9000/draw")
    assert order["headers"] == [["B", "1"], ["a", ""], ["B", "2"]]
    assert base64.b64decode(order["body_base64"]) == b"\0x"
    assert (order["timeout_ms"], order["count"], order["rate_per_s"]) == (500, 2, 4)


def test_an_order_says_how_to_speak_tls_and_a_key_is_never_shown() -> None:
    kube = RecordedKube(answered(0, count=1))
    tls = ClientTls("CERT", "SECRET", ca_pem="ROOT", server_name="a.example")

    Caller(kube, "ns", "pod").draw("https://f/", tls=tls)
    Caller(kube, "ns", "pod").draw("http://f/")

    with_tls, without = (json.loads(asked["body"])["tls"] for asked in kube.asked)
    assert with_tls == {"certificate_pem": "CERT", "key_pem": "SECRET", "ca_pem": "ROOT", "server_name": "a.example", "alpn": ["istio"]}
    assert without is None
    assert "SECRET" not in repr(tls)


def test_no_two_orders_have_one_id() -> None:
    kube = RecordedKube(answered(0, count=1))
    caller = Caller(kube, "ns", "pod")

    caller.draw("http://f/")
    caller.draw("http://f/")

    assert len({json.loads(asked["body"])["id"] for asked in kube.asked}) == 2


def test_a_draw_is_waited_for_as_long_as_it_may_take() -> None:
    kube = RecordedKube(answered(*range(10), count=10))

    Caller(kube, "ns", "pod").draw("http://f/", count=10, concurrency=4, timeout_s=7, rate_per_s=2)

    assert kube.asked[0]["timeout"] >= 3 * 7 + 5


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (answered(0, count=2), "expected one record for each of 2 calls, seen 1"),
        (answered(0, 1, 2, count=2), "seen 3"),
        (answered(0, 0, count=2), "expected one record for each"),
        (Answer(400, b'{"error": "count is 0"}'), "the caller answered 400: count is 0"),
        (Answer(409, b'{"error": "was already ordered"}'), "409: was already ordered"),
        (Answer(502, b"<html>"), "502: <html>"),
        (Answer(200, b'{"url": "u", "rec'), "is not a draw"),
        (Answer(200, b"{}"), "lacks began"),
    ],
)
def test_a_draw_not_made_as_ordered_is_no_draw(answer: Answer, said: str) -> None:
    with pytest.raises(DrawIncomplete, match=said):
        Caller(RecordedKube(answer), "ns", "pod").draw("http://f/", count=2)


@dataclass(frozen=True)
class Loopback:
    """Sends what is meant for a pod's port to a port of this machine."""

    ports: dict[int, int]

    def request(
        self, pod: str, namespace: str, port: int, method: str, path: str,
        body: bytes | None = None, headers: Mapping[str, str] | None = None, timeout: float = 10,
    ) -> Answer:  # fmt: skip
        """Send the request."""
        del pod, namespace
        answer = requests.request(method, f"http://127.0.0.1:{self.ports[port]}{path}", data=body, headers=headers, timeout=timeout)
        return Answer(answer.status_code, answer.content)

    def logs(self, pod: str, namespace: str, container: str | None = None, *, since: float | str | None = None) -> str:
        """Return nothing: what runs here writes to the terminal."""
        raise NotImplementedError(pod, namespace, container, since)


@dataclass(frozen=True)
class Pair:
    """A caller and a greeter that run on this machine."""

    caller: Caller
    greeter: Greeter
    url: str


def go(*arguments: str, folder: Path) -> None:
    """Run the Go of this environment, with the compiler's cache that image builds use."""
    cache = cache_root() / "go"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO_"))} | {
        "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false -trimpath", "GOWORK": "off", "CGO_ENABLED": "0",
        "GOPATH": str(cache), "GOCACHE": str(cache / "build"),
    }  # fmt: skip
    done = subprocess.run([Path(sys.executable).parent / "go", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, f"go {' '.join(arguments)} in {folder}:\n{done.stdout}{done.stderr}"


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Build the two programs as their images are built, and run each in a process of its own."""
    folder = tmp_path_factory.mktemp("bin")
    serving, admin, control = free_ports(3)
    settings = {
        "greeter": {"PORT": str(serving), "ADMIN_PORT": str(admin), "VERSION": "v1", "POD_NAME": "greeter-0", "TARGET": "Serverless World"},
        "caller": {"CONTROL_PORT": str(control)},
    }
    with ExitStack() as running:
        for name, setting in settings.items():
            go("build", "-ldflags", "-s -w", "-o", str(folder / name), ".", folder=WORKLOADS / name / "app")
            process = running.enter_context(subprocess.Popen([folder / name], env=setting))
            running.callback(process.terminate)
        for port in (serving, control):
            eventually(partial(healthy, port), within=10, every=0.02, ignoring=(requests.ConnectionError,))
        kube = Loopback({9000: control})
        yield Pair(Caller(kube, "ns", "caller"), Greeter(Loopback({9000: admin}), "ns", "greeter-0"), f"http://127.0.0.1:{serving}")


def healthy(port: int) -> None:
    assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=1).status_code == 200


@pytest.mark.parametrize("name", ["greeter", "caller", "issuer", "provider", "observed", "receiver"])
def test_the_program_s_own_tests_hold(name: str) -> None:
    go("vet", ".", folder=WORKLOADS / name / "app")
    go("test", "-timeout", "60s", ".", folder=WORKLOADS / name / "app")


def test_every_call_arrives_once(pair: Pair) -> None:
    pair.greeter.reset_counts()

    draw = pair.caller.draw(f"{pair.url}/a", count=500, concurrency=8)

    counts = pair.greeter.counts()
    assert (counts.total, counts.by_path, counts.connections) == (500, {"/a": 500}, 8)
    assert counts.by_request_id == dict.fromkeys((record.request_id for record in draw.records), 1)
    assert len({record.connection for record in draw.records}) == 8
    assert (draw.statuses(), draw.versions(), draw.pods(), draw.failures) == ({200: 500}, {"v1": 500}, {"greeter-0": 500}, ())


def test_fresh_connections_are_as_many_as_calls(pair: Pair) -> None:
    pair.greeter.reset_counts()

    draw = pair.caller.draw(pair.url, count=20, concurrency=4, fresh_connections=True)

    assert pair.greeter.counts().connections == 20
    assert len({record.connection for record in draw.records}) == 20


def test_the_function_sees_the_headers_that_were_ordered(pair: Pair) -> None:
    headers = [("Host", "user-service.serverless.example.com"), ("user-type", "premium"), ("User-Type", ""), ("user-type", "Premium"), ("x-request-id", "mine")]

    (record,) = pair.caller.draw(pair.url, headers=headers).records

    assert record.seen["user-type"] == ["premium", "", "Premium"]
    assert record.seen["host"] == ["user-service.serverless.example.com"]
    assert record.request_id == "mine"
    assert record.headers["x-request-id"] == ["mine"]


@pytest.mark.parametrize("fresh", [False, True])
def test_calls_over_http_2_arrive_as_they_were_ordered(pair: Pair, *, fresh: bool) -> None:
    pair.greeter.reset_counts()

    draw = pair.caller.draw(f"{pair.url}/api/..%2fadmin?q=1", count=6, concurrency=2, protocol="h2", fresh_connections=fresh, headers=[("Host", "other"), ("user-type", "premium")])

    assert (draw.statuses(), draw.versions()) == ({200: 6}, {"v1": 6})
    assert pair.greeter.counts().by_path == {"/api/..%2fadmin": 6}
    assert pair.greeter.counts().by_request_id == dict.fromkeys((record.request_id for record in draw.records), 1)
    assert all((record.seen["host"], record.seen["user-type"]) == (["other"], ["premium"]) for record in draw.records)
    assert len({record.connection for record in draw.records}) == (6 if fresh else 2)


def test_a_grpc_call_says_what_any_other_says(pair: Pair) -> None:
    pair.greeter.reset_counts()

    (record,) = pair.caller.draw(f"{pair.url}/grpc.health.v1.Health/Check", protocol="grpc", headers=[("user-type", "premium")]).records

    assert (record.status, record.version, record.pod, record.error, record.headers["grpc-status"]) == (200, "v1", "greeter-0", "", ["0"])
    assert record.seen["user-type"] == ["premium"]
    assert pair.greeter.counts().by_request_id == {record.request_id: 1}


def test_a_grpc_method_that_the_function_has_not_is_counted_and_not_found(pair: Pair) -> None:
    pair.greeter.reset_counts()

    (record,) = pair.caller.draw(f"{pair.url}/admin.Users/Delete", protocol="grpc").records

    assert (record.status, record.headers["grpc-status"], record.version) == (404, ["12"], "v1")
    assert pair.greeter.counts().by_path == {"/admin.Users/Delete": 1}


@pytest.mark.parametrize("protocol", ["h2", "grpc"])
def test_without_anybody_there_a_call_is_not_answered(pair: Pair, protocol: str) -> None:
    (nobody,) = free_ports(1)

    (record,) = pair.caller.draw(f"http://127.0.0.1:{nobody}/a.B/C", protocol=protocol).records

    assert record.status == 0
    assert "connection refused" in record.error


def test_an_unknown_protocol_is_refused(pair: Pair) -> None:
    with pytest.raises(DrawIncomplete, match='protocol is "spdy"'):
        pair.caller.draw(pair.url, protocol="spdy")


def test_records_keep_the_headers_that_were_named(pair: Pair) -> None:
    (record,) = pair.caller.draw(pair.url, keep_headers=["X-Pod"], keep_seen=[]).records

    assert (record.headers, record.seen, record.version) == ({"x-pod": ["greeter-0"]}, {}, "v1")


def test_records_keep_the_body_where_it_is_asked_for(pair: Pair) -> None:
    (kept,) = pair.caller.draw(f"{pair.url}/some/path", keep_body=True).records
    (plain,) = pair.caller.draw(pair.url).records

    assert json.loads(kept.content())["path"].endswith("/some/path")
    assert (plain.body, plain.content()) == ("", b"")


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        ("x-greeter-status=503", 503, ""),
        ("x-greeter-close=true", 0, "read: closed by the other side"),
        ("x-greeter-hang=true", 0, "read: timeout"),
        ("x-greeter-fail-first=1", 503, ""),
        ("x-greeter-status=999", 400, ""),
    ],
)
def test_the_function_misbehaves_as_asked(pair: Pair, asked: str, status: int, error: str) -> None:
    (record,) = pair.caller.draw(f"{pair.url}/?{asked}", timeout_s=0.2).records

    assert (record.status, record.error) == (status, error)


def test_tls_to_a_function_that_does_not_speak_it_is_a_failed_handshake(pair: Pair) -> None:
    (record,) = pair.caller.draw(pair.url.replace("http:", "https:"), tls=ClientTls()).records

    assert record.status == 0
    assert record.error.startswith("tls: ")


def test_a_delay_is_part_of_the_latency(pair: Pair) -> None:
    (record,) = pair.caller.draw(pair.url, headers=[("x-greeter-delay", "50ms")]).records

    assert record.latency_ms >= 50


def test_a_failing_function_recovers_after_the_attempts_it_was_asked_for(pair: Pair) -> None:
    draw = pair.caller.draw(pair.url, count=4, headers=[("x-greeter-fail-first", "2"), ("x-request-id", "retried")])

    assert [record.status for record in draw.records] == [503, 503, 200, 200]
    assert pair.greeter.counts().by_request_id["retried"] == 4


def test_the_target_greets_it(pair: Pair) -> None:
    assert requests.get(pair.url, timeout=5).json()["greeting"] == "Hello Serverless World!"


def test_an_order_beyond_the_bounds_is_refused(pair: Pair) -> None:
    with pytest.raises(DrawIncomplete, match="count is 200001, expected 1 to 200000"):
        pair.caller.draw(pair.url, count=200_001)


def test_only_failed_calls_cost_a_look_into_the_proxys_log() -> None:
    asked: list[str] = []

    def log(since: str) -> list[dict[str, str]]:
        asked.append(since)
        return [{"request_id": "one", "response_flags": "UH"}]

    failed = json.loads(answered(0, count=1).body)
    failed["records"][0] |= {"status": 503, "request_id": "one"}
    Caller(RecordedKube(answered(0, count=1)), "ns", "pod", access_log=log).draw("http://f/")
    assert not asked

    draw = Caller(RecordedKube(Answer(200, json.dumps(failed).encode())), "ns", "pod", access_log=log).draw("http://f/")

    assert [record.flags for record in draw.records] == ["UH"]
    assert asked == [failed["began"]]


def test_the_flags_of_calls_that_did_not_fail_are_joined_on_request() -> None:
    delayed = json.loads(answered(0, count=1).body)
    delayed["records"][0] |= {"request_id": "one"}
    caller = Caller(RecordedKube(Answer(200, json.dumps(delayed).encode())), "ns", "pod", access_log=lambda _: [{"request_id": "one", "response_flags": "DI"}])

    draw = caller.draw("http://f/", flags=True)

    assert [record.flags for record in draw.records] == ["DI"]
