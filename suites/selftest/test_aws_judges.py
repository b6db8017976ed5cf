"""Self-tests of the judges of AWS beside the mesh: each holds on what is right, and each of its claims can be refuted and left open."""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from clusters.components.jaeger.client import Span
from suites.support import awscalls, requirements
from suites.support.tracing import Sent
from workloads.records import CallRecord, Draw

FOUND = requirements.discover()
Evidence = dict[str, Any]
VARIABLES = {"APP_MESH_ENDPOINT": "http://lambda-function.serverless.local", "ENVOY_LOG_LEVEL": "info"}


def record(index: int, aws: tuple[int, str] | None, *, said: object = "", latency_ms: float = 10.0) -> Evidence:
    headers = {} if aws is None else {"x-aws-status": [str(aws[0])], "x-aws-error": [aws[1]], "x-aws-said": [json.dumps(said)]}
    good = aws is not None and aws == (200, "")
    return {
        "index": index, "status": 0 if aws is None else 200 if good else 502, "error": "read: reset" if aws is None else "", "version": "" if aws is None else "media-function",
        "request_id": f"{index:08d}-0000-4000-8000-000000000000", "headers": headers, "seen": {}, "latency_ms": latency_ms, "flags": "",
    }


def draw(count: int, status: int = 200, error: str = "", **more: Any) -> Evidence:
    return {"count": count, "records": [record(index, (status, error), **more) for index in range(count)]}


def crowd(served: int, refused: int) -> Evidence:
    outcomes = [(200, "")] * served + [(503, "503")] * refused
    return {"count": len(outcomes), "records": [record(index, one) for index, one in enumerate(outcomes)]}


def entries(count: int, **fields: Any) -> list[Evidence]:
    return [{"request_id": f"{index:08d}-0000-4000-8000-000000000000", "response_code": 200, **fields} for index in range(count)]


def call(status: int = 200, error: str = "", answer: object = "", seconds: float = 1.0) -> Evidence:
    return {"status": status, "error": error, "answer": answer, "seconds": seconds}


def answer(function: str = "serverless-function", nonce: str = "n", release: str = "1", runtime: str = "node 18.18.2", level: str = "info") -> Evidence:
    return {"function": function, "nonce": nonce, "release": release, "runtime": runtime, "variables": {**VARIABLES, "ENVOY_LOG_LEVEL": level}}


SERVICES = ("caller.here", "media-function.here")
CLUSTER = "outbound|80||lambda-function.serverless.local"


def trace(number: int) -> list[Evidence]:
    """Return the spans of a call: one of the caller's, two of the media function's."""
    return [
        Span(f"{number:032x}", f"{at}", f"{at - 1}" if at else f"{number:016x}", service, "call", kind, 1_000_000, 1000, {"upstream_cluster": f"{CLUSTER};"}).to_json()
        for at, (service, kind) in enumerate(((SERVICES[0], "client"), (SERVICES[1], "server"), (SERVICES[1], "client")))
    ]


