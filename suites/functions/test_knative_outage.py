"""Knative's own pods killed while functions are called: what is lost, and that it ends."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from clusters.bringup import Testbed
from clusters.components.knative.client import ACTIVATOR, AUTOSCALER, KnativeClient, local_host
from clusters.components.knative.manifests import GATEWAY_API, NAMESPACE
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

# Paced: ten seconds, in which a pod is killed and noticed to be.
RATE = 20.0
CALLS = 200
A_FEW = 20
# What has to start anew, with its sidecar, and be heard of by Knative and then by the gateway: 4 s on a quiet machine.
BACK_WITHIN = 120.0
NAMES = ("direct", "outlived")
BY_ACTIVATOR = "spiffe://cluster.local/ns/knative-serving/sa/activator"
BY_GATEWAY = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"


# Finding: the activator's end is not the end of the functions behind it. Where it has no endpoint, Knative gives the gateway those of the
# function's own pods, whatever `target-burst-capacity` says (reconciler of ServerlessServices, "forcing SKS into Serve mode"): the
# function sees the gateway's identity for a while (through net-istio its caller's own), so a policy that lets only the activator in turns such an outage into a full one.
def judge_activator(evidence: Evidence) -> Verdict:
    """What does not pass the activator loses nothing; what does is told so, is served past it, and by way of the next one."""
    before, during, after = evidence["before"], evidence["during"], evidence["after"]
    return Verdict.of(
        judges.peer_identity("relayed-before", before["outlived"], BY_ACTIVATOR, least=A_FEW),
        judges.every_status("without-it-nothing-is-lost", during["direct"], 200, least=CALLS),
        told("lost-calls-are-answered-503", during["outlived"]),
        past_it("served-past-it", during["outlived"], evidence["past"]),
        judges.peer_identity("relayed-again", after["outlived"], BY_ACTIVATOR, least=A_FEW),
        replaced("another-pod-in-its-place", evidence["pods"]),
    )


def told(name: str, draw: Mapping[str, Any]) -> Claim:
    """Claim that each call was answered by the function or with 503 by a proxy, so that nobody waits for a pod that is gone."""
    records, incomplete = judges.records_of(name, draw, least=CALLS)
    other = [record for record in records if record["status"] not in (200, 503)]
    lost = sum(record["status"] == 503 for record in records)
    if other:
        return Claim(name, held=False, said=f"{len(other)} of {len(records)} calls ended otherwise: {judges.shapes(other)}", expected="200 or 503", got=judges.shapes(other))
    return incomplete or Claim(name, held=True, said=f"{lost} of {len(records)} calls were answered 503, the others by the function")


def past_it(name: str, draw: Mapping[str, Any], peer: str) -> Claim:
    """Claim that some calls reached the function from the one who calls it past the activator; where all were lost instead it is refuted."""
    records, incomplete = judges.records_of(name, draw)
    past = sum(judges.peer_of(record) == peer for record in records)
    lost = sum(record["status"] != 200 for record in records)
    said = f"of {len(records)} calls {past} came from {peer}, {len(records) - past - lost} from the activator, and {lost} were lost"
    if past:
        return incomplete or Claim(name, held=True, said=said)
    return Claim(name, held=False, said=said, expected=f"some from {peer}", got="none") if lost > A_FEW else Claim(name, held=None, said=said)


def replaced(name: str, pods: Mapping[str, list[str]]) -> Claim:
    """Claim that the pods that were killed are no more, and that others are there instead."""
    said = f"{', '.join(pods['before']) or 'nothing'} before, {', '.join(pods['after']) or 'nothing'} after"
    if not pods["before"] or not pods["after"]:
        return Claim(name, held=None, said=said)
    kept = sorted(set(pods["before"]) & set(pods["after"]))
    return Claim(name, held=not kept, said=said, expected="others", got=", ".join(kept))


@pytest.fixture
def knative_of_ours(testbed: Testbed, knative: KnativeClient) -> KnativeClient:
    """Knative on a cluster of ours: on somebody else's its pods are not ours to kill."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("Knative's pods on an existing cluster are not ours to kill")
    return knative


@pytest.fixture
def urls(world: World, knative_of_ours: KnativeClient, standing: dict[str, str], manifests: Manifests, greeter_image: str) -> dict[str, str]:
    """Where the two functions are called from inside."""
    del standing  # deployed before it is called
    manifests.apply("knative_outage.yaml", image=greeter_image)
    knative_of_ours.await_ready(world.namespace, "outlived")
    return {name: f"http://{local_host(name, world.namespace)}/" for name in NAMES}


