"""Cold starts: their moments are read from what was told of them, and each claim holds, fails and is left open where it should be."""

import copy
from typing import Any

import pytest

from clusters.watching import Change
from suites.support import coldstarts
from suites.support.coldstarts import TOLERANCE_MS, event_moments, function_moments, phases, pod_moments, proxy_moments, pulls

ZERO = {"pods": [], "leaving": 1, "wanted": 0, "there": 0, "endpoints": 0}
ASKED = 1_000_000.0
PRESENT = 'Container image "greeter:1" already present on machine'


def start(function: str = "go", *, sidecar: bool = True, **change: Any) -> dict[str, Any]:
    names = [name for name in coldstarts.MOMENTS if sidecar or name != "proxy"]
    moments = {name: ASKED + 100.0 * place for place, name in enumerate(names)}
    return copy.deepcopy({
        "function": function, "zero": ZERO, "status": 200, "error": "", "latency_ms": 100.0 * (len(names) - 1), "pod": "p",
        "containers": ["istio-init", "istio-proxy", "user-container", "queue-proxy"] if sidecar else ["user-container", "queue-proxy"],
        "pulls": {"user-container": PRESENT, "queue-proxy": PRESENT}, "moments": moments, **change,
    })


def without(moment: str) -> dict[str, Any]:
    found = start()
    del found["moments"][moment]
    return found


def moved(moment: str, by: float) -> dict[str, Any]:
    found = start()
    found["moments"][moment] += by
    return found


def pod(at: float, kind: str = "MODIFIED", *, node: str = "", **conditions: str) -> Change:
    return Change(at, kind, {
        "metadata": {"name": "p"}, "spec": {"nodeName": node} if node else {},
        "status": {"conditions": [{"type": name, "status": status} for name, status in conditions.items()]},
    })


def event(at: float, reason: str, container: str = "", message: str = "") -> Change:
    path = {"fieldPath": f"spec.containers{{{container}}}"} if container else {}
    return Change(at, "ADDED", {"metadata": {"name": "e"}, "involvedObject": {"name": "p", **path}, "reason": reason, "message": message})


def test_a_pod_s_moments_are_the_first_at_which_each_was_told() -> None:
    told = [
        pod(1.0, "ADDED"), pod(1.1, node="n"), pod(1.5, node="n", PodReadyToStartContainers="True", Ready="False"),
        pod(2.0, node="n", PodReadyToStartContainers="True", Ready="True"), pod(3.0, node="n", Ready="True"),
    ]  # fmt: skip

    assert pod_moments(told) == {"created": 1000, "scheduled": 1100, "network": 1500, "ready": 2000}
    assert pod_moments([]) == {}


def test_events_tell_of_the_first_image_and_of_the_function_s() -> None:
    told = [event(1.0, "Scheduled"), event(1.2, "Pulled", "istio-init", PRESENT), event(1.3, "Started", "istio-init"), event(2.0, "Pulled", "user-container", PRESENT), event(2.1, "Pulled", "queue-proxy", PRESENT)]

    assert event_moments(told) == {"sandbox": 1200, "image": 2000}
    assert pulls(told) == dict.fromkeys(("istio-init", "user-container", "queue-proxy"), PRESENT)
    assert coldstarts.told_events(told)[2] == [1300, "istio-init", "Started"]


def test_a_function_s_log_tells_of_its_start_and_of_the_one_request() -> None:
    log = (
        '1970-01-01T00:16:41.000000001Z {"runtime":"go1.26","process_began_ms":1000,"listening_ms":1005.5}\n'
        "1970-01-01T00:16:41.1Z not JSON {\n"
        '1970-01-01T00:16:41.200000000Z {"request_id":"a","path":"/other"}\n'
        '1970-01-01T00:16:41.300000000Z {"request_id":"b","path":"/this"}\n'
        '1970-01-01T00:16:41.400000000Z {"request_id":"b","path":"/this"}\n'
        "no stamp\n"
        '1970-01-01T00:16:41.5Z {"path":'
    )  # fmt: skip

    assert function_moments(log, "/this") == {"started": 1000, "listening": 1005.5, "reached": pytest.approx(1_001_300)}
    assert function_moments("", "/this") == {}


