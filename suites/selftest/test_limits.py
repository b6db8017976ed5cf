"""Self-tests of the judges of limits, ejections and egress: each holds on what is right, and each of its claims can be refuted and left open."""

import copy

import pytest

from suites.support import requirements

FOUND = requirements.discover()
OVERFLOW = "upstream_rq_pending_overflow"
EJECTIONS = "outlier_detection.ejections_enforced_total"
BY_5XX = "outlier_detection.ejections_enforced_consecutive_5xx"


def draw(count, status=200, version="v1", *, ms=5.0, began="2026-01-01T00:00:00.000000Z", **more):
    one = {"status": status, "version": version if status == 200 else "", "flags": "", "error": "", "latency_ms": ms, "started_ms": 0.0, "seen": {}, **more}
    return {"count": count, "began": began, "records": [{**one, "index": index} for index in range(count)]}


def pair(each, status, *, began="2026-01-01T00:00:00.000000Z", healthy=200):
    """What round robin over a failing and a healthy pod makes of twice `each` calls."""
    both = draw(2 * each, began=began)
    for record in both["records"]:
        failing = record["index"] % 2
        record |= {"version": "failing" if failing else "healthy", "status": status if failing else healthy}
    return both


def load(*waves, overflow=0, most_in_hand, total):
    return {
        "waves": list(waves), "before": {OVERFLOW: 7}, "held": {}, "after": {OVERFLOW: 7 + overflow},
        "function": {"most_in_hand": most_in_hand, "total": total, "connections": 1},
    }


def refused(count, flag="UO", **more):
    return draw(count, 503, flags=flag, **more)


GOOD = {
    "routing.connection-pool-limits": {
        "limited": load(draw(100), draw(1000), refused(50), overflow=50, most_in_hand=100, total=1100),
        "unlimited": load(draw(100), draw(1000), draw(50), most_in_hand=1150, total=1150),
    },
    "routing.connection-recycling": {
        "recycled": {"draw": draw(110), "before": {}, "after": {"upstream_cx_max_requests": 11}, "function": {"total": 110, "connections": 11}},
        "kept": {"draw": draw(110), "before": {}, "after": {}, "function": {"total": 110, "connections": 1}},
    },
    "routing.connect-timeout": {
        "short": {"draw": refused(20, "UF", ms=31.0), "before": {}, "after": {"upstream_cx_connect_timeout": 20}},
        "long": {"draw": refused(2, "UF", ms=998.5), "before": {}, "after": {"upstream_cx_connect_timeout": 2}},
        "listening": draw(20),
    },
    "routing.circuit-breaker": {
        "broken": load(draw(40), draw(50), refused(10), overflow=10, most_in_hand=40, total=90),
        "afterwards": draw(20),
        "multiplexed": load(draw(40), refused(10), overflow=10, most_in_hand=40, total=40),
        "control": load(draw(40), draw(50), draw(10), most_in_hand=100, total=100),
    },
    "routing.outlier-detection": {
        "pods": {"10.0.0.1": "failing", "10.0.0.2": "healthy"}, "ejected": {"10.0.0.1": True, "10.0.0.2": False},
        "control": pair(20, 500), "six": pair(6, 500), "success": pair(1, 200), "six-more": pair(6, 500), "seventh": pair(1, 500),
        "afterwards": draw(40, version="healthy"),
        "before": {}, "after-six": {EJECTIONS: 0, BY_5XX: 0}, "after-seven": {EJECTIONS: 1, BY_5XX: 1}, "after": {EJECTIONS: 1, BY_5XX: 1},
    },
    "routing.outlier-readmission": {
        "pods": {"10.0.0.1": "failing", "10.0.0.2": "healthy"}, "ejected": {"10.0.0.1": False, "10.0.0.2": False},
        "errors": pair(7, 500), "before": {}, "after": {EJECTIONS: 1}, "afterwards": pair(20, 200),
        "looks": [draw(2, version="healthy", began="2026-01-01T00:00:20.000000Z"), pair(1, 200, began="2026-01-01T00:00:58.000000Z")],
    },
    "routing.outlier-max-ejection": {
        "control": pair(10, 500, healthy=500),
        "tenth": {"ejected": {"a": False, "b": False}, "afterwards": pair(10, 500, healthy=500)},
        "half": {"ejected": {"a": True, "b": False}, "afterwards": draw(20, 500)},
        "all": {"ejected": {"a": True, "b": True}, "afterwards": refused(20, "UH")},
        "panicking": {"ejected": {"a": True, "b": True}, "afterwards": pair(10, 500, healthy=500)},
    },
    "routing.egress": {
        "registered": draw(20, version="registered"),
        "unknown-names": {"here": draw(20, 502), "there": draw(20, 502)},
        "unknown-address": draw(20, 0, error="read: closed by the other side"),
        "control": {"name": draw(20, version="unregistered"), "address": draw(20, version="unregistered")},
        "arrived": {"total": 0},
        "log": {
            "names": [{"route_name": "block_all", "response_code_details": "direct_response"}] * 40,
            "address": [{"upstream_cluster": "BlackHoleCluster;", "response_flags": "UH"}] * 20,
        },
    },
}
for one in GOOD["routing.outlier-max-ejection"]["half"]["afterwards"]["records"]:
    one["version"] = "healthy"

