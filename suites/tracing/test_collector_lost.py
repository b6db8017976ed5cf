"""A Jaeger that is not there: whoever looks into it is told which witness is missing and what it showed last, and requests go on."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.istio.client import IstioClient
from clusters.components.jaeger.client import SELECTOR, JaegerClient
from clusters.components.jaeger.component import MANIFEST, await_answering
from clusters.manifests import load_manifest
from clusters.versions import versions
from clusters.waiting import TimedOut, eventually
from suites.support import tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import W3C, Chain
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

NAME = "jaeger"
COLLECTOR, OTLP_PORT = "collector.faasmesh.internal", 4317
REQUESTS = 10
# How long is looked for what never comes, and how much longer the answer may take on a busy machine.
PATIENCE_S = 3.0
# Long enough for what was sent to be there, and for the loss to be seen.
WHILE_LOST_S = 12.0
SLACK_S = 10.0


def judge(evidence: Evidence) -> Verdict:
    """Named when it was never there and when it was lost, in bounded time, with what was seen before; meanwhile every request is answered."""
    absent, lost, where = evidence["absent"], evidence["lost"], evidence["where"]
    hops = tracing.hops_of(evidence["services"])
    return Verdict.of(
        named("absent-at-start-is-named", absent, f"{where} has no running pod"),
        named("lost-half-way-is-named", lost, where),
        named("says-what-it-saw-last", lost, f"it last showed {REQUESTS} of {2 * REQUESTS} traces whole"),
        bounded("told-in-bounded-time", [absent, lost]),
        undecided("a-missing-witness-settles-nothing", absent, lost, hops),
        tracing.each_whole("seen-while-it-is-there", lost["sent"][:REQUESTS], {**lost["sighting"], "unanswered": ""}, hops, least=REQUESTS),
        answered("requests-are-answered-all-the-same", [*absent["sent"], *lost["sent"]]),
    )


def named(name: str, look: Mapping[str, Any], text: str) -> Claim:
    """Claim that what was said in the end contains a text."""
    said = look["sighting"]["unanswered"] or "nothing was said to be missing"
    return Claim(name, text in said, said, expected=text, got=said)


def bounded(name: str, looks: Sequence[Mapping[str, Any]]) -> Claim:
    """Claim that no look took much longer than it was to."""
    longest = max(look["seconds"] - look["patience_s"] for look in looks)
    said = ", ".join(f"{look['seconds']:.1f} s of a patience of {look['patience_s']:g} s" for look in looks)
    return Claim(name, longest <= SLACK_S, said, expected=f"at most {SLACK_S:g} s more", got=f"{longest:.1f} s more")


def undecided(name: str, absent: Mapping[str, Any], lost: Mapping[str, Any], hops: Sequence[tracing.Hop]) -> Claim:
    """Claim that a judge of traces calls both looks inconclusive, and does not hold them against the mesh."""
    outcomes = [tracing.each_whole(name, look["sent"], look["sighting"], hops).outcome for look in (absent, lost)]
    return Claim(name, set(outcomes) == {"inconclusive"}, f"of what was seen the judge says {', '.join(outcomes)}", expected="inconclusive", got=", ".join(outcomes))


def answered(name: str, sent: Sequence[Mapping[str, Any]]) -> Claim:
    """Claim that every request was answered 200, whoever took the spans."""
    others = [one["status"] for one in sent if one["status"] != 200]  # HTTP's own word
    return Claim(name, not others, f"{len(sent) - len(others)} of {len(sent)} requests were answered 200", expected="all", got=str(others))


def timed_look(own: JaegerClient, sent: Sequence[tracing.Sent], patience_s: float) -> dict[str, Any]:
    """Return what a look of bounded patience saw, and how long it took."""
    began = time.monotonic()
    sighting = tracing.sighted(own, sent, spans=6, within=patience_s, settle=0)
    return {"sent": list(sent), "sighting": sighting, "seconds": time.monotonic() - began, "patience_s": patience_s}


def lost_half_way(own: JaegerClient, world: World, sent: Sequence[tracing.Sent], unsampled: Sequence[tracing.Sent]) -> dict[str, Any]:
    """Take a Jaeger away while it is looked into, as soon as it has shown what was sent, and return what was seen."""
    with ThreadPoolExecutor(1) as pool:
        # What is not sampled never comes, so that the look goes on.
        looking = pool.submit(timed_look, own, [*sent, *unsampled], WHILE_LOST_S)

        def shown() -> None:
            whole = sum(len(trace) >= 6 for trace in own.traces_by_id(one.trace_id for one in sent).values())  # of three hops
            assert whole == len(sent), f"{whole} of {len(sent)} traces are whole"

        # What does not come is seen by the look.
        with suppress(TimedOut):
            eventually(shown, within=WHILE_LOST_S - PATIENCE_S, consecutive=2)
        world.kube.scale(world.namespace, NAME, 0)
        return looking.result()


def await_known(istio: IstioClient, world: World) -> None:
    """Return once every proxy of the namespace holds an endpoint of the collector, or after the time in which it would; what it has not is missed in its traces."""

    def known() -> None:
        without = [pod for pod in world.proxied_pods() if not any(one.healthy for one in istio.external_endpoints(world.namespace, pod, COLLECTOR, OTLP_PORT))]
        assert not without, f"{', '.join(without)} without it"

    with suppress(TimedOut):
        eventually(known, within=world.timeouts.propagation, every=0.2, subject=f"an endpoint of {COLLECTOR} at every proxy")


@pytest.fixture
def own(world: World) -> JaegerClient:
    """A Jaeger of the check's own, without a pod."""
    objects = load_manifest(MANIFEST, image=world.image(str(versions().images["jaeger"].upstream)), max_traces="100")
    for one in objects:
        if one.kind == "Deployment":
            one.body["spec"]["replicas"] = 0
    world.kube.apply(objects, world.namespace)
    return JaegerClient(world.kube, world.namespace, SELECTOR)


# It is not there, comes up, is looked into and goes.
@pytest.mark.usefixtures("otlp_collector")
@requirement("tracing.collector-lost", level="MUST", judge=judge)
@pytest.mark.slow
def test_a_jaeger_that_is_not_there(
    functions: Chain, caller: Caller, own: JaegerClient, istio: IstioClient, world: World, manifests: Manifests, decide: Decide,
) -> None:
    """Where Jaeger is not there, or is lost half-way, looking for traces says in bounded time which Jaeger it is and what it showed last, settles nothing, and every request is answered."""
    manifests.apply("collector_lost.yaml")
    absent = timed_look(own, tracing.send(caller, functions.url, REQUESTS, propagation=W3C, sampled="1"), PATIENCE_S)
    world.kube.scale(world.namespace, NAME, 1)
    await_answering(own, world.timeouts)
    # Finding: what a proxy would hand over and finds no pod for is lost; it is not kept until there is one. So every proxy is to know of it first,
    # and it does not when Jaeger answers: the kubelet has yet to call the pod ready, and istiod to hear of it.
    await_known(istio, world)
    sent, unsampled = (tracing.send(caller, functions.url, REQUESTS, propagation=W3C, sampled=decision) for decision in ("1", "0"))
    lost = lost_half_way(own, world, sent, unsampled)

    decide(where=own.where, services=functions.services, absent=absent, lost=lost)
