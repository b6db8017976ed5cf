"""A function that does not forward the context: the mesh alone does not hold a trace together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from clusters.components.jaeger.client import JaegerClient
from suites.support import tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import B3, Chain, Hop
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller

REQUESTS = 10


def judge(evidence: Evidence) -> Verdict:
    """The trace of a request ends at the function that forwards nothing; what that calls is a trace that nobody knows of."""
    sent, sighting, services = evidence["sent"], evidence["sighting"], evidence["services"]
    *before, last = tracing.hops_of(services)
    return Verdict.of(
        tracing.each_whole("the-request-s-trace-ends-where-it-is-not-forwarded", sent, sighting, before, least=REQUESTS),
        others("the-rest-is-a-trace-of-its-own", sent, evidence["others"], last),
    )


def others(name: str, sent: Sequence[Mapping[str, Any]], traces: Sequence[Sequence[Mapping[str, Any]]], hop: Hop) -> Claim:
    """Claim that there are as many traces beside the requests' own as requests, each of the last hop alone and without a parent."""
    own = {one["trace_id"] for one in sent}
    beside = [spans for spans in map(tracing.spans_of, traces) if not own & {span.trace_id for span in spans}]
    flaws = Counter(wrong for spans in beside if (wrong := tracing.flaw(spans, "", [hop])))
    said = f"{len(beside)} traces beside those of {len(sent)} requests, {flaws.total()} of them other than the call of {hop.callee} by {hop.caller} alone"
    return Claim(name, held=len(beside) == len(sent) and not flaws, said=said, expected=f"{len(sent)} traces of one hop", got=f"{len(beside)}, {dict(flaws)}")


@requirement("tracing.broken-chain", level="MUST", judge=judge)
def test_a_function_that_forwards_nothing(functions: Chain, caller: Caller, jaeger: JaegerClient, manifests: Manifests, decide: Decide) -> None:
    """Where a function does not forward the trace's headers, a request's trace ends with it, and what it calls becomes another trace."""
    manifests.apply("broken_chain.yaml")
    window = tracing.Window(jaeger, functions.services[-1], spans=2)
    sent = tracing.send(caller, functions.url, REQUESTS, propagation=B3)
    sighting = tracing.sighted(jaeger, sent, spans=4)

    decide(services=functions.services, sent=sent, sighting=sighting, others=[list(trace) for trace in window.every()])
