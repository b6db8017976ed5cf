"""Self-tests of the judges of load balancing and locality, on draws made by hand and by small models of the algorithms."""

import json
from collections.abc import Mapping
from itertools import count, cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.components.istio.client import Endpoint, IstioClient
from clusters.timeouts import Timeouts
from suites.support import requirements
from workloads.greeter import greeter
from workloads.zones import LABEL, LOCALITY_LABEL, NODES, REGION_OF_NODE, ZONE_OF_NODE, ZONES, zones_of

ENTRIES = requirements.discover()
A, B, C = ZONES
LOST = ""


def record(version, *, status=None, connection="10.0.0.1:1", latency_ms=1.0, cookie=None, flags=""):
    return {
        "status": status or (200 if version else 503), "error": "", "version": version, "flags": flags if version else flags or "UF,URX", "seen": {},
        "connection": connection, "latency_ms": latency_ms, "headers": {"set-cookie": [f"session={cookie}; Max-Age=3600; HttpOnly"]} if cookie else {},
    }


def draw(records, *, concurrency=1, asked=None):
    records = [each if isinstance(each, Mapping) else record(each) for each in records]
    return {"count": asked or len(records), "concurrency": concurrency, "records": [{**each, "index": index} for index, each in enumerate(records)]}


def turns(calls, *, start=0, pods=ZONES, concurrency=1):
    return draw(list(islice(cycle(pods), start, start + calls)), concurrency=concurrency)


def scattered(calls):
    return draw(list(islice(cycle([A, A, C, B, C, B, B, A, C]), calls)))


