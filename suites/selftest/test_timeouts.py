"""Timeouts: every one positive, all of them scaled together."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.timeouts import Timeouts


def test_every_timeout_is_positive() -> None:
    assert all(seconds > 0 for seconds in asdict(Timeouts()).values())


@given(factor=st.floats(min_value=0.01, max_value=100))
def test_scaling_multiplies_every_one_of_them(factor: float) -> None:
    base, scaled = asdict(Timeouts()), asdict(Timeouts().scaled(factor))

    assert scaled == {name: pytest.approx(seconds * factor) for name, seconds in base.items()}


@pytest.mark.parametrize("factor", [0, -1])
def test_a_factor_that_leaves_no_time_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Timeouts().scaled(factor)