ROW = {"resource": "Mesh m", "setting": "egressFilter.type", "value": "DROP_ALL", "kind": "Sidecar", "path": "outboundTrafficPolicy.mode", "wanted": "REGISTRY_ONLY"}
LOST = {"resource": "Instance i", "setting": "stage", "value": "live", "kind": "nothing", "path": "", "wanted": None}
BLOCKED = {"route_name": "block_all", "response_code_details": "direct_response"}
STORE = {"upstream_cluster": "outbound|80||s3.serverless.local;"}
GOOD: dict[str, Evidence] = {
    "functions.app-mesh": {
        "rows": [ROW, LOST], "applied": {"Sidecar": {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}}, "instances": [{"id": "live-1", "address": "10.0.0.1", "port": 8080}],
        "answered": draw(20, said=answer()), "late": {f"late-{number}": draw(1, 504, "504") for number in range(3)}, "broken": {f"b{number}": draw(1) for number in range(3)},
        "thrown": draw(3, 200, "RangeError"), "crowd": crowd(2, 6), "lives": True, "stranger": draw(3, 502, "502"),
        "services": list(SERVICES), "traced": [Sent(f"{number:032x}", f"{number:016x}", f"r-{number}", 200, 1.0).to_json() for number in range(3)],
        "sighting": {"traces": {f"{number:032x}": trace(number) for number in range(3)}, "whole_after_s": {}, "unanswered": ""},
        "ran": {"answered": 20, "broken": 6, "thrown": 3, "crowd": 2},
        "log": {
            "answered": entries(20, upstream_host="10.0.0.1:8080", upstream_cluster="outbound|80||lambda-function.serverless.local;", response_flags="-"),
            "late": entries(3, response_flags="UT"), "stranger": entries(3, **BLOCKED),
            "crowd": [{**one, "response_flags": "-" if index < 2 else "UO"} for index, one in enumerate(entries(8))],
        },
    },
    "functions.lambda": {
        "nonces": {"created": "n", "python": "p", "updated": "u"}, "log": [{"nonce": "n"}, {"nonce": "u"}, {"nonce": ""}],
        "calls": {
            "created": call(answer=answer()), "python": call(answer=answer("upload-function", "p", runtime="python 3.11.2")),
            "thrown": call(error="RangeError", answer={"errorType": "RangeError", "errorMessage": "as asked"}),
            "slow": call(error="Sandbox.Timedout", answer={"errorMessage": "Task timed out after 2.00 seconds"}, seconds=4.0),
            "unknown": call(404, "ResourceNotFoundException"), "updated": call(answer=answer(nonce="u", release="2", level="debug")),
            "removed": call(404, "ResourceNotFoundException"),
        },
    },
    "functions.artefacts": {
        "written": draw(5), "by-name": draw(5, 502, "502"), "by-address": draw(5, 0, "ConnectionClosedError"), "open": draw(5),
        "keys": {"own": draw(5), "unknown": draw(5, 403, "InvalidAccessKeyId"), "wrong": draw(5, 403, "SignatureDoesNotMatch"), "reader": draw(5, 403, "AccessDenied")},
        "silent": draw(1, 504, "504", latency_ms=2010.0), "again": draw(1),
        "sent": {way: f"digest of {way}" for way in ("written", "by-name", "by-address", "open", "own", "unknown", "wrong", "reader", "silent", "again")},
        "stored": {way: f"digest of {way}" for way in ("written", "open", "own", "silent", "again")},
        "log": {"written": entries(5, **STORE), "by-name": entries(5, route_name="block_all")},
    },
    "functions.upload-trigger": {
        "draws": {key: draw(1) for key in ("uploads/a.png", "uploads/b.png", "uploads/a.txt", "elsewhere/a.png")},
        "uploads": ["uploads/a.png", "uploads/b.png"], "others": ["uploads/a.txt", "elsewhere/a.png"], "stored": ["uploads/b.png", "uploads/a.txt", "elsewhere/a.png"],
        "runs": [[{"name": "ObjectCreated:Put", "bucket": "media-uploads", "key": key}] for key in ("uploads/a.png", "uploads/b.png")],
    },
    "functions.cloud-map": {
        "draw": draw(100), "rests": True, "nobody": draw(5, 503, "503"),
        "ran": {"before": {"live-1": 5, "live-2": 4}, "known": {"live-1": 30, "live-2": 20}, "after": {"live-1": 80, "live-2": 20}},
    },
    "functions.lambda-faults": {
        "calls": {
            "fits": call(), "long-answer": call(error="Function.ResponseSizeTooLarge"), "long-event": call(error="Handled", answer="exec /usr/bin/python3: argument list too long"),
            "no-image": call(error="Handled", answer='error running docker: Get "http://127.0.0.1:9/v2/": connection refused'),
        },
        "gone": draw(3, 503, "503", latency_ms=1005.0), "log": entries(3, response_flags="UF", **STORE),
    },
}


def outcome(name: str, change: Callable[[Evidence], None] = lambda _: None) -> dict[str, bool | None]:
    evidence = copy.deepcopy(GOOD[name])
    change(evidence)
    return {claim.name: claim.held for claim in FOUND[name].judge(evidence).claims}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_holds(name: str) -> None:
    assert set(outcome(name).values()) == {True}


def put(*path: Any, value: Any) -> Callable[[Evidence], None]:
    """Return a change that sets what lies at a path."""

    def change(evidence: Evidence) -> None:
        at: Any = evidence
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


