"""Self-tests of paired comparisons: intervals cover, sign tests err no more often than declared, and nothing holds of nothing."""


import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from clusters.errors import UserError
from suites.support import comparison

MS = st.floats(-1e3, 1e3, allow_nan=False)
ALPHA = 1e-3
N = 20


@given(st.lists(MS, min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_quantile_is_the_least_value_that_its_share_does_not_exceed(values, share):
    found = comparison.quantile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values)


def test_nine_tenths_of_ten_are_nine():
    assert comparison.quantile(list(range(10)), 0.9) == 8


def test_a_difference_of_nothing_is_called_positive_no_more_often_than_declared():
    chance = np.random.default_rng(2)
    claims = [comparison.positive("x", "added", list(chance.normal(0, 1, N)), 0.05) for _ in range(2000)]

    assert 0 < sum(claim.held is True for claim in claims) < 160
    assert 0 < sum(claim.held is False for claim in claims) < 160


@pytest.mark.parametrize(("below", "held"), [(0, True), (1, True), (2, True), (3, True), (4, None), (16, None), (17, False), (20, False)])
def test_positive_holds_and_is_refuted_at_the_same_distance(below, held):
    assert binom.cdf(3, N, 0.5) < 2 * ALPHA < binom.cdf(4, N, 0.5)

    assert comparison.positive("x", "added", [*([-1.0] * below), *([1.0] * (N - below))], 2 * ALPHA).held is held


@pytest.mark.parametrize(("above", "held"), [(0, True), (10, True), (16, True), (17, False), (20, False)])
def test_a_bound_is_refuted_by_rounds_above_it_only(above, held):
    claim = comparison.at_most("x", "added", [*([6.0] * above), *([5.0] * (N - above))], 5.0, 2 * ALPHA)

    assert claim.held is held
    assert claim.statistic.rejected is (held is False)


@given(st.lists(MS, min_size=10, max_size=40), MS, st.floats(0.01, 100))
def test_a_higher_bound_never_refutes_what_a_lower_one_allows(added, bound, more):
    lower, higher = (comparison.at_most("x", "added", added, one, ALPHA).held for one in (bound, bound + more))

    assert not (lower is True and higher is False)


@given(st.lists(MS, max_size=9))
def test_too_few_rounds_settle_nothing(added):
    assert comparison.positive("x", "added", added, ALPHA).held is None
    assert comparison.at_most("x", "added", added, 0, ALPHA).held is None


def drawn(*latencies, status=200, **more):
    records = [{"status": status, "latency_ms": ms} for ms in latencies]
    return {"count": len(records), "records": records, **more}


def test_differences_are_those_of_each_round():
    rounds = [{"on": drawn(3, 5, 9), "off": drawn(1, 2, 4)}, {"on": drawn(1, 1, 1), "off": drawn(2, 2, 2)}]

    assert comparison.differences("x", rounds, "on", "off", 0.5) == ([3.0, -1.0], None)
    assert comparison.differences("x", rounds, "on", "off", 1.0) == ([5.0, -1.0], None)


@pytest.mark.parametrize(("draw", "said"), [
    (drawn(1, status=0), "got no answer"), ({"count": 2, "records": [{"status": 200, "latency_ms": 1}]}, "incomplete"), (drawn(), "empty"),
    (drawn(1, saturated="late"), "generator was saturated: late"),
])
def test_a_broken_round_leaves_everything_open(draw, said):
    added, broken = comparison.differences("x", [{"on": drawn(1), "off": drawn(1)}, {"on": draw, "off": drawn(1)}], "on", "off", 0.5)

    assert len(added) == 2
    assert broken.held is None
    assert said in broken.said


def test_rounds_without_an_arm_are_somebodys_broken_file():
    with pytest.raises(UserError, match="rounds with on and off"):
        comparison.differences("x", [{"on": drawn(1)}], "on", "off", 0.5)


def test_a_figures_interval_surrounds_it_and_is_the_same_every_time():
    chance = np.random.default_rng(3)
    rounds = [(list(chance.exponential(2, 10)), list(chance.exponential(1, 10))) for _ in range(30)]

    added, low, high = comparison.bootstrap(rounds, 0.5)

    assert low < added < high
    assert low > 0
    assert comparison.bootstrap(rounds, 0.5) == (added, low, high)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="quantile of 0 values"):
        comparison.quantile([], 0.5)
    with pytest.raises(ValueError, match="nothing to draw"):
        comparison.bootstrap([], 0.5)
