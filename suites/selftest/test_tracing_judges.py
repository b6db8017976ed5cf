"""Self-tests of the judges of traces: each holds on what is right, and each of its claims can be refuted and left open."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from suites.support import requirements
from suites.support.tracing import Hop, hops_of

FOUND = requirements.discover()
SERVICES = ["caller.here", "first.here", "second.here", "third.here"]
Evidence = dict[str, Any]


def request(number: int, *, status: int = 200) -> Evidence:
    return {"trace_id": f"{number:032x}", "parent_id": f"b{number:015x}", "request_id": f"{number:08x}-0000-4000-8000-000000000000", "status": status, "answered_s": 1.0}


def requests(first: int, count: int) -> list[Evidence]:
    return [request(number) for number in range(first, first + count)]


def span(trace_id: str, span_id: str, parent_id: str, service: str, kind: str, number: int, status: int, **tags: Any) -> Evidence:
    return {
        "trace_id": trace_id, "span_id": span_id, "parent_id": parent_id, "service": service, "operation": "call", "kind": kind, "started_us": 1000 * number,
        "duration_us": 10_000, "tags": {"http.status_code": str(status), **tags},
    }


def spans(one: Evidence, hops: list[Hop], *, parent_id: str | None = None, **tags: Any) -> list[Evidence]:
    made: list[Evidence] = []
    above = one["parent_id"] if parent_id is None else parent_id
    for hop in hops:
        for service, kind in ((hop.caller, "client"), (hop.callee, "server")):
            made.append(span(one["trace_id"], f"5{len(made):015x}", above, service, kind, len(made), hop.status, **{"guid:x-request-id": one["request_id"], **tags}))
            above = made[-1]["span_id"]
    return made


def seen(*some: tuple[list[Evidence], list[Hop], Evidence]) -> Evidence:
    traces = {one["trace_id"]: spans(one, hops, **tags) for sent, hops, tags in some for one in sent}
    return {"traces": traces, "whole_after_s": dict.fromkeys(traces, 2.0), "unanswered": ""}


HOPS = hops_of(SERVICES)
CHAIN = {"services": SERVICES, "sent": requests(1, 40), "unsampled": requests(100, 10), "sighting": seen((requests(1, 40), HOPS, {}))}
SHARED = requests(1, 2250)
DECIDED = {f"{decision}-at-{percentage}": requests(100 * at + 1000 * percentage, 10) for at, decision in enumerate(("undecided", "decided-against", "decided-for")) for percentage in (0, 100)}
ERROR = {"error": True, "otel.status_code": "ERROR"}
ASKED = {"answer": requests(1, 10), "refusal": requests(100, 10), "error": requests(200, 10)}


def ending(status: int, before: int) -> list[Hop]:
    return [*hops_of(SERVICES[:3], before), Hop(SERVICES[2], SERVICES[3], status)]


def refused(sighting: Evidence) -> Evidence:
    """Mark what a refusal marks: the span of whom it refuses."""
    for one in ASKED["refusal"]:
        sighting["traces"][one["trace_id"]][4]["tags"].update(ERROR)
    return sighting


def repeated(one: Evidence) -> list[Evidence]:
    made = spans(one, HOPS)
    again = span(one["trace_id"], "a" * 16, made[2]["span_id"], SERVICES[2], "server", 3, 503)
    return [*made[:3], again, *made[3:]]


def retried() -> Evidence:
    twice, once = requests(1, 10), requests(100, 10)
    sighting = seen((once, HOPS, {}))
    sighting["traces"] |= {one["trace_id"]: repeated(one) for one in twice}
    return {"services": SERVICES, "repeated": twice, "once": once, "sighting": sighting}


def lost() -> Evidence:
    sent, first = requests(1, 20), requests(1, 10)
    look = {"sent": sent, "seconds": 8.0, "patience_s": 18.0, "sighting": {**seen((first, HOPS, {})), "unanswered": "Jaeger here/it has no running pod, of 0; it last showed 10 of 20 traces whole and 0 in part"}}
    absent = {"sent": first, "seconds": 3.2, "patience_s": 3.0, "sighting": {"traces": {}, "whole_after_s": {}, "unanswered": "Jaeger here/it has no running pod, of 0; it last showed 0 of 10 traces whole"}}
    return {"where": "Jaeger here/it", "services": SERVICES, "absent": absent, "lost": look}


GOOD: dict[str, Evidence] = {
    "tracing.w3c": CHAIN,
    "tracing.b3": CHAIN,
    "tracing.sampling": CHAIN,
    "tracing.sampling-share": {
        "services": SERVICES, "draw": {"count": len(SHARED), "records": [{"index": at, "status": 200, "version": "first", "request_id": one["request_id"]} for at, one in enumerate(SHARED)]},
        "traces": [spans(one, HOPS, parent_id="") for one in SHARED[:225]],
    },
    "tracing.sampling-decision": {
        "services": SERVICES, "sent": DECIDED,
        "sighting": seen(*((DECIDED[name], HOPS, {}) for name in ("undecided-at-100", "decided-for-at-0", "decided-for-at-100"))),
    },
    "tracing.errors": {
        "services": SERVICES, "sent": ASKED,
        "sighting": refused(seen((ASKED["answer"], HOPS, {}), (ASKED["refusal"], ending(404, 200), {}), (ASKED["error"], ending(500, 502), ERROR))),
    },
    "tracing.retries": retried(),
    "tracing.broken-chain": {
        "services": SERVICES, "sent": requests(1, 10), "sighting": seen((requests(1, 10), HOPS[:2], {})),
        "others": [*(spans(one, HOPS[2:], parent_id="") for one in requests(100, 10)), spans(request(1), HOPS[:2])],
    },
    "tracing.jaeger": {
        "services": SERVICES, "sent": requests(1, 10), "sighting": seen((requests(1, 10), HOPS, {})), "spec": {"strategy": "allinone", "collector": {"maxReplicas": 3}, "storage": {"type": "memory"}},
        "instance": {
            "phase": "Running", "version": "1.65.0", "autoscalers": [], "services": [],
            "deployments": {"serverless-jaeger": {"component": "all-in-one", "replicas": 1, "image": "i", "arguments": ["--memory.max-traces=100000"]}},
        },
    },
    "tracing.max-traces": {"sent": [f"t{at}" for at in range(50)], "at_bound": [f"t{at}" for at in range(20)], "after": [f"t{at}" for at in range(30, 50)]},
    "tracing.collector-lost": lost(),
}


def outcome(name: str, change: Callable[[Evidence], object] = lambda _: None) -> dict[str, bool | None]:
    evidence = copy.deepcopy(GOOD[name])
    change(evidence)
    return {claim.name: claim.held for claim in FOUND[name].judge(evidence).claims}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_holds(name: str) -> None:
    assert set(outcome(name).values()) == {True}


def test_every_judge_of_the_area_is_tried() -> None:
    assert {name for name in FOUND if name.startswith("tracing.")} == set(GOOD)


def put(*path: Any, value: Any) -> Callable[[Evidence], object]:
    """Return a change that sets what lies at a path."""

    def change(evidence: Evidence) -> None:
        at: Any = evidence
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


def traces(change: Callable[[dict[str, list[Evidence]]], object]) -> Callable[[Evidence], object]:
    return lambda evidence: change(evidence["sighting"]["traces"])


def first(found: dict[str, list[Evidence]]) -> list[Evidence]:
    return next(iter(found.values()))


NOBODY = put("sighting", "unanswered", value="Jaeger here/it does not answer; it last showed 3 of 40 traces whole")
W3C, B3, REFERENCE, SHARE, DECISION, ERRORS, RETRIES, BROKEN, JAEGER, MAX_TRACES, LOST = GOOD
WHOLE = "each-request-is-one-whole-trace"
CASES = [
    (W3C, traces(lambda found: first(found).pop()), WHOLE, False),
    (W3C, traces(lambda found: found.pop(f"{1:032x}")), WHOLE, False),
    (W3C, NOBODY, WHOLE, None),
    (W3C, lambda evidence: evidence["sent"].pop(), WHOLE, None),
    (W3C, traces(lambda found: found.__setitem__(f"{100:032x}", spans(request(100), HOPS))), "unsampled-is-left-out", False),
    (W3C, NOBODY, "unsampled-is-left-out", None),
    (B3, traces(lambda found: first(found)[2].__setitem__("started_us", -5000)), "parents-before-children", False),
    (B3, put("sighting", "traces", value={}), "parents-before-children", None),
    (REFERENCE, traces(lambda found: first(found)[2]["tags"].__setitem__("http.status_code", "0")), "both-sides-tell-the-status", False),
    (SHARE, put("draw", "records", 0, "status", value=503), "every-request-answered", False),
    (SHARE, put("traces", value=[spans(one, HOPS, parent_id="") for one in SHARED[:56]]), "a-tenth-is-traced", False),
    (SHARE, put("traces", value=[spans(one, HOPS, parent_id="") for one in SHARED[:150]]), "a-tenth-is-traced", False),
    (SHARE, lambda evidence: evidence["draw"]["records"].pop(), "a-tenth-is-traced", None),
    (SHARE, lambda evidence: evidence["traces"][3].pop(), "what-is-traced-is-whole", False),
    (SHARE, lambda evidence: evidence["traces"].append(spans(SHARED[0], HOPS, parent_id="")), "what-is-traced-is-whole", False),
    (SHARE, put("traces", value=[]), "what-is-traced-is-whole", None),
    (DECISION, traces(lambda found: found.__setitem__(DECIDED["undecided-at-0"][0]["trace_id"], [span("t", "s", "", "x", "client", 0, 200)])), "at-0-undecided-is-left-out", False),
    (DECISION, traces(lambda found: found.__setitem__(DECIDED["decided-against-at-100"][0]["trace_id"], [span("t", "s", "", "x", "client", 0, 200)])), "at-100-decided-against-is-left-out", False),
    (DECISION, traces(lambda found: found.pop(DECIDED["decided-for-at-100"][0]["trace_id"])), "at-0-undecided-is-left-out", None),
    (DECISION, traces(lambda found: found.pop(DECIDED["decided-for-at-0"][0]["trace_id"])), "at-0-decided-for-is-traced", False),
    (DECISION, NOBODY, "at-100-undecided-is-traced", None),
    (ERRORS, traces(lambda found: found[ASKED["error"][0]["trace_id"]][0]["tags"].pop("error")), "an-error-of-both-sides-of-every-hop", False),
    (ERRORS, traces(lambda found: found[ASKED["refusal"][0]["trace_id"]][0]["tags"].update(ERROR)), "an-error-of-whom-is-refused-alone", False),
    (ERRORS, traces(lambda found: found[ASKED["answer"][0]["trace_id"]][0]["tags"].update(ERROR)), "no-error-is-told-of-an-answer", False),
    (ERRORS, traces(lambda found: found[ASKED["refusal"][0]["trace_id"]][4]["tags"].pop("error")), "an-error-of-whom-is-refused-alone", False),
    (ERRORS, put("sighting", "traces", value={}), "no-error-is-told-of-an-answer", None),
    (RETRIES, traces(lambda found: found.__setitem__(f"{1:032x}", spans(request(1), HOPS))), "one-span-for-the-caller-and-one-for-each-attempt", False),
    (RETRIES, traces(lambda found: found.__setitem__(f"{100:032x}", repeated(request(100)))), "one-span-each-where-nothing-is-repeated", False),
    (RETRIES, NOBODY, "one-span-for-the-caller-and-one-for-each-attempt", None),
    (BROKEN, traces(lambda found: found.__setitem__(f"{1:032x}", spans(request(1), HOPS))), "the-request-s-trace-ends-where-it-is-not-forwarded", False),
    (BROKEN, lambda evidence: evidence["others"].pop(0), "the-rest-is-a-trace-of-its-own", False),
    (BROKEN, lambda evidence: evidence["others"][0].pop(), "the-rest-is-a-trace-of-its-own", False),
    (JAEGER, put("instance", "deployments", "serverless-jaeger", "component", value="query"), "all-in-one-in-place-of-production", False),
    (JAEGER, put("instance", "autoscalers", value=["serverless-jaeger-collector"]), "no-collector-to-scale", False),
    (JAEGER, put("instance", "deployments", "serverless-jaeger", "arguments", value=[]), "keeps-as-many-traces-as-declared", False),
    (JAEGER, put("spec", "strategy", value="production"), "the-resource-is-rewritten", False),
    (JAEGER, put("sighting", "traces", value={}), "traces-of-the-mesh-are-in-it", False),
    (MAX_TRACES, lambda evidence: evidence["at_bound"].pop(0), "as-many-as-declared-are-kept", False),
    (MAX_TRACES, lambda evidence: evidence["after"].insert(0, "t29"), "the-oldest-are-gone", False),
    (MAX_TRACES, lambda evidence: evidence["after"].pop(0), "the-newest-are-there", False),
    (LOST, put("absent", "sighting", "unanswered", value=""), "absent-at-start-is-named", False),
    (LOST, put("lost", "sighting", "unanswered", value=""), "lost-half-way-is-named", False),
    (LOST, put("lost", "sighting", "unanswered", value="Jaeger here/it has no running pod; it last showed 0 of 20"), "says-what-it-saw-last", False),
    (LOST, put("absent", "seconds", value=14.0), "told-in-bounded-time", False),
    (LOST, put("lost", "sighting", "unanswered", value=""), "a-missing-witness-settles-nothing", False),
    (LOST, put("lost", "sighting", "traces", value={}), "seen-while-it-is-there", False),
    (LOST, put("absent", "sent", 0, "status", value=503), "requests-are-answered-all-the-same", False),
]


@pytest.mark.parametrize(("name", "change", "claim", "held"), CASES, ids=[f"{name}-{claim}-{held}-{at}" for at, (name, _, claim, held) in enumerate(CASES)])
def test_a_claim_is_refuted_and_left_open_where_it_should_be(name: str, change: Callable[[Evidence], object], claim: str, *, held: bool | None) -> None:
    assert outcome(name, change)[claim] is held