def under_load(slow, calls=1_300, *, slow_ms=400.0, quick_ms=4.0):
    others = calls - slow
    records = [record(B, latency_ms=slow_ms)] * slow + [record(A, latency_ms=quick_ms)] * (others // 2) + [record(C, latency_ms=quick_ms)] * (others - others // 2)
    return draw(records, concurrency=16)


def of_key(key, calls=8):
    return draw([ZONES[sum(key.encode()) % 3]] * calls, concurrency=4)


USERS = [f"user-{number}" for number in range(64)]
SESSIONS = {f"session={number:x}": ZONES[number % 3] for number in range(64)}
GOOD = {
    "routing.load-balancing-round-robin": {
        "one-by-one": [turns(60, start=start) for start in (0, 1, 2, 1)], "together": turns(60, concurrency=4), "random": scattered(60),
    },
    "routing.load-balancing-least-request": {"least-request": under_load(150), "round-robin": turns(150, concurrency=16)},
    "routing.load-balancing-consistent-hash": {
        "keys": {key: of_key(key) for key in USERS}, "without-key": scattered(100), "round-robin": {key: turns(8, concurrency=4) for key in USERS[:8]},
    },
    "routing.load-balancing-consistent-hash-cookie": {
        "new": draw([record(pod, cookie=cookie.partition("=")[2]) for cookie, pod in SESSIONS.items()]),
        "returning": {cookie: draw([pod] * 8) for cookie, pod in islice(SESSIONS.items(), 12)},
        "round-robin": {cookie: turns(8) for cookie in islice(SESSIONS, 12)},
    },
    "routing.locality": {"nearest": draw([A] * 100), "anywhere": turns(100, concurrency=4), "undetected": turns(100, start=1, concurrency=4)},
    "routing.locality-distribute": {"shared": draw([*[A] * 842, *[B] * 239, *[C] * 119], concurrency=2), "anywhere": turns(100, concurrency=4)},
    "routing.locality-failover": {
        "before": draw([A] * 100), "emptying": draw([*[A] * 20, *[B, C] * 90]), "empty": turns(100, pods=[B, C], concurrency=4),
        "empty-alone": draw([record("", status=503, flags="UH")] * 100), "filling": draw([*[B, C] * 140, *[A] * 20]), "after": draw([A] * 100),
    },
}


def outcomes(requirement, **instead):
    verdict = requirements.judge(ENTRIES[requirement], {**GOOD[requirement], **{name.replace("_", "-"): value for name, value in instead.items()}})
    return {claim.name: claim.held for claim in verdict.claims if claim.held is not True}


@pytest.mark.parametrize("requirement", GOOD)
def test_a_mesh_that_does_as_declared_holds(requirement):
    assert outcomes(requirement) == {}


@pytest.mark.parametrize(("requirement", "name"), [(requirement, name) for requirement, evidence in GOOD.items() for name in evidence])
def test_nothing_holds_on_draws_that_are_empty_or_short(requirement, name):
    def cut(value, keep):
        if isinstance(value, list):
            return [cut(each, keep) for each in value]
        if "records" not in value:
            return {key: cut(each, keep) for key, each in value.items()}
        return {**value, "records": value["records"][:keep]}

    good = GOOD[requirement][name]
    assert outcomes(requirement, **{name: cut(good, 0)})
    assert outcomes(requirement, **{name: cut(good, -1)})
    assert "records" in good or outcomes(requirement, **{name: type(good)()})


REFUTED = {
    "one repetition in a round": ("round-robin", {"one_by_one": [turns(60), turns(60), turns(60), draw([*islice(cycle(ZONES), 30), *islice(cycle(ZONES), 1, 31)])]}, "every-connection-in-turn"),
    "two pods of three in turn": ("round-robin", {"one_by_one": [turns(60, pods=[A, B])] * 4}, "every-connection-in-turn"),
    "no turn, and a lost call": ("round-robin", {"one_by_one": [draw([A, A, B, LOST])]}, "every-connection-in-turn"),
    "counts five apart": ("round-robin", {"together": draw([*[A] * 23, *[B] * 19, *[C] * 18], concurrency=4)}, "together-alike"),
    "a control in turn": ("round-robin", {"random": turns(60)}, "control-random-has-no-turns"),
    "a control at two pods": ("round-robin", {"random": draw([A, A, B] * 20)}, "control-random-reaches-every-pod"),
    "a slow pod with its third": ("least-request", {"least_request": under_load(433)}, "slow-pod-gets-less"),
    "a slow pod with its third, lost calls": ("least-request", {"least_request": draw([*under_load(433)["records"], LOST])}, "slow-pod-gets-less"),
    "a slow pod left out": ("least-request", {"least_request": under_load(0)}, "slow-pod-is-still-used"),
    "a slow pod spared by the control": ("least-request", {"round_robin": draw([*[A] * 65, *[C] * 65, *[B] * 20], concurrency=16)}, "control-slow-pod-keeps-its-third"),
    "one call of a key elsewhere": ("consistent-hash", {"keys": {**GOOD["routing.load-balancing-consistent-hash"]["keys"], "user-7": draw([A, B, A])}}, "key-keeps-its-pod"),
    "all keys at one pod": ("consistent-hash", {"keys": {key: draw([A] * 8) for key in USERS}}, "keys-reach-every-pod"),
    "keyless calls kept together": ("consistent-hash", {"without_key": draw([A] * 100)}, "without-key-every-pod"),
    "a control with affinity": ("consistent-hash", {"round_robin": {"user-0": draw([A] * 8)}}, "control-round-robin-scatters-a-key"),
    "no cookie": ("consistent-hash-cookie", {"new": draw([record(pod) for pod in SESSIONS.values()])}, "new-user-is-given-a-cookie"),
    "one cookie for two": ("consistent-hash-cookie", {"new": draw([record(pod, cookie="x") for pod in SESSIONS.values()])}, "new-user-is-given-a-cookie"),
    "a user sent elsewhere": ("consistent-hash-cookie", {"returning": {"session=0": draw([B] * 8)}}, "returning-user-keeps-the-pod"),
}


@pytest.mark.parametrize("case", REFUTED)
def test_a_mesh_that_does_otherwise_is_refuted(case):
    which, instead, claim = REFUTED[case]

    assert outcomes(f"routing.load-balancing-{which}", **instead)[claim] is False


ELSEWHERE = {
    "a call out of the zone": ("", {"nearest": draw([*[A] * 99, C])}, "stays-in-the-zone"),
    "a control in the zone": ("", {"anywhere": draw([A] * 100, concurrency=4)}, "control-without-locality-every-zone"),
    "zones without outlier detection": ("", {"undetected": draw([A] * 100, concurrency=4)}, "without-outlier-detection-every-zone"),
    "shares one point off": ("-distribute", {"shared": draw([*[A] * 828, *[B] * 252, *[C] * 120], concurrency=2)}, "shares"),
    "a zone without a share": ("-distribute", {"shared": draw([*[A] * 840, *[B] * 240, *[C] * 119, "zone-d"], concurrency=2)}, "shares"),
    "nobody stands in": ("-failover", {"empty": draw([record("", status=503, flags="UH")] * 100)}, "empty-none-fails"),
    "one neighbour stands in": ("-failover", {"empty": draw([B] * 100, concurrency=4)}, "empty-only-the-others"),
    "a pod in the empty zone": ("-failover", {"empty": draw([*[B, C] * 49, A, A], concurrency=4)}, "empty-only-the-others"),
    "the zone does not come back": ("-failover", {"after": draw([B, C] * 50)}, "after-only-the-zone"),
    "a failure that no pod's end explains": ("-failover", {"emptying": draw([A, record("", status=503, flags="FI"), B])}, "none-fails-while-it-empties"),
    "a failure while it fills": ("-failover", {"filling": draw([B, record("", status=500, flags="FI"), A])}, "none-fails-while-it-fills"),
    "an empty zone that answers": ("-failover", {"empty_alone": draw([A])}, "control-empty-zone-alone-answers-503"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_zones_that_do_otherwise_are_refuted(case):
    which, instead, claim = ELSEWHERE[case]

    assert outcomes(f"routing.locality{which}", **instead)[claim] is False


def test_a_killed_pod_leaves_a_failover_open():
    assert outcomes("routing.locality-failover", emptying=draw([A, LOST, B])) == {"none-fails-while-it-empties": None}


def test_a_connection_that_is_made_anew_may_begin_anywhere():
    moved = [*(record(pod, connection="10.0.0.1:1") for pod in [A, B, C] * 10), *(record(pod, connection="10.0.0.1:2") for pod in [C, A, B] * 10)]

    assert outcomes("routing.load-balancing-round-robin", one_by_one=[draw(moved)] * 4) == {}


def test_a_starved_machine_leaves_the_slow_pod_open():
    assert outcomes("routing.load-balancing-least-request", least_request=under_load(433, quick_ms=300.0)) == {"slow-pod-gets-less": None}


@given(st.lists(st.integers(0, 2), min_size=4, max_size=4), st.lists(st.integers(0, 3), min_size=60, max_size=60), st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_workers_that_take_turns_always_hold(worker_of, callers, started):
    at = dict(enumerate(started))

    def answers(lines):
        for line in lines:
            at[worker_of[line]] += 1
            yield record(ZONES[at[worker_of[line]] % 3], connection=f"10.0.0.1:{line}")

    together = draw(list(answers(callers)), concurrency=4)
    one_by_one = [draw(list(answers([line] * 60))) for line in range(4)]

    assert outcomes("routing.load-balancing-round-robin", together=together, one_by_one=one_by_one) == {}


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 1_200))
def test_schedules_by_weight_always_hold(first, second, of_first):
    # What Envoy does: the next is the one whose deadline, its number of calls over its weight, comes first.
    def schedule(start):
        served = dict.fromkeys(ZONES, 0)
        weights = dict(zip(ZONES, (70, 20, 10), strict=True))
        for number in count():
            chosen = min(ZONES, key=lambda zone: (served[zone] + 1) / weights[zone])
            served[chosen] += 1
            if number >= start % 97:
                yield chosen

    shared = draw([*islice(schedule(first), of_first), *islice(schedule(second), 1_200 - of_first)], concurrency=2)

    assert outcomes("routing.locality-distribute", shared=shared) == {}


def node(region, zone):
    return {"metadata": {"name": zone, "labels": {REGION_OF_NODE: region, ZONE_OF_NODE: zone}}}


@pytest.mark.parametrize(("nodes", "placed_by"), [
    ([node("local", zone) for zone in ZONES], NODES),
    ([node("local", A)], LABEL),
    ([node("eu", zone) for zone in ZONES], LABEL),
    ([{"metadata": {"name": "bare"}}], LABEL),
    ([], LABEL),
])
def test_pods_are_placed_by_nodes_only_where_every_zone_has_one(nodes, placed_by):
    assert zones_of(nodes).placed_by == placed_by


def test_a_pod_is_pinned_to_its_zone_or_labelled_with_it():
    pinned, labelled = (zones_of(nodes).place(greeter("f", "v1"), C)[2]["spec"]["template"] for nodes in ([node("local", zone) for zone in ZONES], []))

    assert pinned["spec"]["nodeSelector"] == {REGION_OF_NODE: "local", ZONE_OF_NODE: C}
    assert LOCALITY_LABEL not in pinned["metadata"]["labels"]
    assert labelled["metadata"]["labels"][LOCALITY_LABEL] == "local.zone-c"
    assert "nodeSelector" not in labelled["spec"]
    with pytest.raises(ValueError, match="no zone zone-d"):
        zones_of([]).place(greeter("f", "v1"), "zone-d")


class Admin:
    """A proxy's admin port behind `exec`, with Envoy's own words."""

    def exec(self, *_):
        def host(address, **more):
            return {"address": {"socket_address": {"address": address, "port_value": 8080}}, "weight": 1, **more}

        return json.dumps({"cluster_statuses": [
            {"name": "outbound|80||function.ns.svc.cluster.local", "host_statuses": [
                host("10.0.0.2", health_status={"eds_health_status": "HEALTHY", "failed_outlier_check": True}, locality={"zone": "b"}, priority=1),
                host("10.0.0.1", health_status={"eds_health_status": "HEALTHY"}, locality={"zone": "a"}),
            ]},
            {"name": "outbound|80|stable|function.ns.svc.cluster.local", "host_statuses": [host("10.0.0.3", health_status={"eds_health_status": "DRAINING"})]},
            {"name": "outbound|80|empty|function.ns.svc.cluster.local"},
            {"name": "outbound|4317||collector.internal;", "host_statuses": [host("10.0.0.4", health_status={"eds_health_status": "HEALTHY"})]},
        ]})


def test_endpoints_are_read_as_the_proxy_holds_them():
    istio = IstioClient(Admin(), Timeouts())

    assert istio.endpoints("ns", "caller", "function") == [Endpoint("10.0.0.1:8080", "a", 0, 1, healthy=True), Endpoint("10.0.0.2:8080", "b", 1, 1, healthy=False)]
    assert istio.endpoints("ns", "caller", "function", subset="stable") == [Endpoint("10.0.0.3:8080", "", 0, 1, healthy=False)]
    assert istio.endpoints("ns", "caller", "function", subset="empty") == istio.endpoints("ns", "caller", "other") == []
    assert istio.external_endpoints("ns", "caller", "collector.internal", 4317) == [Endpoint("10.0.0.4:8080", "", 0, 1, healthy=True)]
    assert istio.external_endpoints("ns", "caller", "collector.internal", 80) == []
