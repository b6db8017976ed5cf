"""The observed function: its objects, its client, and the one in Python, which says what the one in Go says."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest
import requests

from clusters.kube import ProxyResponse
from clusters.waiting import eventually
from workloads.observed import CONTROL_PORT, METRICS_PORT, observed
from workloads.observed.client import Counts, Observed

WORKLOADS = Path(__file__).parents[2] / "workloads"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Loopback:
    """A cluster of one pod, which is a process of this machine."""

    def __init__(self, ports: dict[int, int]) -> None:
        self.ports = ports
        self.log = ""

    def request(  # as Kube has it
        self, _pod: str, _namespace: str, port: int, method: str, path: str, body: bytes | None = None, _headers: None = None, timeout: float = 5,
    ) -> ProxyResponse:
        said = requests.request(method, f"http://127.0.0.1:{self.ports[port]}{path}", data=body, timeout=timeout)
        return ProxyResponse(said.status_code, {name.lower(): value for name, value in said.headers.items()}, said.content)

    def logs(self, *_: str, since: str) -> str:
        assert since
        return self.log


class Process:
    def __init__(self, name: str, *calls: str) -> None:
        self.port = free_port()
        ports = {CONTROL_PORT: free_port(), METRICS_PORT: free_port()}
        self.kube = Loopback(ports)
        self.client = Observed(self.kube, "ns", name)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "observed"], cwd=WORKLOADS / "observed_python" / "app", stdout=subprocess.PIPE, text=True,
            env={
                "NAME": name, "POD_NAME": f"{name}-pod", "PORT": str(self.port), "CONTROL_PORT": str(ports[CONTROL_PORT]),
                "METRICS_PORT": str(ports[METRICS_PORT]), "CALLS": ",".join(calls),
            },
        )

    def __enter__(self) -> "Process":
        eventually(self.healthy, within=10, every=0.02, ignoring=(requests.ConnectionError,))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=5)

    def healthy(self) -> None:
        assert self.ask("/healthz").status_code == 200

    def ask(self, path: str, **headers: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=5)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Process, Process]]:
    with ExitStack() as stack:
        second = stack.enter_context(Process("second"))
        yield stack.enter_context(Process("first", f"http://127.0.0.1:{second.port}/next")), second


def test_the_context_is_handed_on_in_python_too(pair: tuple[Process, Process]) -> None:
    sent = {"traceparent": PARENT, "tracestate": "a=b", "b3": "e", "x_b3_traceid": "f", "x_b3_spanid": "g", "x_request_id": "handed-on"}

    answer = pair[0].ask("/path", **sent)

    said = answer.json()
    assert answer.status_code == 200
    assert (answer.headers["x-version"], answer.headers["x-pod"], answer.headers["x-request-id"]) == ("first", "first-pod", "handed-on")
    seen = {name.replace("_", "-"): [value] for name, value in sent.items()}
    assert said["headers"] == said["calls"][0]["answer"]["headers"] == seen
    assert said["calls"][0]["answer"]["function"] == "second"


@pytest.mark.parametrize(("headers", "first", "second"), [
    ({"x_observed_status": "second=500"}, 502, 500),
    ({"x_observed_status": "second=404"}, 200, 404),
    ({"x_observed_status": "first=503,second=500"}, 503, None),
    ({"x_observed_fail_attempts": "second=1"}, 502, 503),
    ({"x_observed_fail_attempts": "first=1", "x_envoy_attempt_count": "2"}, 200, 200),
    ({"x_observed_delay_ms": "second=1"}, 200, 200),
    ({"x_observed_status": "first=many"}, 400, 0),
])
def test_it_fails_as_it_is_asked_to_in_python_too(pair: tuple[Process, Process], headers: dict[str, str], first: int, second: int | None) -> None:
    answer = pair[0].ask("/", **headers)

    calls = answer.json()["calls"]
    assert answer.status_code == first
    assert (calls[0]["status"] if calls else None) == second


def test_counts_metrics_and_lines_agree_in_python_too() -> None:
    with Process("one") as one:
        one.ask("/a", x_request_id="fine", traceparent=PARENT)
        one.ask("/b", x_request_id="broken", b3=f"{TRACE}-1-1", x_observed_status="one=500")

        assert one.client.counts() == Counts(2, 1, {"fine": 1, "broken": 1})
        assert 'serverless_function_invocations_total{function="one"} 2.0' in one.client.metrics()
        assert 'serverless_function_errors_total{function="one"} 1.0' in one.client.metrics()
        port = one.kube.ports[METRICS_PORT]
        told = requests.get(f"http://127.0.0.1:{port}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}, timeout=5).text
        assert f'# {{request_id="broken",trace_id="{TRACE}"}}' in told
        assert one.process.stdout is not None
        lines = [json.loads(one.process.stdout.readline()) for _ in range(2)]

    assert [(line["request_id"], line["trace_id"], line["status"], line["path"]) for line in lines] == [("fine", TRACE, 200, "/a"), ("broken", TRACE, 500, "/b")]


def test_scrapes_are_refused_and_answered_again() -> None:
    with Process("one") as one:
        one.client.refuse_scrapes(refused=True)
        with pytest.raises(ConnectionError, match="answered 503"):
            one.client.metrics()
        one.client.refuse_scrapes(refused=False)
        assert "serverless_function_errors_total" in one.client.metrics()


def test_the_client_reads_requests_only_from_the_log() -> None:
    kube = Loopback({})
    kube.log = 'starting\n{"event":"request","request_id":"a"}\n{"event":"line","nonce":"n","n":0}\n'
    assert Observed(kube, "ns", "pod").logged("2026-01-01T00:00:00Z") == [{"event": "request", "request_id": "a"}]


def test_the_objects_of_a_function_carry_its_name_runtime_and_calls() -> None:
    account, front, deployment = observed("second", runtime="python", calls=("http://third/", "http://fourth/"), labels={"role": "middle"}, inject=False)

    template = deployment["spec"]["template"]
    container = template["spec"]["containers"][0]
    assert (account["metadata"]["name"], front["metadata"]["name"], deployment["metadata"]["name"]) == ("function-sa", "second", "second")
    assert front["metadata"]["labels"] == {"app": "serverless-function"}
    assert front["spec"]["selector"] == {"app": "second"}
    assert template["metadata"]["labels"] == {"role": "middle", "app": "second", "app.kubernetes.io/instance": "second", "sidecar.istio.io/inject": "false"}
    assert container["image"] == "faasmesh.test/faasmesh/observed-python:1"
    assert {"name": "CALLS", "value": "http://third/,http://fourth/"} in container["env"]


@pytest.mark.parametrize("wrong", [partial(observed, "a", runtime="cobol"), partial(observed, "a", labels={"app": "b"})])
def test_an_impossible_function_is_refused(wrong: partial[object]) -> None:
    with pytest.raises(ValueError, match="observed function a"):
        wrong()


def test_the_image_s_library_is_the_one_tested_here() -> None:
    locked = (WORKLOADS / "observed_python" / "requirements.txt").read_text()
    assert f"prometheus-client=={metadata.version('prometheus-client')} --hash=sha256:" in locked
