"""What of a request arrives at a Knative function: trace context, the host, the caller's headers, and none that lie about the route."""

from collections.abc import Iterator, Mapping
from typing import Any

from clusters.components.knative.client import local_host
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.records import join_key

CALLS = 10
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
# W3C Trace Context, section 3.2, B3 propagation (multiple headers), and a header of the reference world's.
SENT = {
    "traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=value", "x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1",
    "user-type": "premium",
}
# By these the gateway tells the activator which revision is meant; the function is not shown them.
ROUTING = ("knative-serving-namespace", "knative-serving-revision")
ACTIVATOR = "http://activator-service.knative-serving/"


# Finding: the request id does not arrive. Knative's gateway is an edge to Envoy (`useRemoteAddress`), which gives every request that comes in
# an id of its own, also one from a caller of the same mesh; and it names that caller's pod in X-Envoy-External-Address. What is to be
# followed through Knative needs the trace's id.
# Finding: the activator believes whoever calls it. A caller that names a revision by Knative's own two headers reaches it without a gateway,
# in whatever namespace it is and by the activator's identity, so that a policy that lets the activator in lets this caller in; at
# a gateway the same headers lead nobody astray.
def judge(evidence: Evidence) -> Verdict:
    """Both functions see what was sent and their own host, not the caller's id; forged routing fails at the gateway and works at the activator."""
    return Verdict.of(
        *(claim for name in ("relayed", "direct") for claim in arrived(name, evidence["hosts"][name], evidence["calls"][name])),
        judges.only_version("forged-at-the-gateway-ignored", evidence["forged"], "relayed", least=CALLS),
        judges.only_version("forged-at-the-activator-believed", evidence["activator"], "direct", least=CALLS),
        judges.every_status("activator-needs-a-revision", evidence["nobody"], 404, least=CALLS),
    )


def arrived(name: str, host: str, draw: Mapping[str, Any]) -> Iterator[Claim]:
    """Claim of one function that it saw what was sent and what the proxy added, and no more of the route than it may."""
    for header, value in {**SENT, "x-added": "yes", "host": host}.items():
        yield judges.header_seen(f"{name}-{header}", draw, header, value, least=CALLS)
    yield from (judges.header_absent(f"{name}-without-{header}", draw, header, least=CALLS) for header in ROUTING)
    yield another_id(f"{name}-request-id-is-the-gateway-s", draw)


def another_id(name: str, draw: Mapping[str, Any]) -> Claim:
    """Claim that each call reached the function under an id of its own that is not the caller's."""
    records, incomplete = judges.records_of(name, draw)
    seen = [(str(record["request_id"]), next(iter(record["seen"].get("x-request-id", ())), "")) for record in records if record["seen"]]
    kept = [sent for sent, came in seen if came and join_key(sent) == join_key(came)]
    without = sum(not came for _, came in seen)
    if kept or without or len({came for _, came in seen}) != len(seen):
        said = f"of {len(records)} calls {len(kept)} kept the caller's id and {without} had none, {len({came for _, came in seen})} differ"
        return Claim(name, held=False, said=said, expected="another id on each", got=said)
    if incomplete or len(seen) < len(records):
        return incomplete or Claim(name, held=None, said=f"{len(records) - len(seen)} of {len(records)} calls were not answered by the function")
    return Claim(name, held=True, said=f"each of {len(records)} calls came under an id of its own that the caller had not sent")


@requirement("functions.knative-headers", level="MUST", judge=judge)
def test_trace_context_arrives_and_routing_headers_do_not(
    world: World, standing: dict[str, str], caller: Caller, manifests: Manifests, decide: Decide,
) -> None:
    """Trace context, the host and other headers of a request reach a Knative function unchanged, by way of the activator and without it; the request id does not, and headers that name another revision mislead the activator alone."""
    manifests.apply("knative_headers.yaml")
    hosts = {name: local_host(name, world.namespace) for name in standing}
    forged = [("Knative-Serving-Namespace", world.namespace), ("Knative-Serving-Revision", standing["direct"])]

    decide(
        hosts=hosts,
        calls={name: caller.draw(f"http://{host}/", count=CALLS, headers=list(SENT.items())) for name, host in hosts.items()},
        forged=caller.draw(f"http://{hosts['relayed']}/", count=CALLS, headers=forged),
        activator=caller.draw(ACTIVATOR, count=CALLS, headers=forged),
        nobody=caller.draw(ACTIVATOR, count=CALLS),
    )
