"""A decision that a request brings along: the mesh keeps to it, whatever its own share is."""

from itertools import product

from clusters.components.jaeger.client import JaegerClient
from suites.support import tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import B3, Chain
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller

REQUESTS = 10
PERCENTAGES = (0, 100)
# By the word for it: what B3's header says, and which requests are traced at which percentage.
DECISIONS = {"undecided": "", "decided-against": "0", "decided-for": "1"}
TRACED = {("undecided", 100), ("decided-for", 0), ("decided-for", 100)}


def judge(evidence: Evidence) -> Verdict:
    """What brings a decision is treated by it, at either percentage; what brings none is treated by the percentage."""
    sent, sighting, hops = evidence["sent"], evidence["sighting"], tracing.hops_of(evidence["services"])
    control = sent["decided-for-at-100"]

    def claim(decision: str, percentage: int) -> Claim:
        requests = sent[f"{decision}-at-{percentage}"]
        if (decision, percentage) in TRACED:
            return tracing.each_whole(f"at-{percentage}-{decision}-is-traced", requests, sighting, hops, least=REQUESTS)
        return tracing.none_seen(f"at-{percentage}-{decision}-is-left-out", requests, sighting, control=control)

    return Verdict.of(*(claim(decision, percentage) for decision, percentage in product(DECISIONS, PERCENTAGES)))


@requirement("tracing.sampling-decision", level="MUST", judge=judge)
def test_a_decision_that_was_made(functions: Chain, caller: Caller, jaeger: JaegerClient, manifests: Manifests, decide: Decide) -> None:
    """A request that brings a decision is traced by that decision, at a sampling of 0 % and of 100 % alike; one without is traced never at 0 % and always at 100 %."""
    sent = {}
    for percentage in PERCENTAGES:
        manifests.apply("sampling_decision.yaml", percentage=percentage)
        for decision, header in DECISIONS.items():
            sent[f"{decision}-at-{percentage}"] = tracing.send(caller, functions.url, REQUESTS, propagation=B3, sampled=header)
    whole = [one.trace_id for decision, percentage in TRACED for one in sent[f"{decision}-at-{percentage}"]]
    everything = [one for requests in sent.values() for one in requests]

    decide(services=functions.services, sent=sent, sighting=tracing.sighted(jaeger, everything, spans=6, whole=whole))
