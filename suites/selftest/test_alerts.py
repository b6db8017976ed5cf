"""The timetable of an alert: what its state has to be at each evaluation, when its news must come, and who is to be told what."""

import copy
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.support import alerts
from suites.support.alerts import FIRING, INACTIVE, PENDING, REFERENCE, RESOLVED, Times

HOLD = 10.0
SOURCE = "here/loud"


def points(*values, began=100.0, every=1.0):
    return [(began + every * place, value) for place, value in enumerate(values)]


def stamped(given_points, states):
    return {state: [at for (at, _), seen in zip(given_points, states, strict=True) if seen == state] for state in (PENDING, FIRING)}


def naive(values, *, threshold, hold):
    """Look back from every evaluation for itself: the slow way, for comparison."""
    states = []
    for place, (at, value) in enumerate(values):
        if value is None or value <= threshold:
            states.append(INACTIVE)
            continue
        first = place
        while first and values[first - 1][1] is not None and values[first - 1][1] > threshold:
            first -= 1
        states.append(FIRING if at - values[first][0] >= hold else PENDING)
    return states


shares = st.lists(st.one_of(st.none(), st.floats(min_value=0, max_value=100)), max_size=60)
# Evaluations are missed now and then; their times are multiples of the interval all the same.
gaps = st.lists(st.integers(min_value=1, max_value=3), min_size=60, max_size=60)


@given(shares, gaps, st.integers(min_value=0, max_value=12))
def test_states_are_those_that_a_look_back_gives(values, steps, hold):
    at, made = 0, []
    for value, step in zip(values, steps, strict=False):
        at += step
        made.append((float(at), value))

    assert alerts.expected_states(made, threshold=5, hold=hold) == naive(made, threshold=5, hold=hold)


@given(shares, gaps)
def test_nobody_fires_who_was_not_pending_for_its_whole_hold(values, steps):
    at, made = 0, []
    for value, step in zip(values, steps, strict=False):
        at += step
        made.append((float(at), value))

    states = alerts.expected_states(made, threshold=5, hold=HOLD)

    for state, began, _ in alerts.runs(made, states):
        if state == FIRING:
            before = [earlier for earlier in alerts.runs(made, states) if earlier[2] == began]
            assert before
            assert before[0][0] == PENDING
            assert began - before[0][1] >= HOLD


@given(shares.filter(lambda values: len(values) > 0), st.data())
def test_one_state_that_is_another_is_found(values, data):
    made = points(*values)
    states = alerts.expected_states(made, threshold=5, hold=HOLD)
    place = data.draw(st.integers(min_value=0, max_value=len(states) - 1))
    wrong = [*states]
    wrong[place] = data.draw(st.sampled_from([state for state in (INACTIVE, PENDING, FIRING) if state != states[place]]))

    assert alerts.follows("x", made, stamped(made, states), threshold=5, hold=HOLD, least=1).held is True
    assert alerts.follows("x", made, stamped(made, wrong), threshold=5, hold=HOLD, least=1).held is False


@given(shares)
def test_stretches_cover_the_whole_life_without_a_gap(values):
    made = points(*values)
    found = alerts.runs(made, alerts.expected_states(made, threshold=5, hold=HOLD))

    assert all(earlier[2] == later[1] and earlier[0] != later[0] for earlier, later in pairwise(found))
    if made:
        assert (found[0][1], found[-1][2]) == (made[0][0], made[-1][0])


def test_exactly_the_threshold_is_not_above_it_and_neither_is_what_is_no_number():
    assert alerts.expected_states(points(5.0, None, 5.01), threshold=5, hold=0) == [INACTIVE, INACTIVE, FIRING]


def test_too_few_evaluations_settle_nothing():
    made = points(1.0, 2.0)

    assert alerts.follows("x", made, stamped(made, [INACTIVE] * 2), threshold=5, hold=HOLD, least=3).held is None


def test_a_life_says_how_long_each_state_lasted():
    made = points(*[None] * 3, *[20.0] * 14, *[1.0] * 3)
    claim = alerts.follows("x", made, stamped(made, alerts.expected_states(made, threshold=5, hold=HOLD)), threshold=5, hold=HOLD, least=3)

    assert claim.said == "20 evaluations: inactive 3.0 s, pending 10.0 s, firing 4.0 s, inactive 2.0 s"


def test_the_reference_s_times_are_divided_by_one_factor():
    scaled = REFERENCE.scaled(30)

    assert scaled == Times(scrape=1, evaluation=1, window=10, hold=10, group_wait=1, group_interval=10)
    assert scaled.texts() == {"scrape": "1s", "evaluation": "1s", "window": "10s", "hold": "10s", "group_wait": "1s", "group_interval": "10s"}
    assert REFERENCE.scaled(400).texts()["scrape"] == "75ms"


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.0001])
def test_a_time_that_cannot_be_written_is_refused(seconds):
    with pytest.raises(ValueError, match="whole number of milliseconds"):
        alerts.written(seconds)


@pytest.mark.parametrize(("at", "held"), [(None, False), (110.0, True), (112.0, True), (109.9, False), (112.1, False)])
def test_what_happens_too_early_or_too_late_or_never_is_refuted(at, held):
    assert alerts.reached("x", at, since=100, within=(10, 12), what="it").held is held


