"""Self-tests of the judges of a change under load: what they hold, refute, and leave open."""

import pytest

from clusters.errors import UserError
from suites.support import rollouts
from workloads.load import PERSONA_HEADER

BEFORE = {"name": "before", "applied_ms": 0.0, "effective_ms": 0.0, "by_proxy": {}}
AFTER = {"name": "after", "applied_ms": 1_000.0, "effective_ms": 1_500.0, "by_proxy": {"caller": 0.5}}
STAGES = [BEFORE, AFTER]
VERSIONS = ("stable", "candidate")


def call(started_ms, version, status=200, persona="group-a"):
    seen = {PERSONA_HEADER: [persona]} if version else {}
    return {"index": 0, "status": status, "error": "", "latency_ms": 5.0, "started_ms": float(started_ms), "version": version, "flags": "", "seen": seen}


def load(*calls, count=None):
    return {"count": len(calls) if count is None else count, "records": list(calls)}


def change(every_ms=10, until_ms=3_000, switched_ms=1_200):
    return [call(at, "stable" if at < switched_ms else "candidate") for at in range(0, until_ms, every_ms)]


def test_a_change_without_a_failed_call_is_uninterrupted():
    claim = rollouts.uninterrupted("c", load(*change()), STAGES, VERSIONS)

    assert claim.held is True
    assert "50 of them begun during 1 changes" in claim.said


@pytest.mark.parametrize("failed", [call(1_100, "", 503), call(1_100, "", 0), call(1_100, "", 404), call(1_100, "teal"), call(1_100, "stable", 500)], ids=["503", "none", "404", "other", "500"])
def test_one_failed_call_interrupts(failed):
    assert rollouts.uninterrupted("c", load(*change(), failed), STAGES, VERSIONS).held is False


@pytest.mark.parametrize("draw", [load(), load(*change(), count=1_000), load(*change(every_ms=100)), load(*(one for one in change() if one["started_ms"] < 900))], ids=["empty", "incomplete", "sparse", "ended"])
def test_what_nobody_saw_is_not_held_against_the_mesh_nor_for_it(draw):
    assert rollouts.uninterrupted("c", draw, STAGES, VERSIONS).held is None


def test_without_a_change_nothing_was_shown():
    assert rollouts.uninterrupted("c", load(*change()), [BEFORE], VERSIONS).held is None


def test_either_answer_is_right_while_a_change_is_on_its_way():
    draw = load(*change(switched_ms=1_400))

    assert rollouts.served("c", draw, STAGES, "before", ["stable"]).held is True
    after = rollouts.served("c", draw, STAGES, "after", ["candidate"])
    assert after.held is True
    assert "the last other answer was asked for 390 ms after the change" in after.said


@pytest.mark.parametrize(("during", "wrong"), [("before", call(990, "candidate")), ("after", call(1_500, "stable")), ("after", call(2_000, "", 503))])
def test_one_wrong_answer_within_a_stage_refutes(during, wrong):
    right = "stable" if during == "before" else "candidate"

    assert rollouts.served("c", load(*change(), wrong), STAGES, during, [right]).held is False


def test_a_call_that_was_under_way_when_the_next_stage_was_applied_belongs_to_neither():
    assert rollouts.served("c", load(*change(), call(998, "candidate")), STAGES, "before", ["stable"]).held is True


def test_only_the_calls_of_the_persona_count_and_lost_ones_are_everybodys():
    mixed = [*change(), *(call(at, "stable", persona="group-b") for at in range(1_500, 3_000, 10))]

    assert rollouts.served("c", load(*mixed), STAGES, "after", ["candidate"], persona="group-a").held is True
    assert rollouts.served("c", load(*mixed), STAGES, "after", ["candidate"], persona="group-b").held is False
    assert rollouts.served("c", load(*mixed, call(2_000, "", 0)), STAGES, "after", ["candidate"], persona="group-a").held is False
    assert rollouts.served("c", load(*mixed), STAGES, "after", ["candidate"], persona="nobody").held is None


@pytest.mark.parametrize("stages", [[], [BEFORE], [{"name": "after"}], [{**AFTER, "applied_ms": None}]], ids=["none", "other", "no-times", "null"])
def test_stages_that_cannot_be_read_are_a_damaged_file(stages):
    with pytest.raises(UserError, match="evidence of claim c"):
        rollouts.served("c", load(*change()), stages, "after", ["candidate"])
