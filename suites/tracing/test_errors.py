"""Errors in traces: which spans tell that something went wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from clusters.components.jaeger.client import CLIENT, SERVER, JaegerClient
from suites.support import tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import W3C, Chain, Hop
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

REQUESTS = 10
# What the third function is asked to answer, and what the other two make of it.
ASKED = {"answer": (200, 200), "refusal": (404, 200), "error": (500, 502)}


MARKED = {"answer": "no-error-is-told-of-an-answer", "refusal": "an-error-of-whom-is-refused-alone", "error": "an-error-of-both-sides-of-every-hop"}


# Finding: an answer of 404 is an error of the span of whom it refuses, and of no other: of the taker's span it is none. So OpenTelemetry has it
# (semantic conventions of HTTP spans, status). What the next function makes of it, 200, hides it from everybody further up.
def judge(evidence: Evidence) -> Verdict:
    """The third function's error is told of every span, its refusal of the one refused, its answer of none."""
    sent, sighting, services = evidence["sent"], evidence["sighting"], evidence["services"]
    return Verdict.of(
        *(tracing.each_whole(f"each-{asked}-is-one-whole-trace", sent[asked], sighting, hops(services, asked), least=REQUESTS) for asked in ASKED),
        *(tracing.status_told(f"both-sides-tell-the-status-of-each-{asked}", part(sighting, sent[asked]), hops(services, asked)) for asked in ASKED),
        *(errors(MARKED[asked], part(sighting, sent[asked]), hops(services, asked)) for asked in ASKED),
    )


def hops(services: Sequence[str], asked: str) -> list[Hop]:
    """Return the chain with the status of each hop's answer: the last is the third function's own, the others what is made of it."""
    last, before = ASKED[asked]
    *first, end = tracing.hops_of(services, before)
    return [*first, Hop(end.caller, end.callee, last)]


def part(sighting: Mapping[str, Any], sent: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what was seen of some requests only."""
    ids = {one["trace_id"] for one in sent}
    return {**sighting, "traces": {one: trace for one, trace in sighting["traces"].items() if one in ids}}


def errors(name: str, sighting: Mapping[str, Any], told: Sequence[Hop]) -> Claim:
    """Claim that exactly those spans are marked as errors, by OpenTelemetry's status and by the tag that Jaeger's page looks for, which tell of one: 5xx of either side, 4xx of the caller's."""
    wanted = {
        (service, kind): ("ERROR", True) if hop.status >= (400 if kind == CLIENT else 500) else ("none", False)
        for hop in told for service, kind in ((hop.caller, CLIENT), (hop.callee, SERVER))
    }
    spans = [span for trace in sighting["traces"].values() for span in tracing.spans_of(trace)]
    wrong, marked = Counter[str](), 0
    for span in spans:
        mark = str(span.tags.get("otel.status_code", "none")), bool(span.tags.get("error", False))
        marked += mark == ("ERROR", True)
        if mark != wanted.get((span.service, span.kind)):
            wrong[f"the {span.kind} span of {span.service} has status {mark[0]} and {'an' if mark[1] else 'no'} error tag"] += 1
    if not spans:
        return Claim(name, held=None, said="there is no span")
    seen = "; ".join(f"{count} x {what}" for what, count in wrong.most_common(3))
    return Claim(name, held=not wrong, said=f"of {len(spans)} spans {marked} are marked as errors{'; ' + seen if seen else ''}", expected="as its status says", got=seen)


@pytest.mark.usefixtures("otlp_collector")
@requirement("tracing.errors", level="MUST", judge=judge)
def test_errors_are_told(functions: Chain, caller: Caller, world: World, jaeger: JaegerClient, manifests: Manifests, decide: Decide) -> None:
    """An answer of 500 marks the spans of both sides of every hop that it comes back through as errors, one of 404 that of whom it refuses alone, and each span tells its status."""
    manifests.apply("errors.yaml")
    # One that does not look up the flags of every call that fails.
    plain = Caller(world.kube, caller.namespace, caller.pod)
    sent = {
        asked: tracing.send(plain, functions.url, REQUESTS, propagation=W3C, sampled="1", headers=[("x-observed-status", f"third={status}")])
        for asked, (status, _) in ASKED.items()
    }

    decide(services=functions.services, sent=sent, sighting=tracing.sighted(jaeger, [one for some in sent.values() for one in some], spans=6))
