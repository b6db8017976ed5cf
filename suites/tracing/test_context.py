"""Trace context: a chain of functions that forward it is one trace, by either of the two propagations."""

import pytest

from clusters.components.jaeger.client import JaegerClient
from suites.support import tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import B3, W3C, Chain
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller

REQUESTS = 40
A_FEW = 10


def judge(evidence: Evidence) -> Verdict:
    """Each request is one trace, from its caller to the last function, in order, and with the status of its answers."""
    sent, sighting = evidence["sent"], evidence["sighting"]
    hops = tracing.hops_of(evidence["services"])
    return Verdict.of(
        tracing.each_whole("each-request-is-one-whole-trace", sent, sighting, hops, least=REQUESTS),
        tracing.parents_first("parents-before-children", sighting),
        tracing.status_told("both-sides-tell-the-status", sighting, hops),
    )


def judge_w3c(evidence: Evidence) -> Verdict:
    """As above, and what says that it is not to be sampled is not."""
    unsampled = tracing.none_seen("unsampled-is-left-out", evidence["unsampled"], evidence["sighting"], control=evidence["sent"])
    return Verdict.of(*judge(evidence).claims, unsampled)


@pytest.mark.usefixtures("otlp_collector")
@requirement("tracing.w3c", level="MUST", judge=judge_w3c)
def test_w3c(functions: Chain, caller: Caller, jaeger: JaegerClient, manifests: Manifests, decide: Decide) -> None:
    """By OTLP and with W3C's context, every request of a chain of three functions in two languages is one whole trace under the id that it came with, and one that is not to be sampled is none."""
    manifests.apply("context.yaml", provider="faasmesh-otlp")
    unsampled = tracing.send(caller, functions.url, A_FEW, propagation=W3C, sampled="0")
    sent = tracing.send(caller, functions.url, REQUESTS, propagation=W3C, sampled="1")
    sighting = tracing.sighted(jaeger, [*unsampled, *sent], spans=6, whole={one.trace_id for one in sent})

    decide(services=functions.services, sent=sent, unsampled=unsampled, sighting=sighting)


@pytest.mark.usefixtures("otlp_collector")
@requirement("tracing.b3", level="MUST", judge=judge)
def test_b3(functions: Chain, caller: Caller, jaeger: JaegerClient, manifests: Manifests, decide: Decide) -> None:
    """By Zipkin and with B3's context, every request of a chain of three functions in two languages is one whole trace under the id that it came with.

    The requests bring no decision: that they are sampled is the mesh's own.
    """
    manifests.apply("context.yaml", provider="faasmesh-zipkin")
    sent = tracing.send(caller, functions.url, REQUESTS, propagation=B3)

    decide(services=functions.services, sent=sent, sighting=tracing.sighted(jaeger, sent, spans=6))
