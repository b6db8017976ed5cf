"""Self-tests of the claims about pods under load, and of how a watch's words become a scale."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.components.knative.client import OF_SERVICE
from clusters.components.knative.scale import Life, ScaleWatch, Wanted, lives, wishes
from clusters.errors import UserError
from clusters.watching import Change
from suites.support import scaling
from suites.support.scaling import Target

TARGET = Target(calls_per_pod=2, utilization=0.7, least=1, most=10, window_s=6)
HELD = 1_000.0
ALL = (10_000.0, 16_000.0)


def pod(name="a", created=0.0, ready=None, ending=None, gone=None):
    return {"pod": name, "created_ms": created, "ready_ms": created if ready is None else ready, "ending_ms": ending, "gone_ms": gone}


def scale(*pods, wanted=((0.0, 1),), began=0.0, ended=20_000.0):
    return {"function": "f", "began_ms": began, "ended_ms": ended, "pods": list(pods), "wanted": [{"at_ms": at, "desired": n, "actual": n} for at, n in wanted]}


def call(due, latency=HELD, *, status=200, pod="a", stage="up", late=0.0, index=0):
    return {"index": index, "status": status, "latency_ms": latency, "started_ms": float(due), "late_ms": late, "pod": pod, "stage": stage, "version": "v"}


def drawn(*calls, count=None, saturated=""):
    return {"count": len(calls) if count is None else count, "records": list(calls), "saturated": saturated}


def steady(rate, *, held=HELD, until=20_000, **kept):
    return drawn(*(call(at, held, index=index) for index, at in enumerate(range(0, until, round(1000 / rate)))), **kept)


# The formula


@pytest.mark.parametrize(("in_hand", "demanded", "wanted"), [(0, 0, 1), (0.1, 1, 1), (1.4, 1, 1), (1.41, 2, 2), (3.5, 3, 3), (14, 10, 10), (14.1, 11, 10), (50, 36, 10)])
def test_pods_are_calls_in_hand_by_the_filled_share_of_the_target_within_bounds(in_hand, demanded, wanted):
    assert (TARGET.demanded(in_hand), TARGET.wanted(in_hand)) == (demanded, wanted)


@given(rate=st.integers(1, 40), held=st.integers(100, 3_000))
def test_calls_in_hand_are_the_rate_times_the_time(rate, held):
    records = steady(rate, held=held)["records"]
    period = round(1000 / rate)

    least, most = scaling.in_hand(records, held, (5_000.0, 15_000.0))

    # At both ends of the stretch, one call more or less.
    assert least == pytest.approx(most)
    assert most == pytest.approx(held / period, abs=2 * held / 10_000 + 1e-9)


def test_what_a_call_took_beyond_the_function_may_or_may_not_have_been_seen_there():
    least, most = scaling.in_hand([call(1_000, 1_500)], 1_000, (0.0, 10_000.0))

    assert (least, most) == (pytest.approx(0.1), pytest.approx(0.15))
    assert scaling.in_hand([call(1_000, 1_500)], 1_000, (0.0, 2_000.0))[0] == pytest.approx(0.25)


@given(placed=st.floats(0, 1), latency=st.integers(500, 3_000), since=st.integers(0, 3_000), length=st.integers(1, 5_000))
def test_wherever_the_function_s_time_lies_it_is_between_the_two(placed, latency, since, length):
    begins = 1_000 + placed * (latency - 500)
    seen = max(0.0, min(begins + 500, since + length) - max(begins, since)) / length

    least, most = scaling.in_hand([call(1_000, latency)], 500, (float(since), float(since + length)))

    assert least - 1e-9 <= seen <= most + 1e-9


def test_a_call_that_began_late_was_in_hand_only_since():
    _, most = scaling.in_hand([call(1_000, 1_500, late=500)], 1_000, (0.0, 10_000.0))

    assert most == pytest.approx(0.1)


def test_a_call_without_an_answer_may_never_have_reached_the_function():
    least, most = scaling.in_hand([call(0, 1_000, status=0)], 1_000, (0.0, 1_000.0))

    assert (least, most) == (0, 1)


# As many as demanded


@pytest.mark.parametrize(("rate", "wanted", "held"), [(3.5, 3, True), (3.5, 2, False), (3.5, 5, False), (3.5, 1, False)])
def test_the_number_wanted_is_that_of_the_formula(rate, wanted, held):
    claim = scaling.wanted_as_demanded("c", scale(pod(), wanted=[(0, 1), (9_000, wanted)]), steady(rate), ALL, TARGET, HELD)

    assert claim.held is held


def test_one_moment_of_another_number_refutes():
    seen = scale(pod(), wanted=[(0, 3), (12_000, 2), (12_100, 3)])

    assert scaling.wanted_as_demanded("c", seen, steady(3.5), ALL, TARGET, HELD).held is False


def test_a_demand_that_cannot_be_told_says_nothing():
    slow = drawn(*(call(at, 2_500, index=at) for at in range(0, 20_000, 286)))

    assert scaling.wanted_as_demanded("c", scale(pod(), wanted=[(0, 4)]), slow, ALL, TARGET, HELD).held is None
    assert scaling.wanted_as_demanded("c", scale(pod(), wanted=[(0, 1)]), slow, ALL, TARGET, HELD).held is False


@pytest.mark.parametrize("draw", [steady(3.5, count=1_000), steady(3.5, saturated="all users busy")], ids=["incomplete", "saturated"])
def test_a_load_that_was_not_as_planned_holds_nothing(draw):
    assert scaling.wanted_as_demanded("c", scale(pod(), wanted=[(0, 3)]), draw, ALL, TARGET, HELD).held is None
    assert scaling.held_at_most("c", full(), draw, ALL, TARGET, HELD).held is None


@pytest.mark.parametrize("seen", [scale(wanted=[]), scale(wanted=[(0, -1)]), scale(wanted=[(12_000, 3)]), scale(wanted=[(0, 3)], ended=15_000)], ids=["silent", "unsaid", "late", "ended"])
def test_an_autoscaler_that_was_not_watched_says_nothing(seen):
    assert scaling.wanted_as_demanded("c", seen, steady(3.5), ALL, TARGET, HELD).held is None
    assert scaling.held_at_most("c", seen, steady(20), ALL, TARGET, HELD).held is None


# The bound


def full(pods=10, wanted=10, ready=5_000.0):
    return scale(*(pod(str(number), 1_000, ready) for number in range(pods)), wanted=[(0, 1), (2_000, wanted)])


@pytest.mark.parametrize(("seen", "rate", "held"), [
    (full(), 20, True), (full(9, 9), 20, False), (full(9, 9), 14, None), (full(11, 11), 14, False), (full(11, 11), 20, False), (full(9, 10), 20, False), (full(10, 12), 20, False), (full(), 14, None), (full(ready=17_000.0), 20, None),
], ids=["ten", "nine", "nine-where-ten-may-do", "eleven-whatever", "eleven", "one-not-made", "more-wanted", "not-demanded", "not-ready"])
def test_a_demand_above_the_bound_meets_exactly_the_bound(seen, rate, held):
    assert scaling.held_at_most("c", seen, steady(rate), ALL, TARGET, HELD).held is held


@pytest.mark.parametrize(("seen", "below", "above"), [
    (scale(pod()), True, True),
    (scale(pod(), wanted=[(0, 1), (5_000, 0), (5_100, 1)]), False, True),
    (scale(pod(ending=5_000)), False, True),
    (scale(pod(gone=5_000)), False, True),
    (scale(pod(ending=5_000), pod("b", 4_000)), True, False),
    (scale(pod(), pod("b", 5_000, ending=5_001)), True, False),
    (scale(pod(), wanted=[(0, 1), (5_000, 2), (5_100, 1)]), True, False),
    (scale(pod(), pod("b", 5_000), wanted=[(0, -1), (10, 1)]), True, False),
], ids=["one", "none-wanted", "ended", "gone", "replaced", "two-for-a-moment", "two-wanted", "two-there"])
def test_a_bound_is_crossed_by_one_moment(seen, below, above):
    assert scaling.never_below("c", seen, 1).held is below
    assert scaling.never_above("c", seen, 1).held is above


@pytest.mark.parametrize("seen", [scale(wanted=[(0, 1)]), scale(pod(), wanted=[])], ids=["no-pods", "no-wishes"])
def test_nothing_heard_keeps_no_bound(seen):
    assert [claim.held for claim in (scaling.never_below("c", seen, 1), scaling.never_above("c", seen, 1), scaling.returned_to("c", seen, 1))] == [None] * 3


def test_pods_on_their_way_out_do_not_count_against_the_bound():
    assert scaling.never_above("c", scale(pod(ending=5_000, gone=15_000), pod("b", 6_000)), 1).held is True


@pytest.mark.parametrize(("seen", "held"), [
    (scale(pod(), pod("b", 1_000, ending=5_000), wanted=[(0, 1), (900, 2), (4_900, 1)]), True),
    (scale(pod(), pod("b", 1_000), wanted=[(0, 1), (900, 2)]), False),
    (scale(pod(), pod("b", 1_000), wanted=[(0, 1), (900, 2), (19_000, 1)]), False),
    (scale(pod()), None),
], ids=["back", "two", "not-yet", "never-more"])
def test_what_went_up_comes_back(seen, held):
    assert scaling.returned_to("c", seen, 1).held is held


def test_no_call_is_lost_while_pods_end():
    seen = scale(pod(), pod("b", 1_000, ending=5_000, gone=9_000))

    assert scaling.busy_while_pods_end("c", steady(5), seen, 10).held is True
    assert scaling.busy_while_pods_end("c", steady(5), seen, 100).held is None
    assert scaling.busy_while_pods_end("c", steady(5), scale(pod()), 1).held is None
    assert scaling.busy_while_pods_end("c", drawn(*steady(5)["records"], call(6_000, status=504)), seen, 10).held is False
    assert scaling.busy_while_pods_end("c", drawn(*steady(5)["records"], call(6_000, status=0)), seen, 10).held is False


# Cold calls


BURSTS = ("burst-1", "burst-2")


def cold_arm():
    pods = scale(pod("old", 0, ending=500), pod("b1", 1_050, 2_900), pod("b2", 11_050, 12_900))
    calls = [
        call(1_000, 2_000, pod="b1", stage="burst-1", index=0), call(1_500, 1_500, pod="b1", stage="burst-1", index=1), call(4_000, 10, pod="b1", stage="burst-1", index=2),
        call(11_000, 2_000, pod="b2", stage="burst-2", index=3), call(14_000, 10, pod="b2", stage="burst-2", index=4),
    ]
    return drawn(*calls), pods


def test_a_call_is_cold_when_the_pod_that_answered_was_not_ready_when_it_was_due():
    draw, seen = cold_arm()

    assert [one["index"] for one in scaling.cold(draw, seen)] == [0, 1, 3]
    assert [one["index"] for one in scaling.created_for(draw, seen)] == [0, 3]


def test_cold_after_every_gap():
    draw, seen = cold_arm()

    assert scaling.cold_after_every_gap("c", draw, seen, BURSTS, gone_within_s=8).held is True
    assert scaling.cold_after_every_gap("c", draw, seen, (*BURSTS, "burst-3"), gone_within_s=8).held is None
    assert scaling.never_cold("c", draw, seen, 1).held is False


def test_one_warm_gap_refutes_cold_gaps():
    draw, seen = cold_arm()
    # The last call before was answered at 4.01 s, the next was due at 11 s.
    warm = drawn(*(one | {"pod": "b1"} for one in draw["records"]))

    assert scaling.cold_after_every_gap("c", warm, seen, BURSTS, gone_within_s=6.9).held is False
    assert scaling.cold_after_every_gap("c", warm, seen, BURSTS, gone_within_s=7.1).held is None


def test_a_warm_arm_never_waits():
    draw = drawn(*(call(at, 10, index=at) for at in range(1_000, 2_000, 100)))

    assert scaling.never_cold("c", draw, scale(pod()), 10).held is True
    assert scaling.never_cold("c", draw, scale(pod()), 11).held is None
    assert scaling.never_cold("c", draw, scale(pod("a", 0, 1_850.0)), 10).held is False


def test_a_watch_that_hears_late_makes_no_cold_call():
    draw = drawn(*(call(at, 10, index=at) for at in range(1_000, 2_000, 100)))

    assert scaling.never_cold("c", draw, scale(pod("a", 0, 1_200.0)), 10).held is True


@pytest.mark.parametrize("extra", [call(1_500, status=0, pod=""), call(1_500, pod="nobody")], ids=["lost", "stranger"])
def test_who_answered_must_be_known(extra):
    draw, seen = cold_arm()
    warm = drawn(call(1_000, 10), extra | {"stage": "burst-1"})

    assert scaling.never_cold("c", warm, scale(pod()), 1).held is None
    assert scaling.cold_after_every_gap("c", drawn(*draw["records"], extra | {"stage": "burst-1", "index": 9}), seen, BURSTS, gone_within_s=8).held is None or extra["pod"]


@pytest.mark.parametrize("draw", [drawn(), cold_arm()[0] | {"count": 99}, cold_arm()[0] | {"saturated": "late"}], ids=["empty", "incomplete", "saturated"])
def test_an_incomplete_load_shows_no_cold_and_no_warm_calls(draw):
    assert scaling.cold_after_every_gap("c", draw, cold_arm()[1], BURSTS, gone_within_s=8).held is None
    assert scaling.never_cold("c", {**draw, "records": [one | {"pod": "a"} for one in draw["records"]]}, scale(pod()), 1).held is None


# Cost


def test_pods_cost_from_their_creation_to_their_end_and_beyond():
    assert scaling.pod_seconds(scale(pod(ending=5_000, gone=8_000), pod("b", 6_000)), (0.0, 10_000.0)) == {"asked_for": 9, "ending": 3}


@pytest.mark.parametrize(("seen", "held"), [(scale(pod()), True), (scale(pod(), pod("b")), False), (scale(pod(ending=2_000)), False), (scale(), None), (scale(pod(), ended=9_000), None)])
def test_a_cost_lies_within_its_bounds(seen, held):
    assert scaling.costs("c", seen, (0.0, 10_000.0), 0.9, 1.1).held is held


@pytest.mark.parametrize("damaged", [{"pods": [{}], "wanted": []}, {"wanted": [{}], "pods": []}, {}])
def test_what_is_no_scale_is_no_verdict(damaged):
    with pytest.raises(UserError, match="damaged"):
        scaling.never_below("c", {"began_ms": 0.0, "ended_ms": 1.0, **damaged}, 1)


def test_a_stage_begins_with_its_first_call():
    draw = drawn(call(1_000, stage="up"), call(5_000, stage="down"), call(6_000, stage="down"))

    assert scaling.span(draw, "down", 10, after_s=2) == (7_000, 15_000)
    with pytest.raises(UserError, match="stage over"):
        scaling.span(draw, "over", 1)


@pytest.mark.parametrize("claim", [
    lambda draw: scaling.wanted_as_demanded("c", scale(pod(), wanted=[(0, 9)]), draw, ALL, TARGET, HELD),
    lambda draw: scaling.held_at_most("c", full(11, 11), draw, ALL, TARGET, HELD),
    lambda draw: scaling.busy_while_pods_end("c", drawn(call(0, status=0), saturated=draw["saturated"]), scale(pod()), 1),
    lambda draw: scaling.never_cold("c", draw, scale(pod(created=19_000)), 1),
    lambda draw: scaling.cold_after_every_gap("c", draw, scale(pod(created=-9_000)), ("up",), gone_within_s=8),
])
def test_a_saturated_generator_voids_what_would_be_refuted(claim):
    assert claim(steady(3.5)).held is False
    assert claim(steady(3.5, saturated="arrivals late")).held is None


# The watch


def told(at, kind, name="a", *, ready=False, ending=False, function="f"):
    metadata = {"name": name, "uid": f"uid-{name}", "labels": {OF_SERVICE: function}}
    if ending:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return Change(at, kind, {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}})


def test_a_life_is_what_was_heard_first_of_each_of_its_moments():
    heard = [
        told(100, "ADDED"), told(101, "MODIFIED", ready=True), told(102, "MODIFIED", ready=False), told(103, "MODIFIED", ready=True),
        told(104, "MODIFIED", ending=True, ready=True), told(105, "MODIFIED", ending=True), told(106, "DELETED", ending=True), told(107, "ADDED", "b", function="g"),
    ]

    assert lives(heard, "f", 100.0) == (Life("a", 0, 1_000, 4_000, 6_000),)


def test_a_pod_that_was_gone_before_anybody_looked_has_no_life():
    assert lives([told(100, "DELETED")], "f", 0.0) == ()


def test_a_pod_that_is_deleted_at_once_was_not_wanted_from_then_on():
    assert lives([told(1, "ADDED"), told(2, "DELETED")], "f", 0.0) == (Life("a", 1_000, None, 2_000, 2_000),)


def wish(at, status, kind="MODIFIED"):
    return Change(at, kind, {"metadata": {"name": "f-1", "uid": "u", "labels": {OF_SERVICE: "f"}}, "status": status})


def test_an_autoscaler_s_wishes_are_its_changes_of_mind():
    heard = [wish(1, {}), wish(2, {"desiredScale": 1, "actualScale": 0}), wish(3, {"desiredScale": 1, "actualScale": 0}), wish(4, {"desiredScale": 1, "actualScale": 1}), wish(5, {}, "DELETED")]

    assert wishes(heard, "f", 0.0) == (Wanted(1_000, -1, -1), Wanted(2_000, 1, 0), Wanted(4_000, 1, 1))


class Deaf:
    def __init__(self, changes):
        self.heard = changes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def changes(self):
        return self.heard


class Cluster:
    def watch(self, kind, _namespace):
        return Deaf([told(9e9, "MODIFIED", ready=True)] if kind == "Pod" else [])

    def list(self, kind, _namespace=None, _selector=None):
        return [told(0, "").body if kind == "Pod" else wish(0, {"desiredScale": 1, "actualScale": 1}).body]


def test_what_was_there_before_the_watch_began_counts_from_its_beginning():
    with ScaleWatch(Cluster(), "ns") as watch:
        watch.alive()
        seen = watch.scale("f", 0.0)

    assert [(life.pod, life.created_ms, life.ready_ms) for life in seen.pods] == [("a", seen.began_ms, 9e12)]
    assert [(said.at_ms, said.desired) for said in seen.wanted] == [(seen.began_ms, 1)]
    assert scaling.never_below("c", seen.to_json(), 1).held is True
