"""Retries in traces: what is sent again shows where it arrives, not where it is sent."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from clusters.components.jaeger.client import CLIENT, SERVER, JaegerClient
from suites.support import tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import B3, STATUS, Chain
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller

REQUESTS = 10


# Finding: Envoy makes one span for a request and none for an attempt (`spawn_upstream_span`, which Istio sets for gateways alone could).
# The caller's span tells the last answer only: 200, and nothing of what came before. A retry is seen by counting server spans below it.
def judge(evidence: Evidence) -> Verdict:
    """A request that is sent twice has one client span with two server spans below it, one that is not has one of each."""
    repeated, sighting, services = evidence["repeated"], evidence["sighting"], evidence["services"]
    return Verdict.of(
        attempts("one-span-for-the-caller-and-one-for-each-attempt", repeated, sighting, services),
        tracing.each_whole("one-span-each-where-nothing-is-repeated", evidence["once"], sighting, tracing.hops_of(services), least=REQUESTS),
        tracing.parents_first("parents-before-children", sighting),
    )


def attempts(name: str, sent: Sequence[Mapping[str, Any]], sighting: Mapping[str, Any], services: Sequence[str]) -> Claim:
    """Claim that the call of the second function by the first was made twice in each trace: one client span of status 200, and below it a server span of 503, then one of 200."""
    _, first, second, _ = services
    seen = Counter[str]()
    for one in sent:
        spans = tracing.spans_of(sighting["traces"].get(one["trace_id"], ()))
        calls = [span for span in spans if (span.service, span.kind) == (first, CLIENT)]
        taken = [span for span in spans if (span.service, span.kind) == (second, SERVER) and span.parent_id in {call.span_id for call in calls}]
        seen[f"client {_statuses(calls)}, server {_statuses(taken)}, {len(spans)} spans"] += 1
    wanted = "client 200, server 503 200, 7 spans"
    told = "; ".join(f"{count} x {what}" for what, count in seen.most_common(3))
    if sighting["unanswered"] or len(sent) < REQUESTS or not all(one["status"] for one in sent):
        return Claim(name, held=None, said=sighting["unanswered"] or f"of {len(sent)} requests some got no answer")
    return Claim(name, held=set(seen) == {wanted}, said=f"of {len(sent)} requests {told}", expected=wanted, got=told)


def _statuses(spans: Sequence[tracing.Span]) -> str:
    return " ".join(str(span.tags.get(STATUS, "none")) for span in spans) or "none"


@requirement("tracing.retries", level="MUST", judge=judge)
def test_a_retry(functions: Chain, caller: Caller, jaeger: JaegerClient, manifests: Manifests, decide: Decide) -> None:
    """A call that its proxy makes a second time is one client span and two server spans below it, the first of them with the error."""
    manifests.apply("retries.yaml")
    repeated = tracing.send(caller, functions.url, REQUESTS, propagation=B3, headers=[("x-observed-fail-attempts", "second=1")])
    once = tracing.send(caller, functions.url, REQUESTS, propagation=B3)

    # What was sent twice has a span more, which comes as soon as the others do.
    decide(services=functions.services, repeated=repeated, once=once, sighting=tracing.sighted(jaeger, [*repeated, *once], spans=6))
