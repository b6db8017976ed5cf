# ruff: noqa: INP001  # a module of an image, no package here
"""The observed function in Python: calls on, hands the trace context on, and counts and writes down what it answered.

Environment, requests, answers, lines and metrics are those of workloads/observed; of its control port there are

    GET  /counts    what was counted
    POST /scrapes   refuses scrapes while the body is "refused", and answers them again once it is "answered"
"""

import http.client
import json
import os
import socketserver
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

ASK_STATUS, ASK_FAILURES, ASK_DELAY = "x-observed-status", "x-observed-fail-attempts", "x-observed-delay-ms"
TRACE_CONTEXT = (
    "x-request-id", "traceparent", "tracestate", "baggage",
    "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", "x-ot-span-context",
)
CALL_TIMEOUT_S = 10
MAX_DELAY_S = 5.0
# OpenMetrics allows 128 characters in all; an id longer than these is left out.
LONGEST_ID = 40
NAME = os.environ.get("NAME") or os.uname().nodename
POD = os.environ.get("POD_NAME") or os.uname().nodename
CALLS = [url for url in (os.environ.get("CALLS") or "").split(",") if url]

REGISTRY = CollectorRegistry()
INVOCATIONS = Counter("serverless_function_invocations", "Requests that the function has answered.", ["function"], registry=REGISTRY).labels(NAME)
ERRORS = Counter("serverless_function_errors", "Requests that the function has answered with 500 or above.", ["function"], registry=REGISTRY).labels(NAME)


class Counts:
    """What /counts says; counted at the same place as the metrics, so that both agree."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.invocations = self.errors = 0
        self.by_request_id: Tally[str] = Tally()
        self.refused = False

    def count(self, status: int, request_id: str, trace_id: str) -> None:
        """Count one answer."""
        exemplar = {name: value for name, value in (("request_id", request_id), ("trace_id", trace_id)) if 0 < len(value) <= LONGEST_ID}
        failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        with self.guard:
            INVOCATIONS.inc(exemplar=exemplar or None)
            self.invocations += 1
            if failed:
                ERRORS.inc(exemplar=exemplar or None)
                self.errors += 1
            if request_id:
                self.by_request_id[request_id] += 1


COUNTS = Counts()
PRINTING = threading.Lock()


def say(line: Mapping[str, object]) -> None:
    """Print one JSON line at once and whole."""
    with PRINTING:
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stdout.flush()


def trace_id(headers: Mapping[str, str]) -> str:
    """Return the id of the trace that a request belongs to, by either propagation; empty where it says none."""
    parts = headers.get("traceparent", "").split("-")
    if len(parts) == 4:  # noqa: PLR2004  # version, trace, parent, flags (W3C Trace Context, section 3.2)
        return parts[1]
    if told := headers.get("x-b3-traceid"):
        return told
    first, found, _ = headers.get("b3", "").partition("-")
    return first if found else ""


def asked(headers: Mapping[str, str], name: str) -> int:
    """Return what a header asks of this function, 0 where it asks nothing of it; ValueError where that is no number."""
    for one in headers.get(name, "").split(","):
        function, found, value = one.strip().partition("=")
        if found and function == NAME:
            return int(value)
    return 0


def status_asked(headers: Mapping[str, str]) -> int:
    """Wait as long as this function is to wait, and return the status that it is to answer with."""
    time.sleep(min(asked(headers, ASK_DELAY) / 1000, MAX_DELAY_S))  # noqa: TID251  # a slow function is what was asked for
    if int(headers.get("x-envoy-attempt-count") or 1) <= asked(headers, ASK_FAILURES):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return asked(headers, ASK_STATUS) or HTTPStatus.OK


def call(url: str, headers: Mapping[str, str]) -> dict[str, object]:
    """Make one call with the context of the request that is being answered; return what became of it."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=CALL_TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/", headers={name: headers[name] for name in (*TRACE_CONTEXT, ASK_STATUS, ASK_FAILURES, ASK_DELAY) if name in headers})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return {"url": url, "status": 0, "error": str(error)}
    finally:
        connection.close()
    try:
        said: object = json.loads(text)
    except ValueError:
        said = text
    return {"url": url, "status": answer.status, "answer": said}