LIMITS, RECYCLING, TIMEOUT, BREAKER, DETECTION, READMISSION, BOUND, EGRESS = GOOD
LATER, TOO_LATE = "2026-01-01T00:01:14.000000Z", "2026-01-01T00:01:16.000000Z"

# Requirement, claim, where in the evidence, what stands there instead, and what the claim then is.
CHANGED = [
    (LIMITS, "connected-are-answered", "limited waves 0 records 3 status", 503, False),
    (LIMITS, "waiting-are-answered", "limited waves 1 records 3 status", 503, False),
    (LIMITS, "surplus-refused", "limited waves 2", draw(50), False),
    (LIMITS, "surplus-refused", "limited waves 2", refused(49), None),
    (LIMITS, "overflow-counted", "limited after", {OVERFLOW: 56}, False),
    (LIMITS, "connections-bounded", "limited function most_in_hand", 101, False),
    (LIMITS, "connections-bounded", "limited function most_in_hand", 99, False),
    (LIMITS, "control-wave-3-answered", "unlimited waves 2", refused(50), False),
    (LIMITS, "control-without-overflow", "unlimited after", {OVERFLOW: 8}, False),
    (LIMITS, "control-unbounded", "unlimited function most_in_hand", 100, False),
    (RECYCLING, "every-call-answered", "recycled draw", draw(110, 503), False),
    (RECYCLING, "connections-of-ten-requests", "recycled function connections", 10, False),
    (RECYCLING, "connections-of-ten-requests", "recycled function connections", 12, False),
    (RECYCLING, "connections-of-ten-requests", "recycled function total", 109, None),
    (RECYCLING, "closed-by-the-limit", "recycled after upstream_cx_max_requests", 10, False),
    (RECYCLING, "control-answered", "kept draw records 0 status", 500, False),
    (RECYCLING, "control-keeps-one", "kept function connections", 11, False),
    (TIMEOUT, "refused-by-the-proxy", "short draw", draw(20), False),
    (TIMEOUT, "refused-by-the-proxy", "short draw", draw(20, 0, error="read: timeout"), None),
    (TIMEOUT, "not-before-the-time-out", "short draw records 7 latency_ms", 15.0, False),
    (TIMEOUT, "long-before-the-control", "short draw", refused(20, "UF", ms=1000.0), False),
    (TIMEOUT, "long-before-the-control", "short draw", draw(0), None),
    (TIMEOUT, "one-attempt-a-call", "short after upstream_cx_connect_timeout", 60, False),
    (TIMEOUT, "listener-is-answered", "listening", refused(20, "UF"), False),
    (TIMEOUT, "control-refused-by-the-proxy", "long draw", draw(2), False),
    (TIMEOUT, "control-not-before-its-time-out", "long draw", refused(2, "UF", ms=30.0), False),
    (TIMEOUT, "control-one-attempt-a-call", "long after upstream_cx_connect_timeout", 6, False),
    (BREAKER, "under-way-are-answered", "broken waves 0", refused(40), False),
    (BREAKER, "waiting-are-answered", "broken waves 1 records 49 status", 503, False),
    (BREAKER, "surplus-refused", "broken waves 2 records 0", draw(1)["records"][0], False),
    (BREAKER, "overflow-counted", "broken after", {OVERFLOW: 7}, False),
    (BREAKER, "function-sees-what-was-answered", "broken function total", 91, False),
    (BREAKER, "closes-again", "afterwards records 0 status", 503, False),
    (BREAKER, "multiplexed-under-way-are-answered", "multiplexed waves 0 records 39 status", 503, False),
    (BREAKER, "multiplexed-surplus-refused", "multiplexed waves 1", draw(10), False),
    (BREAKER, "multiplexed-overflow-counted", "multiplexed after", {OVERFLOW: 7}, False),
    (BREAKER, "control-answered", "control waves 2", refused(10), False),
    (BREAKER, "control-without-overflow", "control after", {OVERFLOW: 17}, False),
    (DETECTION, "six-errors", "six", pair(5, 500), False),
    (DETECTION, "six-errors", "six records 0 status", 0, None),
    (DETECTION, "a-success", "success", draw(2, version="healthy"), False),
    (DETECTION, "six-more-errors", "six-more", pair(7, 500), False),
    (DETECTION, "not-ejected-after-six", "after-six", {EJECTIONS: 1, BY_5XX: 1}, False),
    (DETECTION, "seventh-error", "seventh", draw(2, version="healthy"), False),
    (DETECTION, "ejected-after-seven", "after-seven", {EJECTIONS: 0, BY_5XX: 0}, False),
    (DETECTION, "ejected-after-seven", "after-seven", {}, None),
    (DETECTION, "failing-is-ejected", "ejected", {"10.0.0.1": False, "10.0.0.2": False}, False),
    (DETECTION, "failing-is-ejected", "ejected", {"10.0.0.2": False}, None),
    (DETECTION, "ejected-gets-nothing", "afterwards records 39 version", "failing", False),
    (DETECTION, "healthy-is-not-ejected", "ejected", {"10.0.0.1": True, "10.0.0.2": True}, False),
    (DETECTION, "one-ejection-in-all", "after", {EJECTIONS: 2}, False),
    (DETECTION, "control-failing-stays", "control", draw(40, version="healthy"), False),
    (READMISSION, "seven-errors", "errors", pair(6, 500), False),
    (READMISSION, "ejected-once", "after", {EJECTIONS: 2}, False),
    (READMISSION, "not-back-too-early", "looks 1 began", "2026-01-01T00:00:29.900000Z", False),
    (READMISSION, "not-back-too-early", "looks 1", draw(2, version="healthy", began=TOO_LATE), None),
    (READMISSION, "not-back-too-early", "looks", [], None),
    (READMISSION, "back-in-time", "looks 1 began", TOO_LATE, False),
    (READMISSION, "back-in-time", "looks 1", draw(2, version="healthy", began=TOO_LATE), False),
    (READMISSION, "back-in-time", "looks 1", draw(2, version="healthy", began=LATER), None),
    (READMISSION, "back-in-time", "errors", draw(0), None),
    (READMISSION, "every-look-is-answered", "looks 0 records 0 status", 503, False),
    (READMISSION, "takes-its-share-again", "afterwards", draw(40, version="healthy"), False),
    (READMISSION, "failing-is-in-again", "ejected", {"10.0.0.1": True, "10.0.0.2": False}, False),
    (READMISSION, "healthy-is-not-ejected", "ejected", {"10.0.0.1": False, "10.0.0.2": True}, False),
    (BOUND, "a-tenth-of-two-is-none", "tenth ejected b", True, False),
    (BOUND, "a-tenth-keeps-both", "tenth afterwards", draw(20, version="healthy"), False),
    (BOUND, "half-of-two-is-one", "half ejected a", False, False),
    (BOUND, "half-of-two-is-one", "half ejected", {"a": True}, None),
    (BOUND, "the-other-takes-every-call", "half afterwards", pair(10, 500, healthy=500), False),
    (BOUND, "the-other-takes-every-call", "half afterwards", draw(0), None),
    (BOUND, "the-other-takes-every-call", "half afterwards", refused(20, "UH"), False),
    (BOUND, "all-of-two-are-two", "all ejected b", False, False),
    (BOUND, "nobody-is-left", "all afterwards", draw(20, version="healthy"), False),
    (BOUND, "panicking-ejects-both", "panicking ejected", {"a": False, "b": False}, False),
    (BOUND, "panic-calls-both", "panicking afterwards", refused(20, "UH"), False),
    (BOUND, "control-keeps-both", "control", refused(20, "UH"), False),
    (EGRESS, "registered-reached", "registered", draw(20, 404), False),
    (EGRESS, "unknown-hosts-refused", "unknown-names there", draw(20, version="unregistered"), False),
    (EGRESS, "unknown-hosts-refused", "unknown-names", {}, None),
    (EGRESS, "refused-by-block-all", "log names", [{"route_name": "allow_any"}] * 40, False),
    (EGRESS, "refused-by-block-all", "log names", [], None),
    (EGRESS, "unknown-address-refused", "unknown-address", draw(20, version="unregistered"), False),
    (EGRESS, "unknown-address-refused", "unknown-address", draw(20, 0, error="connect: timeout"), None),
    (EGRESS, "sent-to-the-black-hole", "log address", [{"upstream_cluster": "PassthroughCluster", "response_flags": "-"}] * 20, False),
    (EGRESS, "sent-to-the-black-hole", "log address", [{"upstream_cluster": "BlackHoleCluster", "response_flags": "UH"}] * 19, None),
    (EGRESS, "nothing-arrived", "arrived total", 1, False),
    (EGRESS, "control-name-reached", "control name", draw(20, 502), False),
    (EGRESS, "control-address-reached", "control address", draw(20, 0, error="read: closed by the other side"), None),
]