def test_four_per_cent_hold_only_while_they_are_four():
    made = points(*[4.0] * 8)
    quiet = stamped(made, [INACTIVE] * 8)
    active = stamped(made, [INACTIVE] * 4 + [PENDING] + [INACTIVE] * 3)

    def stays(seen=quiet, bounds=(3, 5), least=8, given_points=made):
        return alerts.stays("x", given_points, seen, between=(100, 110), bounds=bounds, least=least).held

    assert stays() is True
    assert stays(active) is False
    assert stays(bounds=(4.5, 5)) is False
    assert stays(bounds=None) is False
    assert stays(least=9) is None
    assert stays(bounds=None, given_points=points(*[None] * 8)) is True
    assert stays(given_points=points(*[None] * 8)) is False


def flapping(*lengths, hold=HOLD):
    values = [value for length in lengths for value in (*[10.0] * length, 1.0, 1.0)]
    made = points(*values)
    return made, stamped(made, alerts.expected_states(made, threshold=5, hold=hold))


# A rule that is told another `for` fires; calls that went on for too long settle nothing.
@pytest.mark.parametrize(
    ("lengths", "hold", "held"),
    [((4, 4, 4), HOLD, True), ((4, 4), HOLD, None), ((2, 2, 2), HOLD, None), ((4, 4, 12), HOLD, None), ((5, 5, 5, 5), HOLD, True), ((4, 4, 4), 2.0, False)],
)
def test_flapping_is_pending_often_and_long_together_and_never_firing(lengths, hold, held):
    made, seen = flapping(*lengths, hold=hold)

    assert alerts.flapped("x", made, seen, threshold=5, hold=HOLD, between=(0, 1000), least=3).held is held


# What comes


def alert(name, status=FIRING, source=SOURCE):
    return {"status": status, "labels": {"alertname": name, "prometheus": source, "severity": "warning"}, "annotations": {"summary": "s"}}


def notification(*carried, at=112.0, inbox="steady", refused=False, status=FIRING):
    return {"inbox": inbox, "at": at, "refused": refused, "status": status, "alerts": list(carried)}


def delivered(*came, status=FIRING, since=111.0):
    return alerts.delivered("x", came, inbox="steady", alert="A", source=SOURCE, status=status, since=since, within=(1, 3)).held


def test_exactly_one_notification_in_time_is_a_delivery():
    once = notification(alert("A"), alert("B"))

    assert delivered(once) is True
    assert delivered() is False
    assert delivered(once, copy.deepcopy(once)) is False
    assert delivered(notification(alert("A"), at=115.0)) is False
    assert delivered(notification(alert("A"), at=111.5)) is False
    assert delivered(notification(alert("A"), inbox="shaky")) is False
    assert delivered(notification(alert("A", source="here/quiet"))) is False
    assert delivered(notification(alert("A", RESOLVED), status=RESOLVED)) is False
    assert delivered(once, since=None) is False


def test_what_was_refused_is_no_delivery_and_no_second_one():
    assert delivered(notification(alert("A"), refused=True)) is False
    assert delivered(notification(alert("A"), refused=True), notification(alert("A"))) is True


def test_what_is_to_stay_away_is_looked_for_everywhere():
    came = [notification(alert("A", source="here/quiet"), at=50.0, inbox="shaky", refused=True)]

    assert alerts.absent("x", came, source="here/quiet").held is False
    assert alerts.absent("x", came, alert="A").held is False
    assert alerts.absent("x", came, source=SOURCE).held is True
    assert alerts.absent("x", came, source="here/quiet", between=(60, 70)).held is True


def worded(*came, annotations=None):
    labels = {"alertname": "A", "prometheus": SOURCE, "severity": "warning"}
    return alerts.worded("x", came, inbox="steady", alert="A", source=SOURCE, labels=labels, annotations=annotations or {"summary": "s"}).held


def test_words_are_compared_whole():
    assert worded(notification(alert("A"))) is True
    assert worded(notification(alert("A")), annotations={"summary": "t"}) is False
    assert worded(notification({**alert("A"), "labels": {**alert("A")["labels"], "more": "1"}})) is False
    assert worded(notification(alert("B"))) is None


@pytest.mark.parametrize(
    ("came", "held"),
    [
        ([notification(alert("A"), alert("B"))], True), ([notification(alert("B"), alert("A"))], True),
        ([notification(alert("A")), notification(alert("B"))], False), ([notification(alert("A"), alert("B"), alert("C"))], False),
        ([notification(alert("A"), alert("B"), alert("C", RESOLVED))], True), ([], False),
    ],
)
def test_a_group_is_what_comes_together_and_nothing_else(came, held):
    assert alerts.grouped("x", came, inbox="steady", together=("A", "B"), source=SOURCE, status=FIRING).held is held


def test_a_world_that_changed_meanwhile_settles_nothing():
    was = {"pods": {"u": {"pod": "p", "restarts": 0, "ready_since": "t"}}, "ended_on_purpose": []}
    now = copy.deepcopy(was)
    now["pods"]["u"]["restarts"] = 1

    assert alerts.undisturbed("x", was, was).held is True
    assert alerts.undisturbed("x", was, now).held is None


def test_what_json_has_no_word_for_is_no_number():
    assert list(alerts.joined([(1.00049, 2.0), (2.0, math.nan), (3.0, math.inf)])) == [(1.0, 2.0), (2.0, None), (3.0, None)]
