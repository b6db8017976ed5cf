"""Sampling a share: the mesh decides for each request once, and every proxy on its way keeps to it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from clusters.components.jaeger.client import JaegerClient
from suites.support import judges, tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import Chain
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.records import join_key

SHARE = 0.1
ALPHA = 1e-6
DETECTS = 0.05
# The band is 159 to 298 of them.
REQUESTS = 2250
CONCURRENCY = 4


def judge(evidence: Evidence) -> Verdict:
    """A tenth of the requests is traced, each of these once and whole."""
    draw, traces = evidence["draw"], evidence["traces"]
    traced = tracing.request_ids(traces)
    told = judges.labelled(draw, lambda record: "traced" if join_key(record["request_id"]) in traced else "untraced")
    return Verdict.of(
        judges.every_status("every-request-answered", draw, 200, least=REQUESTS),
        judges.split("a-tenth-is-traced", told, declared={"traced": SHARE, "untraced": 1 - SHARE}, alpha=ALPHA),
        whole("what-is-traced-is-whole", traces, evidence["services"]),
    )


def whole(name: str, traces: Sequence[Sequence[Mapping[str, Any]]], services: Sequence[str]) -> Claim:
    """Claim that each trace is a whole chain that begins at the caller, and that no two are of one request."""
    flaws = Counter(wrong for trace in traces if (wrong := tracing.flaw(tracing.spans_of(trace), "", tracing.hops_of(services))))
    requests = tracing.request_ids(traces)
    if len(requests) < len(traces):
        flaws["a request in two traces"] = len(traces) - len(requests)
    if flaws:
        seen = "; ".join(f"{count} x {what}" for what, count in flaws.most_common(3))
        return Claim(name, held=False, said=f"of {len(traces)} traces {seen}", expected="whole chains, one a request", got=seen)
    if not traces:
        return Claim(name, held=None, said="there is no trace")
    return Claim(name, held=True, said=f"each of {len(traces)} traces is the whole chain of a request")


@requirement("tracing.sampling-share", level="MUST", judge=judge, alpha=ALPHA, detects=DETECTS)
def test_a_tenth(functions: Chain, caller: Caller, jaeger: JaegerClient, manifests: Manifests, decide: Decide) -> None:
    """With a sampling of 10 %, a tenth of the requests that bring no decision is traced, each of these by every proxy on its way, and the others by none."""
    manifests.apply("sampling_share.yaml")
    traces = tracing.Window(jaeger, functions.services[0], spans=6)
    draw = caller.draw(functions.url, count=REQUESTS, concurrency=CONCURRENCY, keep_headers=(), keep_seen=())

    found = traces.of(record.request_id for record in draw.records)

    decide(services=functions.services, draw=draw, traces=[list(trace) for trace in found])
