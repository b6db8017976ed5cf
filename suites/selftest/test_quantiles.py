"""Quantiles: their intervals cover what they claim to cover, and a sample that is too small says so."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.support.quantiles import estimate, sign_p_value

samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80)


def covered(n: int, quantile: float, low: int | None, high: int | None) -> float:
    """P(the quantile lies between the order statistics of ranks low and high), counted outcome by outcome."""
    chances = [comb(n, k) * quantile**k * (1 - quantile) ** (n - k) for k in range(n + 1)]
    return sum(chances[low or 0 : high if high is not None else n + 1])


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("n", [1, 3, 5, 6, 20, 21, 59, 100])
def test_an_interval_covers_as_often_as_it_says_and_no_narrower_one_does(n: int, quantile: float) -> None:
    found = estimate([float(k) for k in range(1, n + 1)], quantile)
    low, high = (None if end is None else int(end) for end in (found.low, found.high))

    assert covered(n, quantile, low, high) >= 0.95 - 1e-12
    if low is not None:
        assert covered(n, quantile, low + 1, None) < 0.975
    if high is not None:
        assert covered(n, quantile, None, high - 1) < 0.975


def test_twenty_values_give_the_median_the_sixth_and_the_fifteenth() -> None:
    # The textbook's ranks for n = 20 at 95 %.
    assert (estimate(list(range(1, 21))).low, estimate(list(range(1, 21))).high) == (6, 15)


def test_a_sample_that_is_too_small_has_no_end() -> None:
    assert (estimate([1.0, 2.0, 3.0]).low, estimate([1.0, 2.0, 3.0]).high) == (None, None)
    assert estimate(list(range(20)), 0.95).high is None
    assert estimate(list(range(73)), 0.95).high is not None
    assert estimate([1.0, 2.0, 3.0]).text() == "2 (? to ?) ms"


@given(samples, st.sampled_from([0.1, 0.5, 0.95]))
def test_the_value_lies_within_its_interval_and_is_numpy_s(sample: list[float], quantile: float) -> None:
    found = estimate(sample, quantile)

    assert found.value == pytest.approx(np.quantile(sample, quantile), abs=1e-6)
    assert found.low is None or found.low <= found.value or found.low == pytest.approx(found.value)
    assert found.high is None or found.high >= found.value or found.high == pytest.approx(found.value)


@pytest.mark.parametrize(("sample", "quantile", "confidence"), [([], 0.5, 0.95), ([1.0], 0.0, 0.95), ([1.0], 0.5, 1.0)])
def test_what_has_no_quantile_is_refused(sample: list[float], quantile: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        estimate(sample, quantile, confidence)


def test_the_sign_test_counts_signs_and_leaves_ties_out() -> None:
    assert sign_p_value([1.0] * 20) == pytest.approx(2**-20)
    assert sign_p_value([1.0] * 20 + [0.0] * 5) == pytest.approx(2**-20)
    assert sign_p_value([1.0, -1.0]) == pytest.approx(0.75)
    assert sign_p_value([-3.0]) == 1.0
    assert sign_p_value([]) == sign_p_value([0.0]) == 1.0
