"""Self-tests of the judges of releases: each holds on what is right, and each of its claims is refuted by its own fault."""

import copy

import pytest

from suites.support import requirements

FOUND = requirements.discover()
STEP_MS = 2_000.0


def call(at, version, persona="anybody", status=200):
    return {"index": 0, "status": status, "error": "", "latency_ms": 5.0, "started_ms": float(at), "version": version, "flags": "", "seen": {"x-persona": [persona]} if version else {}}


def drawn(**counts):
    records = [{"index": 0, "status": 200, "error": "", "version": version, "flags": "", "seen": {}} for version, count in counts.items() for _ in range(count)]
    return {"count": len(records), "records": records}


def stages(*names):
    """The first is in place when the load begins; each further one is applied two seconds after the last and takes half a second."""
    return [
        {"name": name, "applied_ms": STEP_MS * index, "effective_ms": STEP_MS * index + (500.0 if index else 0.0), "by_proxy": {}}
        for index, name in enumerate(names)
    ]


def load(*answers, persona=lambda _: "anybody"):
    """Ten milliseconds between calls; in each stage what `answers` says, by the call's number."""
    calls = [
        call(STEP_MS * index + at, answer(number) if callable(answer) else answer, persona(number))
        for index, answer in enumerate(answers) for number, at in enumerate(range(0, int(STEP_MS), 10))
    ]
    return {"count": len(calls), "records": calls}


def group(number):
    return ("group-a", "group-b-by-header", "group-b-by-cookie")[number % 3]


GOOD = {
    "routing.ab-test": {
        "load": load("stable", lambda number: "candidate" if number % 3 else "stable", persona=group), "stages": stages("before", "test"),
        "matches": {"x-group: b": drawn(candidate=100)}, "near-misses": {"x-group: bb": drawn(stable=180)},
    },
    "routing.blue-green": {
        "load": load("stable", "candidate"), "stages": stages("blue", "green"), "before": drawn(stable=200), "after": drawn(candidate=200),
    },
    "routing.canary": {
        "load": load("stable", "stable", "stable", "candidate", "candidate"),
        "steps": {
            name: {"stage": stage, "drawn": counts}
            for (name, counts), stage in zip({
                "0": {}, "1": drawn(candidate=25, stable=2475), "10": drawn(candidate=250, stable=2250), "50": drawn(candidate=1250, stable=1250), "100": drawn(candidate=1000),
            }.items(), stages("0", "1", "10", "50", "100"), strict=True)
        },
    },
    "routing.rollback": {
        "load": load("candidate", "stable"), "stages": stages("half", "taken-back"), "before": drawn(stable=1500, candidate=1500), "after": drawn(stable=1500),
    },
}

# What is done to the evidence, and the claim that must notice.
FAULTS = [
    ("routing.ab-test", "no-request-failed", lambda e: e["load"]["records"].append(call(2_100, "", status=503))),
    ("routing.ab-test", "stable-for-all-before", lambda e: e["load"]["records"].append(call(100, "candidate", "group-a"))),
    ("routing.ab-test", "group-a", lambda e: e["load"]["records"].append(call(3_000, "candidate", "group-a"))),
    ("routing.ab-test", "group-b-by-header", lambda e: e["load"]["records"].append(call(3_000, "stable", "group-b-by-header"))),
    ("routing.ab-test", "group-b-by-cookie", lambda e: e["load"]["records"].append(call(3_000, "stable", "group-b-by-cookie"))),
    ("routing.ab-test", "matches-inside", lambda e: e["matches"].update(more=drawn(stable=1))),
    ("routing.ab-test", "near-misses-inside", lambda e: e["near-misses"].update(more=drawn(candidate=1))),
    ("routing.blue-green", "no-request-failed", lambda e: e["load"]["records"].append(call(2_100, "", status=404))),
    ("routing.blue-green", "blue-before", lambda e: e["load"]["records"].append(call(100, "candidate"))),
    ("routing.blue-green", "blue-before-inside", lambda e: e.update(before=drawn(stable=199, candidate=1))),
    ("routing.blue-green", "green-after", lambda e: e["load"]["records"].append(call(3_000, "stable"))),
    ("routing.blue-green", "green-after-inside", lambda e: e.update(after=drawn(stable=1, candidate=199))),
    ("routing.canary", "no-request-failed", lambda e: e["load"]["records"].append(call(100, "", status=0))),
    ("routing.canary", "stable-before", lambda e: e["load"]["records"].append(call(100, "candidate"))),
    ("routing.canary", "shares-at-1", lambda e: e["steps"]["1"].update(drawn=drawn(candidate=75, stable=2425))),
    ("routing.canary", "shares-at-10", lambda e: e["steps"]["10"].update(drawn=drawn(candidate=375, stable=2125))),
    ("routing.canary", "shares-at-50", lambda e: e["steps"]["50"].update(drawn=drawn(candidate=1440, stable=1060))),
    ("routing.canary", "candidate-at-100", lambda e: e["load"]["records"].append(call(9_000, "stable"))),
    ("routing.canary", "candidate-at-100-inside", lambda e: e["steps"]["100"].update(drawn=drawn(candidate=999, stable=1))),
    ("routing.rollback", "no-request-failed", lambda e: e["load"]["records"].append(call(2_100, "", status=503))),
    ("routing.rollback", "shares-before", lambda e: e.update(before=drawn(stable=1720, candidate=1280))),
    ("routing.rollback", "stable-after", lambda e: e["load"]["records"].append(call(3_000, "candidate"))),
    ("routing.rollback", "stable-after-inside", lambda e: e.update(after=drawn(stable=1499, candidate=1))),
]


@pytest.mark.parametrize("requirement_id", GOOD)
def test_what_is_right_holds(requirement_id):
    verdict = requirements.judge(FOUND[requirement_id], GOOD[requirement_id])

    assert verdict.outcome == "held", verdict.text()


@pytest.mark.parametrize(("requirement_id", "claim", "fault"), FAULTS, ids=[f"{each}-{claim}" for each, claim, _ in FAULTS])
def test_every_fault_is_noticed_by_its_claim(requirement_id, claim, fault):
    evidence = copy.deepcopy(GOOD[requirement_id])
    fault(evidence)

    assert claim in {each.name for each in requirements.judge(FOUND[requirement_id], evidence).failed_claims}


def test_no_claim_is_without_a_fault():
    for requirement_id, evidence in GOOD.items():
        claims = {claim.name for claim in requirements.judge(FOUND[requirement_id], evidence).claims}
        assert claims == {claim for each, claim, _ in FAULTS if each == requirement_id}


@pytest.mark.parametrize("requirement_id", GOOD)
def test_a_load_that_was_not_written_down_settles_nothing(requirement_id):
    evidence = {**GOOD[requirement_id], "load": {"count": 900, "records": []}}

    assert requirements.judge(FOUND[requirement_id], evidence).outcome == "inconclusive"