def killed(knative: KnativeClient, name: str, caller: Caller, urls: Mapping[str, str]) -> dict[str, Any]:
    """Kill the pods of one of Knative's Deployments under calls to each url, and return what became of them and of calls before and after."""
    pods, scale = knative.own_pods(name), scale_of(knative, caller.namespace)
    before = {one: caller.draw(url, count=A_FEW) for one, url in urls.items()}
    with ThreadPoolExecutor(len(urls)) as pool:
        drawn = {one: pool.submit(caller.draw, url, count=CALLS, concurrency=4, rate_per_s=RATE) for one, url in urls.items()}
        for pod in pods:
            knative.kube.delete_one("Pod", pod, NAMESPACE, grace_s=0)
        during = {one: draw.result() for one, draw in drawn.items()}
    knative.await_own(name)

    def as_before() -> None:
        now = {one: judges.peer_of(caller.draw(url).records[0].to_json()) for one, url in urls.items()}
        assert now == {one: judges.peer_of(draw.records[-1].to_json()) for one, draw in before.items()}, f"called by {now}"

    # What does not come back is seen by the calls that follow.
    with suppress(TimedOut):
        eventually(as_before, within=BACK_WITHIN, consecutive=3)
    after = {one: caller.draw(url, count=A_FEW) for one, url in urls.items()}
    return {
        "before": before, "during": during, "after": after, "pods": {"before": pods, "after": knative.own_pods(name)},
        "scale": {"before": scale, "after": scale_of(knative, caller.namespace)},
    }


def scale_of(knative: KnativeClient, namespace: str) -> dict[str, Any]:
    """Return how many pods the function of this file is to have, and the names of those that it has."""
    revision = knative.function(namespace, "outlived").latest_ready
    return {"wanted": knative.revision(namespace, revision).wanted, "pods": sorted(pod["metadata"]["name"] for pod in knative.pods(namespace, revision))}


# Ten seconds of calls, then another pod with its sidecar has to come up.
@requirement("functions.knative-activator-outage", level="MUST", judge=judge_activator, alone=True)
@pytest.mark.slow
def test_the_activator_is_killed(
    knative_of_ours: KnativeClient, knative_ingress: str, caller: Caller, urls: dict[str, str], decide: Decide,
) -> None:
    """When the activator is killed, requests that went by way of it go past it until another one is there, those that are lost are answered 503, and those that do not need it lose nothing."""
    # Whoever a function sees where nothing is between it and the proxy that leads to it.
    past = {GATEWAY_API.name: BY_GATEWAY}.get(knative_ingress, f"spiffe://cluster.local/ns/{caller.namespace}/sa/caller")

    decide(past=past, **killed(knative_of_ours, ACTIVATOR, caller, urls))


def judge_autoscaler(evidence: Evidence) -> Verdict:
    """No call is lost, whichever way it goes, and no pod comes or goes."""
    return Verdict.of(
        judges.every_status("nothing-is-lost", judges.joined(evidence["during"]), 200, least=len(NAMES) * CALLS),
        judges.every_status("served-afterwards", judges.joined(evidence["after"]), 200, least=len(NAMES) * A_FEW),
        kept("scale-is-kept", evidence["scale"]),
        replaced("another-pod-in-its-place", evidence["pods"]),
    )


def kept(name: str, scale: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Claim that the one pod that the function declares is wanted and there before and after, and is the same."""
    before, after = scale["before"], scale["after"]
    said = f"{before['wanted']} wanted before, {after['wanted']} after; there was {', '.join(before['pods']) or 'none'}, there is {', '.join(after['pods']) or 'none'}"
    right = before["wanted"] == after["wanted"] == 1 == len(before["pods"]) and before["pods"] == after["pods"]
    return Claim(name, held=right, said=said, expected="the same one pod", got=f"{before['pods']}, then {after['pods']}")


# As above.
@requirement("functions.knative-autoscaler-outage", level="MUST", judge=judge_autoscaler, alone=True)
@pytest.mark.slow
def test_the_autoscaler_is_killed(knative_of_ours: KnativeClient, caller: Caller, urls: dict[str, str], decide: Decide) -> None:
    """When the autoscaler is killed, no request of a function that has its pods is lost, and the next one leaves it the pods that it declares."""
    decide(**killed(knative_of_ours, AUTOSCALER, caller, urls))
