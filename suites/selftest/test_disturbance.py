"""Self-tests of what a changed world does to a verdict."""

import pytest

from clusters.errors import UserError
from clusters.pods import state_of
from suites.support import disturbance
from suites.support.verdicts import Claim, Verdict

CALLER = {"pod": "caller-1", "restarts": 0, "ready_since": "2026-11-23T13:00:00Z"}
FUNCTION = {"pod": "function-1", "restarts": 1, "ready_since": "2026-11-23T13:00:01Z"}
BEFORE = {"pods": {"u1": CALLER, "u2": FUNCTION}, "ended_on_purpose": []}
HELD = Verdict.of(Claim("answered", held=True, said="all were answered"))
FAILED = Verdict.of(Claim("answered", held=False, said="3 failed", expected="20", got="17"), Claim("shares", held=True, said="they agree"))


def after(function=FUNCTION, **more):
    return {"pods": {"u1": CALLER, **({"u2": function} if function else {}), **more}, "ended_on_purpose": []}


@pytest.mark.parametrize(("function", "said"), [
    (None, "pod function-1 ended"),
    ({**FUNCTION, "restarts": 2}, "pod function-1 restarted 1 containers"),
    ({**FUNCTION, "ready_since": ""}, "pod function-1 is no longer ready"),
    ({**FUNCTION, "ready_since": "2026-11-23T13:05:00Z"}, "pod function-1 was not ready for a while"),
])
def test_whatever_happens_to_a_pod_makes_the_verdict_inconclusive_with_the_reason(function, said):
    for verdict in (HELD, FAILED):
        weighed = disturbance.weigh(verdict, {"world": {"before": BEFORE, "after": after(function)}})

        assert weighed.outcome == "inconclusive"
        assert said in weighed.reason
        assert not weighed.failed_claims


def test_a_quiet_world_changes_nothing():
    evidence = {"world": {"before": BEFORE, "after": after(u3={**FUNCTION, "pod": "function-2"})}}

    assert disturbance.weigh(HELD, evidence) == HELD
    assert disturbance.weigh(FAILED, evidence) == FAILED
    assert disturbance.weigh(FAILED, {}) == FAILED


def test_a_pod_that_was_ended_on_purpose_disturbs_nothing():
    evidence = {"world": {"before": BEFORE, "after": {**after(None), "ended_on_purpose": ["function-1"]}}}

    assert disturbance.weigh(FAILED, evidence) == FAILED


def test_a_pod_that_was_on_its_way_out_already_disturbs_nothing():
    was = {**FUNCTION, "ready_since": "", "leaving": True}

    for now in (None, was):
        assert disturbance.weigh(FAILED, {"world": {"before": {"pods": {"u1": CALLER, "u2": was}, "ended_on_purpose": []}, "after": after(now)}}) == FAILED


@pytest.mark.parametrize("world", [{}, {"before": BEFORE}, {"before": BEFORE, "after": []}, {"before": BEFORE, "after": {"pods": {}}}])
def test_a_world_that_cannot_be_read_is_a_damaged_file(world):
    with pytest.raises(UserError, match="evidence of the world"):
        disturbance.weigh(HELD, {"world": world})


def test_the_state_of_a_pod_is_what_its_status_says():
    pod = {
        "metadata": {"name": "function-1", "uid": "u2"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-23T13:00:01Z"}],
            "initContainerStatuses": [{"name": "istio-proxy", "restartCount": 1}], "containerStatuses": [{"name": "greeter", "restartCount": 0}],
        },
    }

    assert state_of(pod) == FUNCTION
    leaving = state_of({**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "now"}})
    assert (leaving["ready_since"], leaving["leaving"]) == ("", True)
