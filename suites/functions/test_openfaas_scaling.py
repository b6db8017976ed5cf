"""The scale of OpenFaaS's functions: by the gateway's API within and beyond the declared bounds, by its alerts, and to zero and back."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.openfaas.client import Api, OpenFaasClient, function_url
from clusters.waiting import NeverReached, TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor.client import as_told
from workloads.openfaas_gateway import await_answered

LEAST, MOST = 1, 20
# What is asked of the scale endpoint, one after the other, the last beyond the function's own maximum, and back.
ASKED = (3, MOST, MOST + 5, LEAST)
# A fifth of the maximum at a time (com.openfaas.scale.factor).
STEPS = (5, 9, 13, 17, 20, 20)
SETTLES_WITHIN_S = 20.0
CALLS, MANY = 5, 60
PODS = 3
# A pod with its sidecar, Kubernetes' word for it, and the gateway's proxy's: 4 s on a quiet machine. The gateway itself waits for longer.
COLD_START_S = 60.0
ENDED_WITHIN_S = 30.0


# Finding: the scale endpoint of this edition keeps neither bound: 25 pods are wanted of a function that declares 20, and none of one that declares
# one (that is how it comes to zero). The bounds are kept by the alerts only. An edition a year younger caps the endpoint at 5 and never
# goes to zero.
def judge_bounds(evidence: Evidence) -> Verdict:
    """The endpoint wants what it is asked for, the maximum and beyond; alerts go up in steps, and no further than the maximum; the last one leaves the minimum."""
    return Verdict.of(
        sequence("the-endpoint-wants-what-is-asked", evidence["asked"], ASKED),
        sequence("alerts-go-up-in-steps", evidence["fired"][:3], STEPS[:3]),
        at_most("alerts-stop-at-the-maximum", evidence["fired"]),
        sequence("resolved-leaves-the-minimum", evidence["resolved"], (LEAST,)),
    )


def sequence(name: str, seen: Sequence[int], wanted: Sequence[int]) -> Claim:
    """Claim that these numbers of pods were wanted, one after the other; -1 is one that was not come to."""
    got = ", ".join(map(str, seen)) or "nothing"
    if not seen:
        return Claim(name, held=None, said="nothing was asked for")
    return Claim(name, held=tuple(seen) == tuple(wanted), said=f"{got} pods were wanted", expected=", ".join(map(str, wanted)), got=got)


def at_most(name: str, seen: Sequence[int]) -> Claim:
    """Claim that alerts led to the maximum and stayed there."""
    got = ", ".join(map(str, seen)) or "nothing"
    if len(seen) < len(STEPS):
        return Claim(name, held=None, said=f"{got} pods were wanted; that is not every alert")
    return Claim(name, held=max(seen) == seen[-1] == seen[-2] == MOST, said=f"{got} pods were wanted", expected=f"{MOST} at the end, and never more", got=got)


@requirement("functions.openfaas-scale-bounds", level="MUST", judge=judge_bounds)
def test_a_function_is_scaled_within_its_bounds_and_beyond(
    world: World, faas: OpenFaasClient, faas_api: Api, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """The scale endpoint wants as many pods as it is asked for, the declared maximum and beyond; firing alerts go up in steps and stop at the maximum, and a resolved one leaves the minimum.

    The function's pods are of no node's, so that what is wanted of it costs nothing.
    """
    manifests.apply("openfaas_scaling.yaml", image=processor_image)
    eventually(lambda: faas.assert_carried_out(world.namespace, "unplaced"), within=SETTLES_WITHIN_S, every=0.2)

    def wanted_after(ask: Callable[[], None]) -> int:
        before = faas.wanted(world.namespace, "unplaced")
        ask()

        # What is asked of Kubernetes is there at once; the next alert counts the pods that it has made.
        def settled() -> int:
            found = faas.kube.get("Deployment", "unplaced", world.namespace)
            wanted, there = int(found["spec"]["replicas"]), int((found.get("status") or {}).get("replicas", 0))
            assert wanted == there, f"{wanted} pods are wanted, {there} were made; {before} were wanted before"
            return wanted

        with suppress(TimedOut):
            return eventually(settled, within=SETTLES_WITHIN_S, every=0.2)
        return -1

    decide(
        asked=[wanted_after(lambda number=number: faas_api.scale("unplaced", number)) for number in ASKED],
        fired=[wanted_after(lambda: faas_api.alert("unplaced", firing=True)) for _ in STEPS],
        resolved=[wanted_after(lambda: faas_api.alert("unplaced", firing=False))],
    )


# Finding: nothing in this edition takes an idle function to zero; its API does. On the way back the gateway holds the request until Kubernetes
# calls a pod available, and it is then for the mesh to know that pod. Its proxy heard of it a moment later in the first round that was tried: 503,
# no healthy upstream, after 7.3 s of waiting, which no proxy tries again unless it is told to. So the caller's is told to (openfaas_scaling.yaml).
def judge_zero(evidence: Evidence) -> Verdict:
    """Three pods answer where three are asked for; none is there where none is; the next call is answered by a new one; the twin is as it was."""
    return Verdict.of(
        judges.every_status("served-before", evidence["one"], 200, least=CALLS),
        answered_by("three-pods-answer", evidence["three"], PODS),
        none_left("zero-pods-are-seen", evidence["zero"]),
        from_zero("the-next-call-is-answered", evidence["again"], evidence["before"]),
        judges.every_status("the-twin-answers", evidence["twin"], 200, least=CALLS),
        Claim(
            "the-twin-keeps-its-pod", held=evidence["twin_pods"]["before"] == evidence["twin_pods"]["after"] and len(evidence["twin_pods"]["after"]) == 1,
            said=f"{evidence['twin_pods']['before']} before, {evidence['twin_pods']['after']} after", expected="one, the same", got=str(evidence["twin_pods"]["after"]),
        ),
    )


def answered_by(name: str, draw: Mapping[str, Any], pods: int) -> Claim:
    """Claim that exactly so many pods answered, by the host names that they gave."""
    records, incomplete = judges.records_of(name, draw, least=MANY)
    hosts = {record["pod"] for record in records if record["pod"]}
    lost = sum(not record["pod"] for record in records)
    said = f"{len(hosts)} pods answered {len(records) - lost} of {len(records)} calls"
    if len(hosts) == pods and not lost:
        return incomplete or Claim(name, held=True, said=said)
    return Claim(name, held=None if lost and len(hosts) < pods else False, said=said, expected=f"{pods} pods, every call", got=said)


def none_left(name: str, zero: Mapping[str, Any]) -> Claim:
    """Claim that no pod is wanted, there or told by the gateway."""
    said = f"{zero['wanted']} wanted, {len(zero['pods'])} there, {zero['told']} by the gateway's word"
    return Claim(name, held=(zero["wanted"], len(zero["pods"]), zero["told"]) == (0, 0, 0), said=said, expected="none", got=said)


def from_zero(name: str, draw: Mapping[str, Any], before: Sequence[str]) -> Claim:
    """Claim that the call that found no pod was answered by one that was not there before."""
    records, incomplete = judges.records_of(name, draw)
    if incomplete:
        return incomplete
    record = records[0]
    said = f"status {record['status']} by {record['pod'] or 'nobody'} after {record['latency_ms'] / 1000:.1f} s {record['error']}".strip()
    right = record["status"] == 200 and record["pod"] not in {"", *before}  # HTTP's own word
    return Claim(name, held=right, said=said, expected="200 by a new pod", got=said)


@pytest.mark.slow
@requirement("functions.openfaas-scale-to-zero", level="MUST", judge=judge_zero)
def test_a_function_goes_to_zero_and_comes_back(
    world: World, faas: OpenFaasClient, faas_api: Api, served: Callable[..., None], caller: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """Scaled to three pods a function is answered by three, scaled to none it has none, and the next call by the gateway is held until a new pod answers it, where the mesh tries again what the gateway was too early for; its twin keeps its own."""
    manifests.apply("openfaas_scaling.yaml", image=processor_image)
    # A function that is not there is for the verdict to tell.
    with suppress(TimedOut, NeverReached):
        served("scaled", "kept")
    url, twin = (function_url(name, world.namespace) for name in ("scaled", "kept"))

    def names(function: str) -> list[str]:
        return sorted(str(pod["metadata"]["name"]) for pod in faas.pods(world.namespace, function))

    def draw(at: str, function: str, *, count: int = CALLS, timeout_s: float = 10.0) -> object:
        return as_told(caller.draw(at, count=count, keep_body=True, timeout_s=timeout_s, fresh_connections=True), function)

    one, twins = draw(url, "scaled"), names("kept")
    scaled(faas_api, faas, world, PODS)
    with suppress(TimedOut):
        await_answered(caller, url, within=SETTLES_WITHIN_S)
    three, before = draw(url, "scaled", count=MANY), names("scaled")
    scaled(faas_api, faas, world, 0)
    zero = {"wanted": faas.wanted(world.namespace, "scaled"), "pods": names("scaled"), "told": int(faas_api.function("scaled").get("replicas", 0))}
    again = draw(url, "scaled", count=1, timeout_s=COLD_START_S)

    decide(one=one, three=three, zero=zero, before=before, again=again, twin=draw(twin, "kept"), twin_pods={"before": twins, "after": names("kept")})


def scaled(api: Api, faas: OpenFaasClient, world: World, pods: int) -> None:
    """Scale the function and return once it has that many pods, or does not come to have them."""
    api.scale("scaled", pods)

    def there() -> None:
        found = (faas.kube.get("Deployment", "scaled", world.namespace).get("status") or {}).get("availableReplicas", 0)
        assert found == pods == len(faas.pods(world.namespace, "scaled")), f"{found} pods are available"

    with suppress(TimedOut):
        eventually(there, within=ENDED_WITHIN_S, every=0.2)