NOBODY = {"count": 1, "records": [record(0, None)]}
MESH, LAMBDA, ARTEFACTS, UPLOAD, CLOUD, FAULTS = GOOD
CREATED = {"name": "ObjectCreated:Put", "bucket": "media-uploads"}
CASES = [
    (MESH, put("applied", "Sidecar", "outboundTrafficPolicy", "mode", value="ALLOW_ANY"), "istio-says-what-was-registered", False),
    (MESH, put("applied", value={}), "istio-says-what-was-registered", False),
    (MESH, put("rows", value=[LOST]), "istio-says-what-was-registered", None),
    (MESH, put("answered", value=draw(20, 502, "502")), "calls-are-answered", False),
    (MESH, put("answered", value={"count": 20, "records": [record(index, None) for index in range(20)]}), "calls-are-answered", None),
    (MESH, put("log", "answered", 0, "upstream_host", value="10.0.0.2:8080"), "the-instance-is-called", False),
    (MESH, put("instances", value=[]), "the-instance-is-called", False),
    (MESH, lambda evidence: evidence["log"]["answered"].pop(), "the-instance-is-called", None),
    (MESH, put("ran", "answered", value=21), "each-call-ran-the-function-once", False),
    (MESH, put("answered", value=draw(20, said=answer(level="debug"))), "the-variables-arrive", False),
    (MESH, put("answered", value=draw(20, 503, "503")), "the-variables-arrive", None),
    (MESH, lambda evidence: evidence["sighting"]["traces"].popitem(), "each-call-is-one-trace-under-its-id", False),
    (MESH, put("sighting", "unanswered", value="Jaeger has no running pod"), "each-call-is-one-trace-under-its-id", None),
    (MESH, put("traced", 0, "status", value=0), "each-call-is-one-trace-under-its-id", None),
    (MESH, put("sighting", "traces", f"{0:032x}", 2, "tags", value={"upstream_cluster": "PassthroughCluster;"}), "traces-end-at-the-instance", False),
    (MESH, put("sighting", "traces", value={}), "traces-end-at-the-instance", None),
    (MESH, put("late", "late-0", value=draw(1)), "late-calls-are-given-up", False),
    (MESH, put("log", "late", 0, "response_flags", value="UC"), "late-calls-are-given-up-by-the-proxy", False),
    (MESH, put("broken", "b0", value=draw(1, 502, "502")), "what-broke-is-tried-again", False),
    (MESH, put("ran", "broken", value=3), "what-broke-ran-twice", False),
    (MESH, put("thrown", value=draw(3)), "errors-arrive", False),
    (MESH, put("ran", "thrown", value=6), "errors-are-not-tried-again", False),
    (MESH, put("crowd", value=crowd(8, 0)), "the-surplus-is-refused", None),
    (MESH, put("ran", "crowd", value=3), "the-surplus-is-refused", False),
    (MESH, put("crowd", "records", 0, "headers", "x-aws-status", value=["504"]), "the-surplus-is-refused", False),
    (MESH, put("crowd", "records", 0, value=record(0, None)), "the-surplus-is-refused", None),
    (MESH, put("log", "crowd", 7, "response_flags", value="UF"), "the-surplus-is-refused-by-the-proxy", False),
    (MESH, lambda evidence: evidence["log"]["crowd"].pop(), "the-surplus-is-refused-by-the-proxy", None),
    (MESH, put("lives", value=False), "the-environment-lives", False),
    (MESH, put("stranger", value=draw(3, 503, "503")), "strangers-are-refused", False),
    (MESH, put("log", "stranger", 0, "route_name", value="allow_any"), "strangers-are-refused-by-block-all", False),
    (LAMBDA, put("calls", "created", value=call(error="TypeError", answer={})), "created-answers", False),
    (LAMBDA, put("calls", "created", "answer", "runtime", value="node 24.0.0"), "created-answers", False),
    (LAMBDA, put("calls", "created", "answer", "variables", value={}), "created-has-its-variables", False),
    (LAMBDA, put("calls", "created", value=call(error="TypeError", answer={})), "created-has-its-variables", None),
    (LAMBDA, put("calls", "python", "answer", "nonce", value="another"), "python-answers", False),
    (LAMBDA, put("calls", "thrown", value=call(answer=answer())), "what-it-throws-arrives", False),
    (LAMBDA, put("calls", "slow", value=call(answer=answer())), "too-slow-is-ended", False),
    (LAMBDA, put("calls", "updated", "answer", "release", value="1"), "updated-runs-the-new-code", False),
    (LAMBDA, put("calls", "updated", "answer", "variables", "ENVOY_LOG_LEVEL", value="info"), "updated-has-its-variables", False),
    (LAMBDA, put("calls", "unknown", value=call(answer=answer())), "nobody-s-function-is-refused", False),
    (LAMBDA, put("calls", "removed", value=call(answer=answer())), "removed-is-refused", False),
    (LAMBDA, put("log", value=[{"nonce": "n"}, {"nonce": "n"}, {"nonce": "u"}]), "each-invocation-is-in-the-log-once", False),
    (LAMBDA, put("calls", "slow", "seconds", value=300.0), "each-ends-in-time", False),
    (ARTEFACTS, put("written", value=draw(5, 502, "502")), "artefacts-are-written", False),
    (ARTEFACTS, put("written", "records", value=[]), "artefacts-are-written", None),
    (ARTEFACTS, put("stored", "written", value="another digest"), "artefacts-are-as-they-were-sent", False),
    (ARTEFACTS, put("log", "written", 0, "upstream_cluster", value="PassthroughCluster"), "by-way-of-the-registered-host", False),
    (ARTEFACTS, put("by-name", value=draw(5)), "strangers-by-name-are-refused", False),
    (ARTEFACTS, put("log", "by-name", 0, "route_name", value="allow_any"), "strangers-by-name-meet-block-all", False),
    (ARTEFACTS, put("by-address", value=draw(5)), "strangers-by-address-are-refused", False),
    (ARTEFACTS, put("stored", "by-address", value="digest of by-address"), "strangers-write-nothing", False),
    (ARTEFACTS, put("open", value=draw(5, 0, "ConnectionClosedError")), "the-same-address-takes-others", False),
    (ARTEFACTS, put("keys", "own", value=draw(5, 403, "SignatureDoesNotMatch")), "own-keys-are-taken", False),
    (ARTEFACTS, put("keys", "unknown", value=draw(5)), "unknown-keys-are-refused", False),
    (ARTEFACTS, put("keys", "wrong", value=draw(5)), "wrong-secrets-are-refused", False),
    (ARTEFACTS, put("keys", "reader", value=draw(5)), "keys-of-who-may-not-are-refused", False),
    (ARTEFACTS, put("silent", value=draw(1, 0, "ReadTimeoutError", latency_ms=25_000.0)), "a-silent-store-is-given-up", False),
    (ARTEFACTS, put("silent", value=draw(1, 504, "504", latency_ms=25_000.0)), "a-silent-store-is-given-up-in-time", False),
    (ARTEFACTS, put("silent", "records", value=[]), "a-silent-store-is-given-up-in-time", None),
    (ARTEFACTS, put("again", value=draw(1, 504, "504")), "and-is-used-again", False),
    (UPLOAD, put("draws", "uploads/a.png", value=draw(1, 502, "502")), "uploads-are-taken", False),
    (UPLOAD, put("draws", "uploads/a.png", value=NOBODY), "uploads-are-taken", None),
    (UPLOAD, put("runs", value=[]), "each-upload-runs-the-function-once", False),
    (UPLOAD, lambda evidence: evidence["runs"].append(evidence["runs"][0]), "each-upload-runs-the-function-once", False),
    (UPLOAD, lambda evidence: evidence["runs"].append([{**CREATED, "key": "uploads/a.txt"}]), "other-files-run-nothing", False),
    (UPLOAD, lambda evidence: evidence["runs"].append([{**CREATED, "name": "ObjectRemoved:Delete", "key": "uploads/a.png"}]), "removal-runs-nothing", False),
    (UPLOAD, lambda evidence: evidence["stored"].append("uploads/a.png"), "the-files-are-there", False),
    (CLOUD, put("draw", "records", 50, value=record(50, (503, "503"))), "no-call-fails", False),
    (CLOUD, put("draw", "records", 50, value=record(50, None)), "no-call-fails", None),
    (CLOUD, put("ran", "before", "live-2", value=0), "both-were-called", False),
    (CLOUD, put("ran", "after", "live-2", value=21), "who-left-is-not-called", False),
    (CLOUD, put("rests", value=False), "who-left-is-not-called", None),
    (CLOUD, put("ran", "after", "live-1", value=30), "who-stays-is-called", None),
    (CLOUD, put("ran", "after", "live-1", value=81), "each-call-ran-once", False),
    (CLOUD, put("nobody", value=draw(5)), "with-nobody-left-calls-fail", False),
    (CLOUD, put("nobody", value=draw(5, 504, "504")), "with-nobody-left-the-proxy-says-so", False),
    (CLOUD, put("nobody", value=draw(5, 503, "503", latency_ms=5000.0)), "with-nobody-left-calls-end-at-once", False),
    (FAULTS, put("calls", "fits", value=call(error="TypeError")), "what-fits-is-answered", False),
    (FAULTS, put("calls", "long-answer", value=call()), "too-long-an-answer-is-refused", False),
    (FAULTS, put("calls", "long-event", value=call(error="Handled", answer="something else")), "too-long-an-event-is-refused", False),
    (FAULTS, put("calls", "no-image", value=call()), "a-missing-image-is-told", False),
    (FAULTS, put("calls", "no-image", "seconds", value=300.0), "no-image-ends-in-time", False),
    (FAULTS, put("gone", value=draw(3)), "a-store-that-has-gone-is-told", False),
    (FAULTS, put("log", 0, "response_flags", value="UT"), "a-store-that-has-gone-is-told-by-the-proxy", False),
    (FAULTS, put("gone", value=draw(3, 503, "503", latency_ms=30_000.0)), "a-store-that-has-gone-is-given-up-in-time", False),
]