def test_a_sidecar_s_log_tells_when_envoy_was_ready() -> None:
    log = "1970-01-01T00:00:01Z 2026 info Initialization\n1970-01-01T00:00:02.5Z 2026 info Envoy proxy is ready\n1970-01-01T00:00:03Z Envoy proxy is ready\n"

    assert proxy_moments(log) == {"proxy": 2500}
    assert proxy_moments("") == {}


def test_phases_lead_from_each_moment_to_the_next() -> None:
    assert phases(start()) == dict.fromkeys(("decision", "scheduling", "sandbox", "proxy", "image", "container", "function", "route", "answer"), 100.0)
    assert list(phases(start(sidecar=False)) or ()) == ["decision", "scheduling", "sandbox", "image", "container", "function", "route", "answer"]
    assert phases(without("listening")) is None
    assert phases({}) is None


@pytest.mark.parametrize(
    ("starts", "held"),
    [
        ([start(), start("node")], True),
        ([start(), start(zero={**ZERO, "pods": ["p"]})], False),
        ([start(zero={**ZERO, "endpoints": 1})], False),
        ([start(zero={**ZERO, "wanted": -1})], True),
        ([start(zero={**ZERO, "wanted": 1})], False),
        ([start(zero={**ZERO, "there": -1})], False),
        ([start(zero={**ZERO, "there": 1})], False),
        ([moved("created", -100 - TOLERANCE_MS - 1)], False),
        ([moved("created", -100 - TOLERANCE_MS + 1)], True),
        ([without("created")], None),
        ([], None),
    ],
)
def test_zero_before_a_start_is_nothing_at_all(starts: list[dict[str, Any]], *, held: bool | None) -> None:
    assert coldstarts.zero_before("x", starts).held is held


@pytest.mark.parametrize(
    ("starts", "held"),
    [([start(), start()], True), ([start()], None), ([], None), ([start(), start(), start(status=503)], False), ([start(status=0, error="read: timeout", moments={})], False)],
)
def test_a_start_that_failed_is_counted(starts: list[dict[str, Any]], *, held: bool | None) -> None:
    assert coldstarts.all_answered("x", starts, least=2).held is held


@pytest.mark.parametrize(
    ("starts", "held"),
    [
        ([start(), start(sidecar=False)], True),
        ([moved("scheduled", -100 - TOLERANCE_MS + 1)], True),
        ([start(), moved("listening", 100 + TOLERANCE_MS + 1)], False),
        # Heard of when the process had begun: it was there before.
        ([start(), moved("image", 433)], True),
        ([moved("answered", 300)], False),
        ([start(latency_ms=600.0)], False),
        ([start(), without("reached")], None),
        ([start(), {**start(status=0), "moments": {}}], None),
        ([], None),
    ],
)
def test_phases_must_be_in_order_and_add_up(starts: list[dict[str, Any]], *, held: bool | None) -> None:
    assert coldstarts.phases_add_up("x", starts).held is held


@pytest.mark.parametrize(
    ("starts", "held"),
    [
        ([start()], True),
        ([start(), start(pulls={"user-container": "Successfully pulled image in 1.2s"})], False),
        ([start(), start(pulls={})], None),
        ([], None),
    ],
)
def test_a_pulled_image_is_no_part_of_a_start(starts: list[dict[str, Any]], *, held: bool | None) -> None:
    assert coldstarts.images_present("x", starts).held is held


@pytest.mark.parametrize(
    ("starts", "wanted", "held"),
    [
        ([start()], True, True),
        ([start(), start(sidecar=False)], True, False),
        ([moved("proxy", -200)], True, False),
        ([without("proxy")], True, None),
        ([], True, None),
        ([start(sidecar=False)], False, True),
        ([start(sidecar=False), start()], False, False),
        ([], False, None),
    ],
)
def test_a_sidecar_is_there_or_it_is_not(starts: list[dict[str, Any]], *, wanted: bool, held: bool | None) -> None:
    assert coldstarts.has_proxy_phase("x", starts, wanted=wanted).held is held
