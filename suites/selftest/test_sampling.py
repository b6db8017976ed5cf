"""Self-tests of the statistics: against another implementation, by enumeration, and by simulation."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from suites.support import sampling
from suites.support.sampling import SequentialTest, Statistic

SHARES = st.floats(0.001, 0.999)
DRAWS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
ALPHAS = st.sampled_from([1e-2, 1e-3, 1e-4, 1e-5, 1e-6])


@given(DRAWS, SHARES)
def test_the_binomial_p_value_is_twice_the_smaller_tail(draw, share):
    hits, n = draw
    tails = stats.binom.cdf(hits, n, share), stats.binom.sf(hits - 1, n, share)

    # Below 1e-200 the two implementations part in the sixth digit, and nobody asks.
    assert sampling.binomial_p_value(hits, n, share) == pytest.approx(min(1.0, 2 * min(tails)), rel=1e-6, abs=1e-200)


@given(DRAWS, SHARES, ALPHAS)
def test_test_band_and_interval_say_the_same(draw, share, alpha):
    hits, n = draw
    accepted = sampling.binomial_p_value(hits, n, share) > alpha
    low, high = sampling.clopper_pearson(hits, n, 1 - alpha)

    assert (hits in sampling.acceptance_band(n, share, alpha)) == accepted
    # At the very end of an interval the two inversions may differ in the last digits.
    if min(abs(share - low), abs(share - high)) > 1e-6:
        assert (low < share < high) == accepted


@given(DRAWS, SHARES, ALPHAS)
def test_an_upper_bound_is_tested_with_one_tail(draw, share, alpha):
    hits, n = draw
    statistic = sampling.at_most("v1", hits, n, share, alpha)

    assert statistic.p_value == pytest.approx(stats.binom.sf(hits - 1, n, share), rel=1e-6, abs=1e-200)
    assert statistic.rejected == (hits > statistic.bands["v1"][1])
    assert stats.binom.sf(statistic.bands["v1"][1], n, share) <= alpha * (1 + 1e-9)
    if statistic.smallest_detectable_shift is not None:
        noticed = stats.binom.sf(statistic.bands["v1"][1], n, share + statistic.smallest_detectable_shift)
        assert noticed == pytest.approx(statistic.power, rel=1e-6)


@given(st.integers(1, 3000), SHARES, ALPHAS)
def test_the_false_alarm_never_exceeds_alpha(n, share, alpha):
    band = sampling.acceptance_band(n, share, alpha)

    assert len(band) > 0
    assert stats.binom.cdf(band.start - 1, n, share) + stats.binom.sf(band.stop - 1, n, share) <= alpha * (1 + 1e-9)


@pytest.mark.parametrize(("n", "share", "alpha", "band"), [
    (1000, 0.10, 1e-4, range(65, 140)),
    (500, 0.10, 1e-4, range(26, 79)),
    (2000, 0.10, 1e-5, range(143, 263)),
    (10, 0.0, 1e-4, range(1)),
    (10, 1.0, 1e-4, range(10, 11)),
])
def test_known_bands(n, share, alpha, band):
    assert sampling.acceptance_band(n, share, alpha) == band


@given(DRAWS, st.sampled_from([0.9, 0.99, 0.99999]))
def test_clopper_pearson_agrees_with_scipy(draw, confidence):
    hits, n = draw
    expected = stats.binomtest(hits, n).proportion_ci(confidence, "exact")

    assert sampling.clopper_pearson(hits, n, confidence) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@given(st.integers(1, 3000), SHARES, SHARES, ALPHAS)
def test_power_is_the_probability_of_leaving_the_band(n, declared, true, alpha):
    band = sampling.acceptance_band(n, declared, alpha)
    expected = stats.binom.cdf(band.start - 1, n, true) + stats.binom.sf(band.stop - 1, n, true)

    assert sampling.power(n, declared, true, alpha) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(st.integers(100, 3000), st.floats(0.05, 0.95), ALPHAS)
def test_the_smallest_detectable_shift_is_just_detected(n, declared, alpha):
    shift = sampling.smallest_detectable_shift(n, declared, alpha)

    for true, sign in ((shift.down and declared - shift.down, 1), (shift.up and declared + shift.up, -1)):
        if true is not None:
            assert sampling.power(n, declared, true, alpha) >= 0.99 - 1e-9
            assert sampling.power(n, declared, true + sign * 0.001, alpha) < 0.99


def test_a_draw_too_small_to_reject_detects_nothing():
    assert sampling.smallest_detectable_shift(5, 0.5, 1e-5) == (None, None)
    assert sampling.smallest_detectable_shift(5, 0.5, 1e-5).worst is None


@pytest.mark.parametrize(("declared", "shift", "alpha", "published"), [
    (0.10, 0.05, 1e-3, 1380), (0.10, 0.05, 1e-5, 1950), (0.20, 0.05, 1e-5, 3100), (0.50, 0.05, 1e-5, 4550), (0.01, 0.01, 1e-5, 6400),
])
def test_sample_sizes_suffice_and_one_less_does_not(declared, shift, alpha, published):
    n = sampling.sample_size(declared, shift, alpha)

    def worst(size):
        return min(sampling.power(size, declared, true, alpha) for true in (declared - shift, declared + shift))

    assert n == pytest.approx(published, rel=0.05)
    assert all(worst(size) >= 0.99 for size in range(n, n + 40))
    assert worst(n - 1) < 0.99


@given(st.lists(st.integers(0, 8), min_size=3, max_size=3).filter(any), st.sampled_from([(0.2, 0.3, 0.5), (0.8, 0.1, 0.1), (1 / 3, 1 / 3, 1 / 3)]))
@settings(max_examples=40)
def test_the_multinomial_p_value_sums_what_is_no_likelier(counts, shares):
    n = sum(counts)
    every = [stats.multinomial.pmf([i, j, n - i - j], n, shares) for i in range(n + 1) for j in range(n - i + 1)]
    seen = stats.multinomial.pmf(counts, n, shares)

    assert sampling.multinomial_p_value(counts, shares) == pytest.approx(sum(p for p in every if p <= seen * (1 + 1e-7)), rel=1e-9)


def test_too_many_outcomes_are_refused_not_sampled():
    with pytest.raises(ValueError, match="too many to enumerate"):
        sampling.multinomial_p_value([700, 700, 600], [0.4, 0.3, 0.3])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_a_step_down_of_bonferroni(p_values):
    adjusted = sampling.holm(p_values)

    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        assert adjusted[index] >= min(1.0, p_values[index] * (len(p_values) - rank)) * (1 - 1e-12)
    assert all(p <= a * (1 + 1e-12) for p, a in zip(p_values, adjusted, strict=True))


def test_holm_known_values():
    assert sampling.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert sampling.holm([]) == []
    assert sampling.holm([0.01, 0.01], [3, 1]) == pytest.approx([0.04 / 3, 0.01333333333])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-7, 1e-5)), min_size=1, max_size=10))
def test_weighted_holm_rejects_whatever_a_test_rejects_by_itself(family):
    adjusted = sampling.holm([p for p, _ in family], [alpha for _, alpha in family])

    for (p, alpha), value in zip(family, adjusted, strict=True):
        if p <= alpha:
            assert value <= 1e-4 * (1 + 1e-9)


def test_holm_keeps_the_family_wise_level_by_simulation():
    random = np.random.default_rng(4)
    alarms = sum(min(sampling.holm(list(random.random(5)))) <= 0.05 for _ in range(4000))

    # 200 expected; the exact band of such a count at 1e-6.
    assert alarms in sampling.acceptance_band(4000, 0.05, 1e-6)


def test_a_true_90_10_is_never_rejected_and_a_true_85_15_nearly_always():
    n, alpha = 2000, 1e-5
    band = sampling.acceptance_band(n, 0.10, alpha)
    random = np.random.default_rng(20)
    right, wrong = random.binomial(n, 0.10, 20_000), random.binomial(n, 0.15, 20_000)

    assert np.isin(right, band).all()
    assert (~np.isin(wrong, band)).mean() >= 0.99
    # And without chance: the two probabilities that the simulation estimates.
    pmf = {share: stats.binom.pmf(np.arange(n + 1), n, share) for share in (0.10, 0.15)}
    outside = ~np.isin(np.arange(n + 1), band)
    assert 5e-6 < pmf[0.10][outside].sum() <= alpha
    assert pmf[0.15][outside].sum() == pytest.approx(0.99143, abs=1e-5)


@pytest.mark.parametrize(("counts", "declared", "test", "rejected"), [
    ({"a": 1800, "b": 200}, {"a": 0.9, "b": 0.1}, "binomial, exact", False),
    ({"a": 1700, "b": 300}, {"a": 0.9, "b": 0.1}, "binomial, exact", True),
    ({"a": 2000}, {"a": 0.9, "b": 0.1}, "binomial, exact", True),
    ({"a": 1799, "b": 200, "stray": 1}, {"a": 0.9, "b": 0.1}, "binomial, exact", True),
    ({"a": 100}, {"a": 1.0, "b": 0.0}, "binomial, exact", False),
    ({"a": 99, "b": 1}, {"a": 1.0, "b": 0.0}, "binomial, exact", True),
    ({"a": 34, "b": 33, "c": 33}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, "multinomial, exact", False),
    ({"a": 90, "b": 5, "c": 5}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, "multinomial, exact", True),
    ({"a": 1600, "b": 210, "c": 190}, {"a": 0.8, "b": 0.1, "c": 0.1}, "binomial per leg", False),
    ({"a": 1760, "b": 240, "c": 0}, {"a": 0.8, "b": 0.1, "c": 0.1}, "binomial per leg", True),
])
def test_split(counts, declared, test, rejected):
    statistic = sampling.split(counts, declared, 1e-5)

    assert statistic.test.startswith(test)
    assert statistic.rejected is rejected
    assert sum(statistic.counts.values()) == statistic.n
    assert Statistic.from_json(json.loads(json.dumps(statistic.to_json()))) == statistic


def test_the_per_leg_test_keeps_its_false_alarm_by_simulation():
    random = np.random.default_rng(7)
    shares = np.array([0.5, 0.3, 0.2])
    draws = random.multinomial(2000, shares, 20_000)
    bands = [sampling.acceptance_band(2000, share, 0.01 / 3) for share in shares]
    rejected = np.any([~np.isin(draws[:, leg], band) for leg, band in enumerate(bands)], axis=0)

    assert rejected.mean() <= 0.01
    for draw, expected in zip(draws[:50], rejected[:50], strict=True):
        assert sampling.split(dict(zip("abc", map(int, draw), strict=True)), dict(zip("abc", shares, strict=True)), 0.01).rejected == expected


def test_several_legs_share_the_false_alarm():
    statistic = sampling.split({"a": 1590, "b": 240, "c": 170}, {"a": 0.8, "b": 0.1, "c": 0.1}, 1e-3)
    band = sampling.acceptance_band(2000, 0.1, 1e-3 / 3)

    assert statistic.p_value == pytest.approx(3 * sampling.binomial_p_value(240, 2000, 0.1))
    assert statistic.bands["b"] == (band.start, band.stop - 1)
    assert statistic.intervals["b"] == sampling.clopper_pearson(240, 2000, 1 - 1e-3 / 3)


@pytest.mark.parametrize("declared", [{}, {"a": 0.9}, {"a": 0.9, "b": 0.2}, {"a": 1.1, "b": -0.1}])
def test_shares_that_are_no_distribution_are_refused(declared):
    with pytest.raises(ValueError, match="sum to 1"):
        sampling.split({"a": 10}, declared, 1e-5)


def test_an_empty_draw_is_refused():
    with pytest.raises(ValueError, match="empty draw"):
        sampling.split({}, {"a": 1.0}, 1e-5)


@pytest.mark.parametrize("work", [
    lambda: sampling.split({"a": 1800, "b": 200}, {"a": 0.9, "b": 0.1}, 1e-5),
    lambda: sampling.split({"a": 1600, "b": 200, "c": 200}, {"a": 0.8, "b": 0.1, "c": 0.1}, 1e-5),
    lambda: sampling.split({"a": 60, "b": 60, "c": 60}, dict.fromkeys("abc", 1 / 3), 1e-5),
    lambda: sampling.sample_size(0.1, 0.05, 1e-5),
    lambda: SequentialTest(0.1, 0.05, 1e-5, 0.01, 4000).decide(np.arange(2000) % 10 == 0),
], ids=["two legs", "three legs", "enumerated", "sample size", "sequential"])
def test_statistics_of_2000_calls_cost_milliseconds(work):
    def timed():
        began = time.process_time()
        work()
        return time.process_time() - began

    assert min(timed() for _ in range(3)) < 0.05


DESIGN = SequentialTest(declared=0.10, shift=0.05, alpha=1e-2, beta=1e-2, cap=2500)


def decide_all(share, runs, seed, design=DESIGN):
    random = np.random.default_rng(seed)
    return [design.decide(random.random(design.cap) < share) for _ in range(runs)]


def test_the_sequential_test_stops_early_and_keeps_its_false_alarm():
    decisions = decide_all(0.10, 3000, 1)
    outcomes = [decision.outcome for decision in decisions]

    assert outcomes.count("rejected") < sampling.acceptance_band(3000, 0.01, 1e-6).stop
    assert outcomes.count("held") > 0.95 * len(outcomes)
    assert np.mean([decision.drawn for decision in decisions]) < 0.7 * sampling.sample_size(0.10, 0.05, 1e-2)


@pytest.mark.parametrize("share", [0.05, 0.15, 0.03, 0.25])
def test_the_sequential_test_misses_no_more_than_beta_at_the_shift_and_beyond(share):
    decisions = decide_all(share, 2000, 2)
    held = sum(decision.outcome == "held" for decision in decisions)

    assert held < sampling.acceptance_band(2000, 0.01, 1e-6).stop
    assert sum(decision.outcome == "rejected" for decision in decisions) > 0.95 * len(decisions)


def test_the_sequential_p_value_is_valid_under_stopping():
    design = SequentialTest(0.10, 0.05, 1e-6, 1e-3, 800)
    p_values = np.array([decision.p_value for decision in decide_all(0.10, 2000, 3, design)])

    assert (p_values <= 0.05).sum() < sampling.acceptance_band(2000, 0.05, 1e-6).stop


def test_at_the_cap_the_sequential_test_says_undecided():
    decision = SequentialTest(0.10, 0.01, 1e-5, 1e-2, 50).decide([False] * 9 + [True] + [False] * 200)

    assert (decision.outcome, decision.drawn, decision.final) == ("undecided", 50, True)
    assert SequentialTest(0.10, 0.01, 1e-5, 1e-2, 50).decide([]) == sampling.Decision("undecided", 0, 0, 1.0, final=False)


@given(st.lists(st.booleans(), max_size=400), st.integers(0, 400), st.sampled_from([0.05, 0.3, 0.5, 0.97]))
@settings(max_examples=200)
def test_a_decision_once_reached_stays(outcomes, seen, declared):
    design = SequentialTest(declared, 0.2, 1e-2, 1e-2, 400)
    early, late = design.decide(outcomes[:seen]), design.decide(outcomes)

    if early.outcome != "undecided":
        assert late == early
    assert late.drawn <= design.cap
    assert Statistic.from_json(json.loads(json.dumps(design.statistic("a", late).to_json()))) == design.statistic("a", late)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_sequential_ratios_are_those_of_the_definition(outcomes):
    declared, shift, alpha, beta = 0.3, 0.2, 0.02, 0.05
    expected = ("undecided", len(outcomes))
    cleared, ratios = set(), {declared + shift: 1.0, declared - shift: 1.0}
    for drawn, hit in enumerate(outcomes, 1):
        ratios = {moved: ratio * (moved / declared if hit else (1 - moved) / (1 - declared)) for moved, ratio in ratios.items()}
        cleared |= {moved for moved, ratio in ratios.items() if ratio <= beta * (1 + 1e-12)}
        if max(ratios.values()) >= 2 / alpha * (1 - 1e-12):
            expected = ("rejected", drawn)
            break
        if len(cleared) == 2:
            expected = ("held", drawn)
            break

    decision = SequentialTest(declared, shift, alpha, beta, 300).decide(outcomes)

    assert (decision.outcome, decision.drawn) == expected


@pytest.mark.parametrize("design", [(0.0, 0.1, 0.01, 0.01, 10), (0.5, 0.6, 0.01, 0.01, 10), (0.5, 0.1, 0, 0.01, 10), (0.5, 0.1, 0.01, 0.01, 0)])
def test_a_sequential_design_without_an_alternative_is_refused(design):
    with pytest.raises(ValueError, match="no "):
        SequentialTest(*design)
