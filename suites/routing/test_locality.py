"""Locality: a DestinationRule with outlier detection keeps calls in the caller's zone while it has pods, and moves them when it has none."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from clusters.components.istio.client import Endpoint, IstioClient
from clusters.waiting import eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller import caller as caller_objects
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.zones import ZONES, Zones

HOME, *OTHERS = ZONES
# Which zone a call goes to is decided by priorities, not by chance, and within them by turns: a hundred show every zone in use.
CALLS = 100
CONNECTIONS = 4
# The last calls that a zone answers and the first that others do fall into these four seconds: its pod goes on for three
# after it is told to end, and was told before the first call.
PACE = 50.0
CALLS_WHILE_MOVING = 200

# Envoy gives each call a zone by weight and has no memory of its own of what was declared, so the shares are tested as chance,
# which they are at most: its schedule is more even than that.
WEIGHTS = {"zone-a": 0.70, "zone-b": 0.20, "zone-c": 0.10}
SHARED_CALLS = 1_500
SHARED_ALPHA = 1e-6
SHARED_SHIFT = 0.10


@pytest.fixture(scope="module")
def near_caller(world: World, zones: Zones, istio: IstioClient) -> Caller:
    """A caller in the zone HOME; the namespace's own one is wherever the scheduler put it."""
    world.deploy({"zoned-caller": zones.place(caller_objects("zoned-caller"), HOME)})
    pod = world.pod("zoned-caller")
    return Caller(world.kube, world.namespace, pod, access_log=partial(istio.access_log, world.namespace, pod))


@pytest.fixture
def home(world: World, istio: IstioClient, near_caller: Caller, caller: Caller) -> Iterator[Callable[[int], None]]:
    """Scale the pods of HOME without waiting for them; put back and awaited at every caller when the check ends, however it does."""
    scale = partial(_scale, world, f"zoned-function-{HOME}")
    yield scale
    scale(1)
    world.kube.wait_deployment(world.namespace, f"zoned-function-{HOME}", world.timeouts.deployment_available)
    for pod in (near_caller.pod, caller.pod):
        await_zones(world, istio, pod, ZONES, subset="")


def judge(evidence: Evidence) -> Verdict:
    """Calls stay in the zone, and only where zones are looked at and outlier detection stands beside that."""
    return Verdict.of(
        judges.only_version("stays-in-the-zone", evidence["nearest"], HOME, least=CALLS),
        judges.alike("control-without-locality-every-zone", evidence["anywhere"], ZONES, least=CALLS),
        judges.alike("without-outlier-detection-every-zone", evidence["undetected"], ZONES, least=CALLS),
    )


