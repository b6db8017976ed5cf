"""Self-tests of the comparison of warm-up, minScale and neither."""

import copy

import pytest

from suites.support import warmup
from suites.support.warmup import BARE, KEPT, WARMED, Plan

PLAN = Plan(bursts=3, burst_s=2, rate_per_s=2, gap_s=15, window_s=6, period_s=3)
JUDGE = warmup.judge_of(PLAN)
# Each burst begins after two seconds of connecting, its gap, and the pairs before it.
BEGINS = [2_000 + 17_000 * number + 15_000 for number in range(3)]
ENDED = 60_000


def pod(name, created, ready=None, ending=None, gone=None):
    return {"pod": name, "created_ms": created, "ready_ms": created if ready is None else ready, "ending_ms": ending, "gone_ms": gone}


def arm(pods, answer):
    records = []
    for number, begins in enumerate(BEGINS):
        for due in range(begins, begins + 2_000, 500):
            name, latency = answer(number, due)
            records.append({"index": len(records), "status": 200, "latency_ms": float(latency), "started_ms": float(due), "late_ms": 0.0, "pod": name, "stage": f"burst-{number + 1}", "version": "v"})
    return {
        "load": {"count": len(records), "records": records},
        "scale": {"function": "f", "began_ms": -1_000.0, "ended_ms": ENDED, "pods": pods, "wanted": [{"at_ms": -1_000.0, "desired": 1, "actual": 1}]},
    }


def cold(number, due):
    ready = BEGINS[number] + 1_600
    return f"bare-{number}", max(10, ready - due)


def evidence():
    bare = [pod(f"bare-{number}", begins + 50, begins + 1_550, begins + 9_000, begins + 12_000) for number, begins in enumerate(BEGINS)]
    visits = {name: [{"at": "", "status": 200, "latency_ms": 5.0} for _ in range(17)] for name in ("w-1", "w-2")}
    return {
        "arms": {
            BARE: arm(bare, cold), WARMED: arm([pod("warm", -1_000)], lambda *_: ("warm", 10)), KEPT: arm([pod("kept", -1_000)], lambda *_: ("kept", 12)),
        },
        "visits": visits,
    }


def claims(changed):
    return {claim.name: claim.held for claim in JUDGE(changed).claims}


def test_the_expected_comparison_holds():
    verdict = JUDGE(evidence())

    assert verdict.outcome == "held", verdict.text()
    assert "p50 10 (10 to 10) ms" in verdict.text()
    assert "12 of them were held for a pod" in verdict.text()


def gone_cold(arm_name):
    changed = evidence()
    changed["arms"][arm_name] = copy.deepcopy(changed["arms"][BARE])
    return changed


def kept_warm():
    changed = evidence()
    changed["arms"][BARE] = copy.deepcopy(changed["arms"][KEPT])
    return changed


def two_kept():
    changed = evidence()
    changed["arms"][KEPT]["scale"]["pods"].append(pod("other", -1_000))
    return changed


def visited(visits):
    return evidence() | {"visits": visits}


def refused():
    changed = evidence()
    changed["visits"]["w-1"][3]["status"] = 404
    return changed


def one_refused(arm_name):
    changed = evidence()
    changed["arms"][arm_name]["load"]["records"][5]["status"] = 503
    return changed


@pytest.mark.parametrize(("changed", "refuted"), [
    (gone_cold(WARMED), {"warmed-is-never-cold", "warmed-costs-one-pod", "first-calls-are-quicker-warmed"}),
    (gone_cold(KEPT), {"kept-is-never-cold", "kept-costs-one-pod", "first-calls-are-quicker-kept"}),
    (kept_warm(), {"bare-is-cold-after-every-gap", "bare-costs-less-than-a-pod"}),
    (two_kept(), {"kept-costs-one-pod"}),
    (visited({}), {"two-more-pods-keep-it-warm"}),
    (visited({"w-1": evidence()["visits"]["w-1"]}), {"two-more-pods-keep-it-warm"}),
    (visited({"w-1": evidence()["visits"]["w-1"], "w-2": []}), {"two-more-pods-keep-it-warm"}),
    (refused(), {"two-more-pods-keep-it-warm"}),
    (one_refused(KEPT), {"kept-is-answered"}),
], ids=["cold-though-visited", "cold-though-kept", "warm-though-bare", "two-kept", "no-visitor", "one-visitor", "an-idle-visitor", "a-refused-visit", "a-refused-call"])
def test_what_is_otherwise_refutes_its_claims_and_no_others(changed, refuted):
    assert {name for name, held in claims(changed).items() if held is False} == refuted


@pytest.mark.parametrize("spoil", [lambda load: load.update(saturated="late"), lambda load: load.update(count=99)], ids=["saturated", "incomplete"])
@pytest.mark.parametrize("arm_name", warmup.ARMS)
def test_a_load_that_was_not_as_planned_leaves_it_open(arm_name, spoil):
    changed = evidence()
    spoil(changed["arms"][arm_name]["load"])

    assert JUDGE(changed).outcome == "inconclusive"


# Made after each of the first calls was due.
MADE = {"function": "f", "began_ms": -1.0, "ended_ms": 100.0, "pods": [pod("p", 50)], "wanted": []}


def firsts(latencies, *, stages="abc", status=200, saturated=""):
    records = [{"index": at, "status": status, "latency_ms": latency, "started_ms": float(at), "stage": stage, "pod": "p"} for at, (stage, latency) in enumerate(zip(stages, latencies, strict=False))]
    return {"count": len(records), "records": records, "saturated": saturated}


@pytest.mark.parametrize(("quick", "held"), [((1, 1, 1), True), ((1, 1, 99), True), ((1, 99, 99), None), ((99, 99, 99), False), ((10, 10, 10), False)])
def test_a_pair_is_decided_by_its_sign(quick, held):
    assert warmup.quicker("c", firsts(quick), firsts((10, 10, 10)), MADE, tuple("abc")).held is held


@pytest.mark.parametrize("quick", [firsts(()), firsts((1,)), firsts((1, 1, 1), status=0), firsts((99, 99, 99), saturated="late")], ids=["none", "one", "lost", "saturated"])
def test_a_missing_pair_decides_nothing(quick):
    assert warmup.quicker("c", quick, firsts((10, 10, 10)), MADE, tuple("abc")).held is None
    assert warmup.quicker("c", firsts((99, 99, 99)), quick, MADE, tuple("abc")).held is None


def test_a_gap_without_a_cold_start_is_no_pair():
    assert warmup.quicker("c", firsts((99, 99, 99)), firsts((10, 10, 10)), {**MADE, "pods": [pod("p", -1)]}, tuple("abc")).held is None


def test_the_load_of_an_arm_has_a_gap_before_every_burst_and_counts_only_those():
    profile = PLAN.profile()

    assert [(stage.name, stage.counted) for stage in profile.stages if stage.rate_per_s] == [("connect", False), ("burst-1", True), ("burst-2", True), ("burst-3", True)]
    assert [stage.seconds for stage in profile.stages if not stage.rate_per_s] == [25, 15, 15]


def test_a_stall_of_a_warm_call_in_every_pair_is_what_would_be_a_false_alarm():
    assert warmup.quicker_alpha(4) == pytest.approx(1e-6)
