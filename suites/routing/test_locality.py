"""Locality: a DestinationRule with outlier detection keeps calls in the caller's zone while it has pods, and moves them when it has none."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from clusters.components.istio.client import Endpoint, IstioClient
from clusters.waiting import eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller import caller as caller_objects
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.zones import ZONES, Zones

HOME, *OTHERS = ZONES
# Which zone a call goes to is decided by priorities, not by chance, and within them by turns: a hundred show every zone in use.
CALLS = 100
CONNECTIONS = 4
# The pod is told to end before the first of these four seconds and goes on for three, so the change of zone and the pod's death
# fall among them. One that starts was there after 4 to 6 s on two busy cores; where it takes longer, nothing is shown of it here.
PACE = 50.0
CALLS_WHILE_EMPTYING = 200
CALLS_WHILE_FILLING = 300

# Envoy does not throw dice for a zone: each worker follows a schedule (earliest deadline first) that repeats after ten calls
# for these weights, so a worker is never more than the zones are ahead of the shares, and a shift by one point shows.
WEIGHTS = {"zone-a": 70, "zone-b": 20, "zone-c": 10}
SHARED_CALLS = 1_200
SHARED_CONNECTIONS = 2


@pytest.fixture(scope="module")
def near_caller(world: World, zones: Zones, istio: IstioClient) -> Caller:
    """A caller in the zone HOME; the namespace's own one is wherever the scheduler put it."""
    world.deploy({"zoned-caller": zones.place(caller_objects("zoned-caller"), HOME)})
    pod = world.pod("zoned-caller")
    return Caller(world.kube, world.namespace, pod, access_log=partial(istio.access_log, world.namespace, pod))


@pytest.fixture
def home(world: World, istio: IstioClient, near_caller: Caller, caller: Caller) -> Iterator[Callable[[int], None]]:
    """Scale the pods of HOME without waiting for them; put back and awaited at every caller when the check ends, however it does."""
    name = f"zoned-function-{HOME}"
    yield partial(world.scale, name)
    world.scale(name, 1)
    world.await_scaled(name)
    for pod in (near_caller.pod, caller.pod):
        await_zones(world, istio, pod, ZONES)


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
        apportioned("shares", evidence["shared"], WEIGHTS, least=SHARED_CALLS),
        judges.alike("control-without-shares-alike", evidence["anywhere"], ZONES, least=CALLS),
    )


@requirement("routing.locality-distribute", level="MUST", judge=judge_distribute)
def test_zones_have_declared_shares(zoned_function: str, near_caller: Caller, zones: Zones, manifests: Manifests, decide: Decide) -> None:
    """Under `distribute` the calls of a zone are shared among zones by the declared weights, without outlier detection too."""
    manifests.apply("locality.yaml")

    decide(
        shared=near_caller.draw(f"{zoned_function}/shared", count=SHARED_CALLS, concurrency=SHARED_CONNECTIONS, keep_headers=(), keep_seen=()),
        anywhere=near_caller.draw(f"{zoned_function}/anywhere", count=CALLS, concurrency=CONNECTIONS),
        **{"placed-by": zones.placed_by},
    )


def judge_failover(evidence: Evidence) -> Verdict:
    """The zone answers, then the others do, then the zone again, and no call is lost on the way; alone, an empty zone answers nothing."""
    return Verdict.of(
        judges.only_version("before-only-the-zone", evidence["before"], HOME, least=CALLS),
        judges.no_failures("none-fails-while-it-empties", evidence["emptying"], excused=judges.UPSTREAM_GONE),
        judges.every_status("empty-none-fails", evidence["empty"], 200),
        judges.alike("empty-only-the-others", evidence["empty"], OTHERS, least=CALLS),
        judges.every_status("control-empty-zone-alone-answers-503", evidence["empty-alone"], 503),
        judges.no_failures("none-fails-while-it-fills", evidence["filling"], excused=judges.UPSTREAM_GONE),
        judges.only_version("after-only-the-zone", evidence["after"], HOME, least=CALLS),
    )


# A pod has to end and another one to start while calls are made: 10 s of paced draws, and what the cluster needs.
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

    def endpoints(expected: Collection[str]) -> list[Endpoint]:
        await_zones(world, istio, near_caller.pod, expected)
        return istio.endpoints(world.namespace, near_caller.pod, "zoned-function", subset="nearest")

    before = near_caller.draw(nearest, count=CALLS, concurrency=CONNECTIONS)
    home(0)
    emptying = near_caller.draw(nearest, count=CALLS_WHILE_EMPTYING, concurrency=CONNECTIONS, rate_per_s=PACE)
    without = endpoints(OTHERS)
    empty = near_caller.draw(nearest, count=CALLS, concurrency=CONNECTIONS)
    empty_alone = near_caller.draw(f"{zoned_function}/only-a", count=CALLS, concurrency=CONNECTIONS)
    home(1)
    filling = near_caller.draw(nearest, count=CALLS_WHILE_FILLING, concurrency=CONNECTIONS, rate_per_s=PACE)
    with_home = endpoints(ZONES)
    after = near_caller.draw(nearest, count=CALLS, concurrency=CONNECTIONS)

    decide(
        before=before, emptying=emptying, empty=empty, filling=filling, after=after,
        **{"empty-alone": empty_alone, "placed-by": zones.placed_by, "endpoints": {"empty": without, "after": with_home}},
    )


def apportioned(name: str, draw: Mapping[str, Any], weights: Mapping[str, int], *, least: int) -> Claim:
    """Claim that zones answered by weight (in hundredths), each worker of the proxy off by no more calls than there are zones.

    A connection stays with one worker, so no more workers follow the schedule than there are connections.
    """
    counts = Counter(str(record["version"]) for record in draw["records"] if record["version"])
    lost, slack = int(draw["count"]) - sum(counts.values()), len(weights) * int(draw["concurrency"])
    due = {zone: int(draw["count"]) * weight / 100 for zone, weight in weights.items()}
    got, expected = (", ".join(f"{zone} {count:g}" for zone, count in sorted(each.items())) for each in (counts, due))
    off = max((abs(counts[zone] - due.get(zone, 0)) for zone in {*counts, *due}), default=0)
    if counts.keys() - due.keys() or off > slack + lost:
        return Claim(name, held=False, said=f"{got} answered, {off:g} off", expected=f"{expected}, at most {slack} off", got=got)
    if lost or len(draw["records"]) < max(least, 1):
        return Claim(name, held=None, said=f"{lost} of {draw['count']} calls were answered by no zone, {least} answers are wanted")
    return Claim(name, held=True, said=f"{got} answered, {off:g} off what is due")


def await_zones(world: World, istio: IstioClient, pod: str, expected: Collection[str]) -> None:
    """Return once the endpoints that a proxy holds of the function lie in exactly the expected zones.

    What is asked for is the cluster without a subset, of which the manifest says nothing: whether endpoints have arrived is one
    question, what the subsets make of them another. All of them come in one push.
    """

    def arrived() -> None:
        seen = {each.zone for each in istio.endpoints(world.namespace, pod, "zoned-function")}
        assert seen == set(expected), f"endpoints in {', '.join(sorted(seen)) or 'no zone'}"

    eventually(arrived, within=world.timeouts.propagation, every=0.2, subject=f"endpoints in {', '.join(expected)} not at proxy {world.namespace}/{pod}")