def changed(evidence, path, value):
    """Return the evidence with another value at a path of keys and list positions."""
    made = copy.deepcopy(evidence)
    *way, last = [int(step) if step.isdigit() else step for step in path.split()]
    place = made
    for step in way:
        place = place[step]
    place[last] = value
    return made


@pytest.mark.parametrize("requirement", GOOD)
def test_what_is_right_holds(requirement):
    verdict = FOUND[requirement].judge(GOOD[requirement])

    assert verdict.outcome == "held", verdict.text()


@pytest.mark.parametrize(("requirement", "claim", "path", "value", "held"), CHANGED, ids=[f"{one[0]} {one[1]} {number}" for number, one in enumerate(CHANGED)])
def test_every_claim_sees_its_fault(requirement, claim, path, value, held):
    verdict = FOUND[requirement].judge(changed(GOOD[requirement], path, value))

    assert {one.name: one.held for one in verdict.claims}[claim] is held, verdict.text()


@pytest.mark.parametrize("requirement", GOOD)
def test_no_claim_is_without_a_fault(requirement):
    claims = {claim.name for claim in FOUND[requirement].judge(GOOD[requirement]).claims}
    refuted = {claim for one, claim, _, _, held in CHANGED if one == requirement and held is False}

    # One wave of the three stands for the others; an address that answers nothing settles nothing.
    assert claims - refuted <= {"control-wave-1-answered", "control-wave-2-answered", "control-address-reached"}
