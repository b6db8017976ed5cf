"""What was scraped against what was made: targets, exact counts, exemplars, and how long a request takes to be seen."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.support import metrics


def target(service, health="up", error="", interval="30s"):
    return {"labels": {"service": service}, "health": health, "error": error, "interval": interval}


def sample(value, *, function="a", at=1.0, **labels):
    return {"labels": {"function": function, **labels}, "value": value, "at": at}


@pytest.mark.parametrize(
    ("targets", "held"),
    [
        ([target("a"), target("b")], True), ([target("a")], False), ([target("a"), target("b"), target("b")], False),
        ([target("a"), target("b", "down", "503")], False), ([target("a"), target("b", "unknown")], False), ([target("a"), target("b"), target("c")], True),
    ],
)
def test_every_service_has_one_target_that_is_up(targets, held):
    assert metrics.scraped("x", targets, ("a", "b")).held is held


def test_who_is_not_to_be_scraped_is_no_target():
    assert metrics.unscraped("x", [target("a")], ("b",)).held is True
    assert metrics.unscraped("x", [target("a"), target("b", "down")], ("b",)).held is False


def test_an_interval_is_every_target_s():
    assert metrics.every("x", [target("a"), target("b")], "30s").held is True
    assert metrics.every("x", [target("a"), target("b", interval="10s")], "30s").held is False
    assert metrics.every("x", [], "30s").held is None


@pytest.mark.parametrize(
    ("samples", "held"),
    [
        ([sample(3)], True), ([sample(2, at=1.0), sample(3, at=2.0)], True), ([sample(3, at=1.0), sample(4, at=2.0)], False), ([sample(4)], False), ([sample(2)], False),
        ([], False), ([sample(3), sample(1, function="b")], False),
    ],
)
def test_a_count_is_the_newest_sample_exactly_and_nobody_else_s(samples, held):
    assert metrics.counted("x", samples, {"a": 3}).held is held


def test_an_exemplar_leads_to_a_request_that_was_made():
    made = ["11111111-2222-4333-8444-555555555555"]
    # Where tracing is on, the proxy writes its decision into one character of the id.
    found = [{"labels": {"request_id": "11111111-2222-9333-8444-555555555555"}}]

    assert metrics.led_to("x", found, made, least=1).held is True
    assert metrics.led_to("x", found, made, least=2).held is False
    assert metrics.led_to("x", [*found, {"labels": {"request_id": "other"}}], made, least=1).held is False
    assert metrics.led_to("x", [{"labels": {}}], made, least=1).held is False


def test_a_call_is_visible_at_the_first_look_that_counts_it():
    looks = [(10.0, 5.0), (11.0, 7.0), (12.0, 8.0)]

    assert metrics.visible_after(looks, [10.4, 10.2, 11.5, 11.9], base=5) == pytest.approx([0.8, 0.6, 0.5, math.inf])


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=30), st.lists(st.floats(min_value=0, max_value=120), min_size=1, max_size=30))
def test_no_wait_is_negative_and_an_honest_counter_is_seen_in_the_order_of_its_calls(ended, at):
    looks = [(when, sum(end <= when for end in ended)) for when in sorted(at)]

    waits = metrics.visible_after(looks, ended, base=0)

    assert all(wait >= 0 for wait in waits)
    assert len(waits) == len(ended)
    assert [math.isfinite(wait) for wait in waits] == [end <= max(at) for end in sorted(ended)]


def test_a_wait_that_is_too_long_or_has_no_end_is_refuted():
    assert "median 0.50 s" in metrics.visible("x", [0.4, 0.5, 0.6], within=1).said
    assert metrics.visible("x", [0.4, 1.5], within=1).held is False
    assert metrics.visible("x", [0.4, math.inf], within=1).held is False
    assert metrics.visible("x", [], within=1).held is None


def ups(*values, began=0.0):
    return [sample(value, at=began + place) for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "held"), [((1, 0, 0, 0), True), ((0, 0, 0), True), ((1, 1, 1, 0), False), ((1, 1, 1, 1), False), ((1, 0, 1, 0), False), ((), False)],
)
def test_a_turn_comes_in_time_and_lasts(values, held):
    assert metrics.turned("x", ups(*values), 0.0, since=0.0, within=2.0).held is held


def test_what_was_before_a_turn_does_not_count():
    assert metrics.turned("x", ups(0, 1, 0, 0), 0.0, since=2.0, within=1.0).held is True


def test_steady_is_every_scrape_of_enough():
    assert metrics.steady("x", ups(1, 1, 1), 1.0, least=3).held is True
    assert metrics.steady("x", ups(1, 0, 1), 1.0, least=3).held is False
    assert metrics.steady("x", ups(1, 1), 1.0, least=3).held is None
