"""Self-tests of the judges of OpenFaaS's functions: each holds on what is right, and each of its claims can be refuted and left open."""

import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.components.jaeger.client import Span
from clusters.components.openfaas.client import PRINCIPAL
from suites.support import faas, requirements
from workloads.image_processor import pictures

FOUND = requirements.discover()
Evidence = dict[str, Any]


def of(name: str) -> dict[str, Any]:
    """Return what a check's module defines, its claims among it."""
    found: dict[str, Any] = FOUND[name].judge.__globals__  # type: ignore[attr-defined]  # a function
    return found


def request_id(number: int, letter: str = "a") -> str:
    return f"{number:08x}-1111-4111-8111-{letter * 12}"


def draw(count: int = 1, status: int = 200, *, letter: str = "a", body: bytes = b"", **more: Any) -> Evidence:
    records = [
        {
            "index": at, "status": status, "error": "", "latency_ms": 100.0, "version": "", "pod": "", "flags": "", "headers": {}, "seen": {},
            "request_id": request_id(at, letter), "body": base64.b64encode(body).decode(), **more,
        }
        for at in range(count)
    ]
    return {"count": count, "records": records}


def told(function: str, count: int, *, peer: str = PRINCIPAL, pod: str = "pod-1", letter: str = "a", **seen: str) -> Evidence:
    """Return a draw that a function answered with what it saw."""
    made = draw(count, letter=letter, version=function, pod=pod)
    for record in made["records"]:
        record["seen"] = {"x-request-id": [record["request_id"]], "x-forwarded-client-cert": [f"By=x;URI={peer}"] if peer else [], **{name: [value] for name, value in seen.items()}}
    return made


def closed(count: int) -> Evidence:
    return draw(count, 0, error="read: connection reset by peer")


def ids(made: Evidence) -> list[str]:
    return [record["request_id"] for record in made["records"]]


def called(count: int, status: int = 202, *, letter: str = "a", **more: Any) -> Evidence:
    made = draw(count, status, letter=letter, **more)
    for record in made["records"]:
        record["headers"] = {"x-call-id": [f"call-{record['request_id']}"]}
    return made


def back(made: Evidence, function: str, status: str) -> list[dict[str, str]]:
    return [{"x-call-id": record["headers"]["x-call-id"][0], "x-function-name": f"{function}.here", "x-function-status": status} for record in made["records"]]


def logged(made: Evidence, **fields: object) -> list[Evidence]:
    return [{"request_id": one, "response_code": 200, "downstream_peer_principal": "", "upstream_peer_principal": "", **fields} for one in ids(made)]


def traced(number: int) -> Evidence:
    return {"trace_id": f"{number}", "parent_id": "sent", "request_id": request_id(number), "status": 200, "answered_s": 1.0}


def spans(number: int) -> list[Evidence]:
    """Return the four spans of a call by way of the gateway, one below the other."""
    sides = (("caller.here", "client"), ("gateway.openfaas", "server"), ("gateway.openfaas", "client"), ("trailed.here", "server"))
    return [
        Span(f"{number}", f"s{at}", f"s{at - 1}" if at else "sent", service, "x", kind, at, 1).to_json() for at, (service, kind) in enumerate(sides)
    ]


RESIZED, SMALL = pictures.quartered(32, 24), pictures.quartered(16, 12)
CALLER, OWNER = "spiffe://cluster.local/ns/here/sa/caller", "spiffe://cluster.local/ns/here/sa/default"
TRAIL = told("trailed", 10, traceparent="00-abc-1-01", **{"x-b3-traceid": "abc"})
WORKED, FAILING, LARGE = called(20), called(5, letter="b"), called(1, letter="c")
FIRST, SECOND = draw(500, 202), draw(500, 202, letter="b")
DEPLOYED = {
    "labels": {"com.openfaas.scale.min": "1", "com.openfaas.scale.max": "20"}, "annotations": {"prometheus.io.scrape": "true", "prometheus.io.port": "8081"},
    "wanted": 1, "pods": ["a"],
}


def typed(made: Evidence, content_type: str) -> Evidence:
    for record in made["records"]:
        record["headers"] = {"content-type": [content_type]}
    return made


def refused(status: int = 401) -> Evidence:
    return {what: {"status": status, "said": f"{what}: {status}"} for what in of("functions.openfaas-api")["TRIED"]}