@requirement("routing.locality", level="MUST", judge=judge)
def test_calls_stay_in_the_zone(
    zoned_function: str, near_caller: Caller, zones: Zones, world: World, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """With locality load balancing and outlier detection every call goes to a pod of the caller's own zone; without, to every zone alike.

    Finding: `localityLbSetting: {enabled: true}` by itself changes nothing. istiod gives zones no precedence unless outlier
    detection is set beside it, and says so nowhere: neither the object's status nor the API server's answer tells.
    """
    manifests.apply("locality.yaml")

    decide(
        nearest=near_caller.draw(f"{zoned_function}/nearest", count=CALLS, concurrency=CONNECTIONS),
        anywhere=near_caller.draw(f"{zoned_function}/anywhere", count=CALLS, concurrency=CONNECTIONS),
        undetected=near_caller.draw(f"{zoned_function}/undetected", count=CALLS, concurrency=CONNECTIONS),
        **{"placed-by": zones.placed_by, "endpoints": istio.endpoints(world.namespace, near_caller.pod, "zoned-function", subset="nearest")},
    )


def judge_distribute(evidence: Evidence) -> Verdict:
    """Zones answer in the declared shares, and alike where none are declared."""
    return Verdict.of(
        judges.no_failures("every-call-answered", evidence["shared"], excused=judges.UPSTREAM_GONE),
        judges.split("shares", evidence["shared"], declared=WEIGHTS, alpha=SHARED_ALPHA, shift=SHARED_SHIFT),
        judges.alike("control-without-shares-alike", evidence["anywhere"], ZONES, least=CALLS),
    )


@requirement("routing.locality-distribute", level="MUST", judge=judge_distribute, alpha=SHARED_ALPHA, detects=SHARED_SHIFT)
def test_zones_have_declared_shares(zoned_function: str, near_caller: Caller, zones: Zones, manifests: Manifests, decide: Decide) -> None:
    """Under `distribute` the calls of a zone are shared among zones by the declared weights, without outlier detection too."""
    manifests.apply("locality.yaml")

    decide(
        shared=near_caller.draw(f"{zoned_function}/shared", count=SHARED_CALLS, concurrency=CONNECTIONS, keep_headers=(), keep_seen=()),
        anywhere=near_caller.draw(f"{zoned_function}/anywhere", count=CALLS, concurrency=CONNECTIONS),
        **{"placed-by": zones.placed_by},
    )


def judge_failover(evidence: Evidence) -> Verdict:
    """The zone answers, then the others do, then the zone again, and no call is lost on the way; alone, an empty zone answers nothing."""
    return Verdict.of(
        judges.only_version("before-only-the-zone", evidence["before"], HOME, least=CALLS),
        judges.no_failures("none-fails-while-it-empties", evidence["emptying"], excused=judges.UPSTREAM_GONE),
        judges.alike("empty-only-the-others", evidence["empty"], OTHERS, least=CALLS),
        judges.every_status("control-empty-zone-alone-answers-503", evidence["empty-alone"], 503),
        judges.no_failures("none-fails-while-it-fills", evidence["filling"], excused=judges.UPSTREAM_GONE),
        judges.only_version("after-only-the-zone", evidence["after"], HOME, least=CALLS),
    )


# A pod has to end and another one to start while calls are made: 8 s of paced draws, and what the cluster needs.
@pytest.mark.slow
@requirement("routing.locality-failover", level="MUST", judge=judge_failover)
def test_an_empty_zone_is_stood_in_for(
    zoned_function: str, near_caller: Caller, home: Callable[[int], None], zones: Zones, world: World, istio: IstioClient,
    manifests: Manifests, decide: Decide,
) -> None:
    """When the caller's zone has no pod left the other zones answer alike, when it has one again that answers alone, and no call fails.

    Finding: it is not outlier detection that moves the calls, though Istio asks for it: an empty zone is no longer among the
    endpoints that istiod sends, and the next priority moves up. Envoy's own failover serves pods that are there and fail.
    """
    manifests.apply("locality.yaml")
    nearest = f"{zoned_function}/nearest"

    def endpoints(*expected: str) -> list[Endpoint]:
        return await_zones(world, istio, near_caller.pod, expected)

    before = near_caller.draw(nearest, count=CALLS, concurrency=CONNECTIONS)
    home(0)
    emptying = near_caller.draw(nearest, count=CALLS_WHILE_MOVING, concurrency=CONNECTIONS, rate_per_s=PACE)
    without = endpoints(*OTHERS)
    empty = near_caller.draw(nearest, count=CALLS, concurrency=CONNECTIONS)
    empty_alone = near_caller.draw(f"{zoned_function}/only-a", count=CALLS, concurrency=CONNECTIONS)
    home(1)
    filling = near_caller.draw(nearest, count=CALLS_WHILE_MOVING, concurrency=CONNECTIONS, rate_per_s=PACE)
    with_home = endpoints(*ZONES)
    after = near_caller.draw(nearest, count=CALLS, concurrency=CONNECTIONS)

    decide(
        before=before, emptying=emptying, empty=empty, filling=filling, after=after,
        **{"empty-alone": empty_alone, "placed-by": zones.placed_by, "endpoints": {"empty": without, "after": with_home}},
    )


def await_zones(world: World, istio: IstioClient, pod: str, expected: tuple[str, ...], *, subset: str = "nearest") -> list[Endpoint]:
    """Return a proxy's endpoints of the function once they lie in exactly the expected zones; all subsets come in one push."""

    def seen() -> list[Endpoint]:
        found = istio.endpoints(world.namespace, pod, "zoned-function", subset=subset)
        assert {each.zone for each in found} == set(expected), f"endpoints in {sorted({each.zone for each in found}) or 'no zone'}"
        return found

    return eventually(seen, within=world.timeouts.propagation, every=0.2, subject=f"endpoints in {', '.join(expected)} not at proxy {world.namespace}/{pod}")


def _scale(world: World, name: str, replicas: int) -> None:
    """Scale a Deployment of ours and return at once: the draw is to begin before the pods do as they are told."""
    world.kube.server.call(
        "PATCH", f"/apis/apps/v1/namespaces/{world.namespace}/deployments/{name}/scale", body={"spec": {"replicas": replicas}},
        content_type="application/merge-patch+json", what=f"scale Deployment/{name} to {replicas}",
    )