class Server(ThreadingHTTPServer):
    """A server that starts without asking the resolver for its own name, and takes more than five callers at once."""

    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        """Bind; http.server would look up the host's full name first."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    """What all three ports share."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name: str) -> object:
        """Serve any method; http.server looks for one `do_<METHOD>` for each."""
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self) -> None:
        """Answer one request."""
        raise NotImplementedError

    def body(self) -> bytes:
        """Read the body to its end."""
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def answer(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        """Send JSON whole."""
        self.send(status, json.dumps(body).encode() + b"\n", {"content-type": "application/json", **(headers or {})})

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send an answer whole."""
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Leave http.server's own log out: a request has its line already."""


class Function(Handler):
    """The function itself."""

    def serve(self) -> None:
        """Call on, answer, and write down what was answered."""
        path = self.requestline.split()[1].partition("?")[0]
        if path == "/healthz":
            self.send(HTTPStatus.OK, b"ok\n", {"content-type": "text/plain"})
            return
        self.body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        calls: list[dict[str, object]] = []
        try:
            status = status_asked(headers)
        except ValueError as error:
            status, calls = HTTPStatus.BAD_REQUEST, [{"url": "", "status": 0, "error": str(error)}]
        if status == HTTPStatus.OK:
            calls = [call(url, headers) for url in CALLS]
            if any(not 0 < int(str(one["status"])) < HTTPStatus.INTERNAL_SERVER_ERROR for one in calls):
                status = HTTPStatus.BAD_GATEWAY
        request_id, trace = headers.get("x-request-id", ""), trace_id(headers)
        COUNTS.count(status, request_id, trace)
        say({
            "event": "request", "request_id": request_id, "trace_id": trace, "function": NAME, "pod": POD, "method": self.command, "path": path, "status": int(status),
        })
        context = {name: [headers[name]] for name in TRACE_CONTEXT if name in headers}
        said = {"function": NAME, "pod": POD, "request_id": request_id, "headers": context, "calls": calls}
        self.answer(status, said, {"x-version": NAME, "x-pod": POD, "x-request-id": request_id})


class Metrics(Handler):
    """What a scraper asks."""

    def serve(self) -> None:
        """Say the counters, in the form that is asked for."""
        if COUNTS.refused:
            self.send(HTTPStatus.SERVICE_UNAVAILABLE, b"scrapes are refused\n", {"content-type": "text/plain"})
            return
        encode, content_type = choose_encoder(self.headers.get("accept", ""))
        self.send(HTTPStatus.OK, encode(REGISTRY), {"content-type": content_type})


class Control(Handler):
    """What the testbed asks."""

    def serve(self) -> None:
        """Say what was counted, or refuse scrapes from now on."""
        if self.path == "/counts":
            with COUNTS.guard:
                self.answer(HTTPStatus.OK, {"invocations": COUNTS.invocations, "errors": COUNTS.errors, "by_request_id": dict(COUNTS.by_request_id)})
            return
        wanted = self.body()
        if self.path != "/scrapes" or wanted not in {b"refused", b"answered"}:
            self.answer(HTTPStatus.BAD_REQUEST, {"error": 'scrapes are "refused" or "answered", and nothing else is asked here'})
            return
        COUNTS.refused = wanted == b"refused"
        self.answer(HTTPStatus.OK, {"refused": COUNTS.refused})


def main() -> None:
    """Serve all three ports until the process is ended."""
    for variable, otherwise, handler in (("METRICS_PORT", 9102, Metrics), ("CONTROL_PORT", 9000, Control)):
        server = Server(("", int(os.environ.get(variable) or otherwise)), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    with Server(("", int(os.environ.get("PORT") or 8080)), Function) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