def mistakes() -> Evidence:
    return {what: {"status": 400, "said": f"400 {words}"} for what, (_, words) in of("functions.openfaas-api")["MISTAKES"].items()}


GOOD: dict[str, Evidence] = {
    "functions.openfaas-function": {
        "calls": {
            "first": typed(draw(3, body=RESIZED), "application/octet-stream"), "updated": typed(draw(3, body=RESIZED), "image/x-portable-pixmap"),
            "deleted": draw(3, 404), "nobody": draw(3, 404),
        },
        "before": DEPLOYED, "after": {**DEPLOYED, "pods": ["b"]}, "left": [],
    },
    "functions.openfaas-api": {
        "without": refused(), "wrong": refused(), "made": "", "mistakes": mistakes(),
        "done": {step: {"said": "", "seen": True} for step in ("deploy", "update", "delete")},
        "calls": told("api-processor", 5), "listed": {"asked": "", "calls": 5, "functions": [{"name": "api-processor", "availableReplicas": 1, "invocationCount": 9}]},
    },
    "functions.openfaas-mesh": {
        "gateway": told("guarded", 5), "beside": told("guarded", 5), "past": draw(5, 403), "plaintext": closed(5),
    },
    "functions.openfaas-service-entry": {
        "reference": {"status": 400, "said": "validation.istio.io denied it: hosts must be FQDN for resolution mode DNS"}, "without": {"status": 0, "said": ""},
        "before": told("entered", 5), "after": told("entered", 5), "everywhere": {"status": 0, "said": ""},
        "rejection": "RouteConfiguration rejected: Only a single wildcard domain is permitted in route 8080", "beside": draw(5), "gone": draw(5, 418),
    },
    "functions.openfaas-provider": {
        "before": {"list": draw(5), "function": draw(5, 503), "gateway": draw(5)}, "after": {"list": draw(5, 403), "function": draw(5, 403), "gateway": draw(5)},
    },
    "functions.openfaas-trail": {
        "calls": TRAIL, "context": {"trace_id": "abc", "span_id": "1"}, "principals": {"caller": CALLER, "function": OWNER},
        "logs": {
            "caller": logged(TRAIL, upstream_peer_principal=PRINCIPAL), "into": logged(TRAIL, downstream_peer_principal=CALLER),
            "out": logged(TRAIL, upstream_peer_principal=OWNER), "function": logged(TRAIL, downstream_peer_principal=PRINCIPAL),
        },
        "services": ["caller.here", "gateway.openfaas", "trailed.here"], "traced": [traced(one) for one in range(5)],
        "sighting": {"traces": {f"{one}": spans(one) for one in range(5)}, "whole_after_s": {}, "unanswered": ""},
    },
    "functions.openfaas-scale-bounds": {"asked": [3, 20, 25, 1], "fired": [5, 9, 13, 17, 20, 20], "resolved": [1]},
    "functions.openfaas-scale-to-zero": {
        "one": told("scaled", 5), "three": draw(60), "zero": {"wanted": 0, "pods": [], "told": 0}, "before": ["pod-0", "pod-1", "pod-2"],
        "again": told("scaled", 1, pod="pod-9"), "twin": told("kept", 5), "twin_pods": {"before": ["k"], "after": ["k"]},
    },
    "functions.openfaas-secrets": {
        "answers": {"sealed": draw(2, headers={"x-said": ["d1"]}), "unsealed": draw(2, 500), "awaiting": draw(2, headers={"x-said": ["d2"]})},
        "digests": {"api-key": "d1", "late-key": "d2"}, "early": "", "variables": 20, "found": "", "listed": {"names": ["api-key"], "fields": ["name"], "told": False},
    },
    "functions.openfaas-timeouts": {"calls": {
        "hurried": draw(2, 408, latency_ms=2100.0), "meshed": draw(2, 504, latency_ms=4050.0), "patient": draw(2, 502, latency_ms=10100.0), "quick": draw(2, latency_ms=9.0),
    }},
    "functions.openfaas-metrics": {
        "answered": {"counted": 11, "scraped": 11},
        "scrapes": {"counted": closed(1), "scraped": draw(1), "merged": draw(1)},
        "counts": {"counted": {}, "scraped": {"200 post": 7, "200 get": 4}, "merged": {"200 post": 7, "200 get": 4}},
        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus"},
    },
    "functions.openfaas-async": {
        "calls": {"worked": WORKED, "failing": FAILING, "large": LARGE, "too-large": draw(1, 500), "nobody": draw(5, 500)},
        "runs": [{"x-request-id": one} for one in (*ids(WORKED), *ids(LARGE))], "called_back": [*back(WORKED, "worked", "200"), *back(FAILING, "fails-always", "500")],
    },
    "functions.openfaas-queue": {
        "calls": {"before": FIRST, "without-a-worker": SECOND}, "runs": [*ids(FIRST), *ids(SECOND)], "workers": {"before": ["w1"], "after": ["w2"]},
        "in_hand": {"begun": 1, "after": 2},
    },
    "functions.openfaas-queue-outage": {
        "asynchronous": {"before": draw(5, 202), "without": draw(5, 500), "after": draw(5, 202, letter="c")},
        "synchronous": {when: draw(5) for when in ("before", "without", "after")}, "runs": ids(draw(5, letter="c")),
    },
    "functions.openfaas-faults": {
        "no_image": {"pods": "pod x: no-image ErrImagePull (no-such-function:1)", "available": 0},
        "calls": {
            "no-image": draw(2, 504, latency_ms=6010.0), "throws": draw(2, 500, body=b"exit status 1\nimage-processor: not an image: x\n"), "nobody": draw(2, 404),
            "twin": draw(2), "lonely-list": draw(2, 502), "lonely-call": draw(2, 404, body=b"error finding function: connect: connection refused"),
        },
    },
    "functions.openfaas-upload-once": {
        "good": {"calls": draw(6, body=SMALL), "forks": 6, "logged": ids(draw(6))}, "bad": {"calls": draw(6, 500), "forks": 6, "logged": ids(draw(6))}, "twin": 0,
    },
    "functions.openfaas-autoscaling": {
        "looks": [{"at": at, "wanted": wanted, "loaded": loaded} for at, wanted, loaded in ((0.1, 1, True), (30.0, 5, True), (31.0, 5, False), (70.0, 1, False))],
        "load": draw(300),
    },
}
for number, record in enumerate(GOOD["functions.openfaas-scale-to-zero"]["three"]["records"]):
    record |= {"pod": f"pod-{number % 3}", "version": "scaled"}


