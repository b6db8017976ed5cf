"""The check of autoscaling against an autoscaler that is simulated by the published rules, and against ones that are not as declared."""

import math
from dataclasses import replace

import pytest

from suites.support import scaling
from suites.support.requirements import discover
from suites.support.scaling import Target
from workloads.load import OpenProfile, Stage

CHECK = discover()["functions.knative-autoscaling"]
HELD_MS = 3_000.0
# What the check asks for; a difference shows below, in the judge's own words.
PROFILE = OpenProfile((Stage("connect", 1, 1.2, counted=False), Stage("up", 17, 1.2), Stage("full", 18, 8), Stage("down", 22, 1.2)))
DECLARED = Target(calls_per_pod=2, utilization=0.7, least=1, most=10, window_s=6)
LOOK_MS, IDLE_MS = 2_000, 20_000


def calls(held_ms=HELD_MS + 40):
    arrivals = [(arrival, PROFILE.stages[arrival.stage]) for arrival in PROFILE.schedule()]
    return [
        {"index": index, "status": 200, "latency_ms": held_ms, "started_ms": 1000 * arrival.due_s, "late_ms": 0.0, "stage": stage.name, "pod": "p", "version": "v"}
        for index, (arrival, stage) in enumerate(arrivals)
    ]


def simulate(target, *, phase=0, delay=0, records=None):
    """Return the evidence of an autoscaler that looks every two seconds, takes away half at most, and does what `target` says."""
    records = calls() if records is None else records
    ended = max(one["started_ms"] + one["latency_ms"] for one in records) + IDLE_MS
    pods, wanted = [{"pod": "p0", "created_ms": -5_000.0, "ready_ms": -5_000.0, "ending_ms": None, "gone_ms": None}], [{"at_ms": -5_000.0, "desired": 1, "actual": 1}]
    history = []
    for at in range(phase, int(ended), LOOK_MS):
        _, in_hand = scaling.in_hand(records, HELD_MS, (at - 1000 * target.window_s, float(at)))
        ready = [pod for pod in pods if pod["ending_ms"] is None and pod["ready_ms"] <= at]
        history.append(target.demanded(in_hand) and max(target.demanded(in_hand), len(ready) // 2))
        asked = max(target.least, min(target.most, max(history[-1 - delay :])))
        current = [pod for pod in pods if pod["ending_ms"] is None]
        for number in range(asked - len(current)):
            pods.append({"pod": f"p{len(pods)}-{number}", "created_ms": at + 50.0, "ready_ms": at + 3_000.0, "ending_ms": None, "gone_ms": None})
        for pod in current[asked:]:
            pod.update(ending_ms=at + 50.0, gone_ms=at + 10_000.0)
        if wanted[-1]["desired"] != asked:
            wanted.append({"at_ms": float(at), "desired": asked, "actual": len(ready)})
    counted = [one for one in records if one["stage"] != "connect"]
    return {
        "load": {"count": len(counted), "records": counted, "saturated": ""},
        "scale": {"function": "f", "began_ms": -5_000.0, "ended_ms": ended, "pods": pods, "wanted": wanted},
    }


def refuted(evidence):
    return {claim.name for claim in CHECK.judge(evidence).claims if claim.held is False}


@pytest.mark.parametrize("phase", range(0, LOOK_MS, 250))
def test_an_autoscaler_as_declared_holds_whenever_it_looks(phase):
    verdict = CHECK.judge(simulate(DECLARED, phase=phase))

    assert verdict.outcome == "held", verdict.text()


@pytest.mark.parametrize("overhead_ms", [5, 100, 300])
def test_what_a_busy_machine_adds_to_every_call_refutes_nothing(overhead_ms):
    verdict = CHECK.judge(simulate(DECLARED, records=calls(HELD_MS + overhead_ms)))

    assert verdict.outcome == "held", verdict.text()


@pytest.mark.parametrize(("target", "claim"), [
    (replace(DECLARED, most=11), "never-above-ten"),
    (replace(DECLARED, most=9), "ten-where-more-are-demanded"),
    (replace(DECLARED, least=0), "never-below-one"),
    (replace(DECLARED, least=2), "one-again-at-the-end"),
    (replace(DECLARED, calls_per_pod=4), "as-many-as-demanded"),
    (replace(DECLARED, calls_per_pod=1), "as-many-as-demanded"),
    (replace(DECLARED, utilization=1.0), "as-many-as-demanded"),
])
def test_an_autoscaler_that_was_told_otherwise_is_refuted(target, claim):
    assert claim in refuted(simulate(target))


def test_an_autoscaler_that_is_slow_to_scale_down_is_refuted():
    assert "as-many-as-demanded-on-the-way-down" in refuted(simulate(DECLARED, delay=15))


def test_a_lost_call_is_refuted():
    evidence = simulate(DECLARED)
    evidence["load"]["records"][-3]["status"] = 503

    assert refuted(evidence) == {"no-call-lost"}


def test_the_load_demands_what_the_check_says_of_it():
    records = calls()

    few, many = (scaling.in_hand(records, HELD_MS, span)[0] for span in ((6_000.0, 16_000.0), (24_000.0, 34_000.0)))

    assert (DECLARED.demanded(few), DECLARED.demanded(many)) == (3, 18)
    assert math.isclose(few, 3.6, rel_tol=0.05)