@pytest.mark.parametrize(("name", "change", "claim", "held"), CASES, ids=[f"{claim}-{held}" for _, _, claim, held in CASES])
def test_a_claim_is_refuted_and_left_open_where_it_should_be(name: str, change: Callable[[Evidence], None], claim: str, *, held: bool | None) -> None:
    assert outcome(name, change)[claim] is held


@pytest.mark.parametrize("name", GOOD)
def test_every_claim_of_every_judge_is_tried(name: str) -> None:
    tried = {claim for other, _, claim, held in CASES if other == name and held is False}
    open_only = {"who-stays-is-called"}
    alike = {claim for claim in outcome(name) if claim.startswith("uploads-are-taken-") or claim.endswith("-ends-in-time")}

    assert outcome(name).keys() - tried - open_only - alike == set()


# What a function's proxy wrote down


def logged(*clusters: str) -> list[Evidence]:
    return [
        {"request_id": f"{index:08d}-0000-4000-8000-000000000000", "upstream_cluster": cluster, "start_time": "2026-01-01T00:00:00Z", "path": "/"}
        for index, cluster in enumerate(clusters)
    ]


def made(count: int) -> Draw:
    records = tuple(CallRecord(index, 200, "", 1.0, 0.0, request_id=f"{index:08d}-0000-4000-8000-000000000000") for index in range(count))
    return Draw("http://media-function", "POST", count, 1, records, datetime(2026, 1, 1, tzinfo=UTC).isoformat(), 1.0)


def test_of_a_function_s_log_what_it_sent_out_is_kept_and_what_came_in_is_not(monkeypatch) -> None:
    monkeypatch.setattr(awscalls, "LOGGED_WITHIN_S", 0)
    log = logged("outbound|80||a", "inbound|8080||", "outbound|80||a")

    assert [entry["upstream_cluster"] for entry in awscalls.sent_out(lambda _: log, [made(1)])] == ["outbound|80||a"]
    assert awscalls.sent_out(lambda _: [], [made(1)]) == []


def test_a_call_that_the_function_says_nothing_of_has_no_outcome() -> None:
    assert awscalls.outcome({"headers": {}}) == ()
    assert awscalls.outcome({"headers": {"x-aws-status": ["200"]}}) == ("200", "")


def test_nothing_but_what_is_registered_is_asked_of_the_mesh() -> None:
    claim = awscalls.said_the_same("same", [SimpleNamespace(**LOST).__dict__, ROW], {"Sidecar": {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}})

    assert claim.held
    assert "nothing there says Instance i stage" in claim.said