def outcome(name: str, change: Callable[[Evidence], object] = lambda _: None) -> dict[str, bool | None]:
    evidence = copy.deepcopy(GOOD[name])
    change(evidence)
    return {claim.name: claim.held for claim in FOUND[name].judge(evidence).claims}


def test_every_check_of_openfaas_is_judged_here() -> None:
    assert {name for name in FOUND if name.startswith("functions.openfaas-")} == GOOD.keys()


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_holds(name: str) -> None:
    assert {claim: held for claim, held in outcome(name).items() if held is not True} == {}


def put(*path: Any, value: Any) -> Callable[[Evidence], None]:
    """Return a change that sets what lies at a path."""

    def change(evidence: Evidence) -> None:
        at: Any = evidence
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


LIFE, API, MESH, ENTRY, PROVIDER, TRAILED, BOUNDS, ZERO, SECRETS, TIMES, METRICS, ASYNC, QUEUE, OUTAGE, FAULTS, UPLOADS, SCALED = GOOD
NONE: Evidence = {"count": 0, "records": []}
CASES = [
    (LIFE, put("calls", "first", value=draw(3, body=pictures.quartered(64, 48))), "pictures-are-resized", False),
    (LIFE, put("calls", "first", value=draw(3, 500)), "pictures-are-resized", False),
    (LIFE, put("calls", "updated", value=draw(2, body=RESIZED)), "pictures-are-resized-afterwards", None),
    (LIFE, put("calls", "updated", value=draw(3, 500)), "pictures-are-resized-afterwards", False),
    (LIFE, put("before", "labels", "com.openfaas.scale.max", value="10"), "pods-bear-what-is-declared", False),
    (LIFE, put("before", "annotations", value={}), "pods-bear-what-is-declared", False),
    (LIFE, put("before", "labels", value={}), "pods-bear-what-is-declared", None),
    (LIFE, put("before", "wanted", value=2), "as-many-pods-as-its-minimum", False),
    (LIFE, put("after", "pods", value=["a"]), "the-update-is-carried-out", False),
    (LIFE, put("after", "pods", value=[]), "the-update-is-carried-out", None),
    (LIFE, lambda one: typed(one["calls"]["updated"], "application/octet-stream"), "the-update-is-carried-out", False),
    (LIFE, put("left", value=["Service"]), "what-it-owned-is-gone", False),
    (LIFE, put("calls", "deleted", value=draw(3)), "deleted-it-is-not-found", False),
    (LIFE, put("calls", "nobody", value=draw(3, 503)), "what-never-was-is-not-found", False),
    (API, put("without", "list", value={"status": 0, "said": ""}), "refused-without-credentials", False),
    (API, put("without", "list", value={"status": 0, "said": "no answer"}), "refused-without-credentials", None),
    (API, put("without", value={}), "refused-without-credentials", None),
    (API, put("wrong", "deploy", value={"status": 500, "said": "500"}), "refused-with-wrong-ones", False),
    (API, put("made", value="Function"), "nothing-came-of-it", False),
    (API, put("done", "deploy", value={"said": "401", "seen": False}), "deployed", False),
    (API, put("done", "update", value={"said": "", "seen": False}), "updated", False),
    (API, put("done", value={}), "deleted", None),
    (API, put("done", "delete", value={"said": "", "seen": False}), "deleted", False),
    (API, put("calls", value=draw(5, 503)), "its-calls-are-answered", None),
    (API, put("listed", "functions", value=[]), "listed-with-its-calls", False),
    (API, put("listed", "functions", 0, "invocationCount", value=0), "listed-with-its-calls", False),
    (API, put("listed", "asked", value="no answer"), "listed-with-its-calls", False),
    (API, put("mistakes", "no-image", value={"status": 0, "said": ""}), "mistakes-are-refused-in-one-line", False),
    (API, put("mistakes", "no-image", value={"status": 400, "said": "400 something"}), "mistakes-are-refused-in-one-line", False),
    (API, put("mistakes", value={}), "mistakes-are-refused-in-one-line", None),
    (MESH, put("gateway", value=told("guarded", 5, peer=CALLER)), "the-gateway-is-let-in", False),
    (MESH, put("gateway", value=told("guarded", 5, peer="")), "the-gateway-is-let-in", False),
    (MESH, put("beside", value=told("guarded", 5, peer=CALLER)), "who-asks-the-gateway-is-not-seen", False),
    (MESH, put("past", value=told("guarded", 5, peer=CALLER)), "another-identity-is-refused", False),
    (MESH, put("plaintext", value=told("guarded", 5, peer="")), "plaintext-is-refused", False),
    (MESH, put("plaintext", value=draw(5, 0, error="read: timeout")), "plaintext-is-refused", None),
    (ENTRY, put("reference", value={"status": 0, "said": ""}), "the-reference-is-refused", False),
    (ENTRY, put("reference", value={"status": 403, "said": "forbidden"}), "the-reference-is-refused", None),
    (ENTRY, put("reference", "said", value="validation.istio.io denied it"), "the-reference-is-refused", False),
    (ENTRY, put("without", value={"status": 400, "said": "x"}), "without-resolution-it-is-taken", False),
    (ENTRY, put("before", value=told("entered", 5, peer="")), "mutual-tls-without-any", False),
    (ENTRY, put("after", value=draw(5, 503)), "mutual-tls-beside-it", None),
    (ENTRY, put("rejection", value=""), "its-own-namespace-rejects-it", False),
    (ENTRY, put("everywhere", value={"status": 400, "said": "x"}), "its-own-namespace-rejects-it", None),
    (ENTRY, put("beside", value=draw(5, 418)), "no-later-route-arrives", False),
    (ENTRY, put("gone", value=draw(5)), "the-route-arrives-once-it-is-gone", False),
    (PROVIDER, put("before", "list", value=draw(5, 401)), "open-to-anybody", False),
    (PROVIDER, put("before", "function", value=draw(5)), "by-pod-address-functions-are-not-reached", False),
    (PROVIDER, put("before", "gateway", value=draw(5, 503)), "by-the-gateway-they-are", False),
    (PROVIDER, put("after", "list", value=draw(5)), "closed-by-the-policy", False),
    (PROVIDER, put("after", "list", value=draw(5, 0, error="read: timeout")), "closed-by-the-policy", None),
    (PROVIDER, put("after", "gateway", value=draw(5, 403)), "the-gateway-is-answered-all-the-same", False),
    (TRAILED, put("calls", value=draw(10, 503)), "answered", False),
    (TRAILED, put("logs", "function", value=[]), "by-the-function-s-proxy-once", False),
    (TRAILED, lambda one: one["logs"]["caller"].append(one["logs"]["caller"][0]), "by-the-caller-s-proxy-once", False),
    (TRAILED, put("logs", "into", 0, "downstream_peer_principal", value="-"), "on-its-way-into-the-gateway-once", False),
    (TRAILED, put("logs", "out", 3, "upstream_peer_principal", value=None), "on-its-way-out-of-the-gateway-once", False),
    (TRAILED, put("calls", "records", 2, "seen", "x-request-id", value=["other"]), "the-request-id-arrives", False),
    (TRAILED, put("context", "trace_id", value="def"), "the-trace-context-arrives", False),
    (TRAILED, put("calls", value=NONE), "the-trace-context-arrives", None),
    (TRAILED, lambda one: one["sighting"]["traces"]["3"].pop(1), "one-trace-by-way-of-the-gateway", False),
    (TRAILED, put("sighting", "traces", value={}), "one-trace-by-way-of-the-gateway", False),
    (TRAILED, put("sighting", "unanswered", value="Jaeger gave no answer"), "one-trace-by-way-of-the-gateway", None),
    (BOUNDS, put("asked", value=[3, 20, 20, 1]), "the-endpoint-wants-what-is-asked", False),
    (BOUNDS, put("asked", value=[]), "the-endpoint-wants-what-is-asked", None),
    (BOUNDS, put("fired", value=[11, 20, 20, 20, 20, 20]), "alerts-go-up-in-steps", False),
    (BOUNDS, put("fired", value=[5, 9, 13, 17, 21, 25]), "alerts-stop-at-the-maximum", False),
    (BOUNDS, put("fired", value=[3, 5, 7, 9, 10, 10]), "alerts-stop-at-the-maximum", False),
    (BOUNDS, put("fired", value=[5, 9]), "alerts-stop-at-the-maximum", None),
    (BOUNDS, put("resolved", value=[2]), "resolved-leaves-the-minimum", False),
    (ZERO, put("one", value=draw(5, 500)), "served-before", False),
    (ZERO, put("three", value=told("scaled", 60)), "three-pods-answer", False),
    (ZERO, put("three", value=draw(60, 503)), "three-pods-answer", None),
    (ZERO, put("zero", "pods", value=["p"]), "zero-pods-are-seen", False),
    (ZERO, put("again", value=draw(1, 503)), "the-next-call-is-answered", False),
    (ZERO, put("again", value=told("scaled", 1, pod="pod-1")), "the-next-call-is-answered", False),
    (ZERO, put("again", value=NONE), "the-next-call-is-answered", None),
    (ZERO, put("twin", value=draw(5, 503)), "the-twin-answers", False),
    (ZERO, put("twin_pods", "after", value=["other"]), "the-twin-keeps-its-pod", False),
    (SECRETS, put("answers", "sealed", value=draw(2, 500)), "who-names-it-reads-it", False),
    (SECRETS, put("answers", "sealed", value=draw(2, headers={"x-said": ["d2"]})), "who-names-it-reads-it", False),
    (SECRETS, put("answers", "unsealed", value=draw(2)), "who-does-not-has-none", False),
    (SECRETS, put("found", value="API_KEY"), "not-in-the-environment", False),
    (SECRETS, put("variables", value=0), "not-in-the-environment", None),
    (SECRETS, put("listed", "told", value=True), "listed-by-name-alone", False),
    (SECRETS, put("listed", "names", value=[]), "listed-by-name-alone", False),
    (SECRETS, put("early", value="a Deployment"), "not-made-before-its-secret", False),
    (SECRETS, put("answers", "awaiting", value=draw(2, 404)), "made-when-it-is-applied-anew", False),
    (SECRETS, put("answers", "awaiting", value=NONE), "made-when-it-is-applied-anew", None),
    (TIMES, put("calls", "hurried", value=draw(2, 408, latency_ms=7000.0)), "ended-by-the-watchdog", False),
    (TIMES, put("calls", "hurried", value=draw(2, 408, latency_ms=200.0)), "ended-by-the-watchdog", False),
    (TIMES, put("calls", "meshed", value=draw(2, 502, latency_ms=10000.0)), "ended-by-the-mesh", False),
    (TIMES, put("calls", "patient", value=draw(2, latency_ms=5000.0)), "ended-by-the-gateway", False),
    (TIMES, put("calls", "quick", value=draw(2, latency_ms=4000.0)), "quick-ones-are-answered", False),
    (TIMES, put("calls", "quick", value=NONE), "quick-ones-are-answered", None),
    (METRICS, put("scrapes", "counted", value=draw(1)), "the-port-is-closed-to-a-scraper", False),
    (METRICS, put("scrapes", "scraped", value=draw(1, 503)), "the-port-is-closed-to-a-scraper", None),
    (METRICS, put("counts", "scraped", "200 post", value=8), "counted-where-the-port-is-excluded", False),
    (METRICS, put("counts", "scraped", value={}), "counted-where-the-port-is-excluded", False),
    (METRICS, lambda one: one.update(answered={"counted": 0, "scraped": 0}, counts={"scraped": {}, "merged": {}}), "counted-where-the-port-is-excluded", None),
    (METRICS, put("counts", "merged", value={"200 post": 7}), "counted-where-the-mesh-merges-them", False),
    (METRICS, put("annotations", value={"prometheus.io.scrape": "true"}), "annotations-lead-to-the-mesh-s-port", False),
    (ASYNC, put("calls", "failing", value=draw(5, 500)), "every-one-is-accepted", False),
    (ASYNC, put("runs", value=[]), "each-is-run-once", False),
    (ASYNC, lambda one: one["runs"].append(one["runs"][0]), "each-is-run-once", False),
    (ASYNC, lambda one: one["called_back"].pop(0), "each-is-called-back-with-200", False),
    (ASYNC, lambda one: one["called_back"].append(one["called_back"][0]), "each-is-called-back-with-200", False),
    (ASYNC, put("called_back", -1, "x-function-status", value="200"), "failures-are-called-back-with-500", False),
    (ASYNC, put("calls", "worked", value=NONE), "each-is-called-back-with-200", None),
    (ASYNC, put("calls", "too-large", value=draw(1, 202)), "what-the-queue-does-not-take-is-refused", False),
    (ASYNC, put("calls", "nobody", value=draw(5, 500, latency_ms=9000.0)), "for-nobody-is-refused", False),
    (QUEUE, lambda one: one["runs"].pop(), "each-of-a-thousand-once", False),
    (QUEUE, lambda one: one["runs"].append(one["runs"][3]), "each-of-a-thousand-once", False),
    (QUEUE, put("calls", "before", value=draw(500, 500)), "every-one-is-accepted", False),
    (QUEUE, put("workers", "after", value=["w1"]), "another-worker-in-its-place", False),
    (QUEUE, put("workers", "after", value=[]), "another-worker-in-its-place", None),
    (QUEUE, put("in_hand", value={"begun": 1, "after": 1}), "what-was-in-hand-is-run-again", False),
    (QUEUE, put("in_hand", value={"begun": 0, "after": 1}), "what-was-in-hand-is-run-again", None),
    (OUTAGE, put("asynchronous", "after", value=draw(5, 500)), "accepted-before-and-afterwards", False),
    (OUTAGE, put("asynchronous", "without", value=draw(5, 202)), "refused-without-the-queue", False),
    (OUTAGE, put("asynchronous", "without", value=draw(5, 500, latency_ms=30000.0)), "refused-without-the-queue", False),
    (OUTAGE, put("synchronous", "without", value=draw(5, 503)), "synchronous-calls-lose-nothing", False),
    (OUTAGE, put("runs", value=[]), "run-once-afterwards", False),
    (FAULTS, put("no_image", "pods", value=""), "the-missing-image-is-named", False),
    (FAULTS, put("calls", "no-image", value=draw(2, 0, error="read: timeout", latency_ms=20000.0)), "a-call-of-it-is-ended", False),
    (FAULTS, put("calls", "throws", value=draw(2)), "who-throws-answers-500", False),
    (FAULTS, put("calls", "throws", value=draw(2, 500, body=b"exit status 1")), "who-throws-is-told", False),
    (FAULTS, put("calls", "nobody", value=draw(2, 503)), "a-function-that-never-was-is-not-found", False),
    (FAULTS, put("calls", "lonely-list", value=draw(2)), "without-the-operator-nothing-is-listed", False),
    (FAULTS, put("calls", "lonely-call", value=draw(2, 404, body=b"404 page not found")), "without-the-operator-it-says-why", False),
    (FAULTS, put("calls", "lonely-call", value=draw(2)), "without-the-operator-nobody-is-found", False),
    (FAULTS, put("calls", "lonely-call", value=NONE), "without-the-operator-nobody-is-found", None),
    (FAULTS, put("calls", "twin", value=draw(2, 500)), "the-twin-is-answered", False),
    (UPLOADS, put("good", "calls", value=draw(6, body=b"echo")), "each-upload-is-answered-with-its-picture", False),
    (UPLOADS, put("bad", "calls", value=draw(6)), "each-failing-upload-is-told", False),
    (UPLOADS, put("good", "forks", value=7), "each-upload-runs-it-once", False),
    (UPLOADS, put("bad", "logged", value=3 * ids(draw(6))), "each-failing-upload-runs-it-once", False),
    (UPLOADS, put("bad", "calls", value=NONE), "each-failing-upload-runs-it-once", None),
    (UPLOADS, put("twin", value=6), "nothing-else-is-run", False),
    (SCALED, put("looks", 0, "wanted", value=2), "one-pod-to-begin-with", False),
    (SCALED, put("looks", value=[{"at": 1.0, "wanted": 1, "loaded": True}]), "more-pods-under-load", False),
    (SCALED, put("looks", value=[{"at": 1.0, "wanted": 1, "loaded": True}]), "its-minimum-at-the-end", None),
    (SCALED, put("looks", 1, "wanted", value=21), "never-beyond-its-bounds", False),
    (SCALED, put("looks", 3, "wanted", value=5), "its-minimum-at-the-end", False),
    (SCALED, put("load", value=draw(300, 503)), "hardly-a-call-is-lost", False),
    (SCALED, put("load", value=NONE), "hardly-a-call-is-lost", None),
]


@pytest.mark.parametrize(("name", "change", "claim", "held"), CASES, ids=[f"{name.partition('.')[2]}-{claim}-{held}-{at}" for at, (name, _, claim, held) in enumerate(CASES)])
def test_a_claim_is_refuted_and_left_open_where_it_should_be(name: str, change: Callable[[Evidence], object], claim: str, *, held: bool | None) -> None:
    assert outcome(name, change)[claim] is held


def test_every_claim_can_be_refuted() -> None:
    refutable = {(name, claim) for name, _, claim, held in CASES if held is False}
    # By the judges that all areas share, whose own self-tests refute them.
    shared = {(API, "its-calls-are-answered"), (ENTRY, "mutual-tls-beside-it")}

    assert {(name, claim) for name in GOOD for claim in outcome(name)} - refutable == shared


LISTS = st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=20)


@given(asked=LISTS, data=st.data())
def test_what_is_run_once_each_holds_in_any_order_and_nothing_else_does(asked: list[int], data: st.DataObject) -> None:
    sent = [request_id(one) for one in asked]
    ran = data.draw(st.permutations(sent))
    one = data.draw(st.sampled_from(sent))

    assert faas.each_once("x", sent, ran).held is True
    assert faas.each_once("x", sent, [each for each in ran if each != one]).held is False
    assert faas.each_once("x", sent, [*ran, one]).held is False
    assert faas.each_once("x", sent, [*ran, one], again=1).held is True
    assert faas.each_once("x", sent, [*ran, one, one], again=1).held is False
    assert faas.each_once("x", sent, [*ran, request_id(99)]).held is False
    assert faas.each_once("x", [], []).held is None


@given(after=st.floats(0, 20), within=st.floats(0, 20), took=st.floats(0, 40))
def test_a_bound_holds_exactly_within_it(after: float, within: float, took: float) -> None:
    claim = faas.bounded("x", draw(latency_ms=1000 * took), 200, after_s=after, within_s=within)

    assert claim.held is (after <= 1000 * took / 1000 <= within)
