"""Waiting: what counts as not yet, as never, and as a bug, and what is said in the end."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.waiting import Broken, GiveUp, NeverReached, TimedOut, consistently, eventually, timed


@dataclass
class FakeClock:
    """Time that passes only by sleeping, and by what a check takes."""

    now: float = 1_000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


def outcomes(*held: bool, takes: float = 0.0, clock: FakeClock | None = None) -> Callable[[], int]:
    """Return a check that holds as told, the last outcome for ever, and returns how often it was asked."""
    asked = 0

    def check() -> int:
        nonlocal asked
        asked += 1
        if clock:
            clock.now += takes
        if not held[min(asked, len(held)) - 1]:
            raise AssertionError(f"look {asked}")
        return asked

    return check


def test_a_state_that_holds_is_returned_without_sleeping() -> None:
    clock = FakeClock()

    assert eventually(outcomes(True), within=60, clock=clock) == 1
    assert clock.slept == []


def test_the_value_comes_with_seconds_and_attempts() -> None:
    waited = timed(outcomes(False, False, True), within=60, every=2, clock=FakeClock())

    assert (waited.value, waited.seconds, waited.attempts) == (3, 4.0, 3)


def test_a_timeout_says_what_how_long_how_often_and_the_last_state() -> None:
    def check() -> None:
        raise AssertionError("status.conditions lacks Programmed=True\n   (observed Accepted=True)")

    with pytest.raises(TimedOut) as caught:
        eventually(check, within=60, every=1, subject="route 'greeter' not programmed", clock=FakeClock())

    assert str(caught.value) == (
        "route 'greeter' not programmed after 60.0 s, 61 attempts; last: status.conditions lacks Programmed=True (observed Accepted=True)"
    )
    assert (caught.value.seconds, caught.value.attempts) == (60.0, 61)


def test_a_check_without_message_is_named_by_its_place() -> None:
    def listens() -> None:
        raise AssertionError

    with pytest.raises(
        TimedOut, match=r"'listens' did not hold after 0\.0 s, 1 attempt; last: AssertionError without a message at .*test_waiting"
    ):
        eventually(listens, within=0, clock=FakeClock())


def test_a_lambda_is_named_by_its_place() -> None:
    with pytest.raises(TimedOut, match=r"the check at .*test_waiting\.py:\d+ did not hold"):
        eventually(lambda: outcomes(False)(), within=0, clock=FakeClock())  # noqa: PLW0108  # the lambda is the case


def test_an_ignored_error_means_not_yet_and_is_said() -> None:
    def check() -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(TimedOut, match=r"last: ConnectionRefusedError: .*Connection refused"):
        eventually(check, within=1, ignoring=(ConnectionError,), clock=FakeClock())


def test_any_other_error_is_a_bug_and_propagates_at_once() -> None:
    clock = FakeClock()

    def check() -> None:
        raise KeyError("status")

    with pytest.raises(KeyError):
        eventually(check, within=60, ignoring=(ConnectionError,), clock=clock)
    assert clock.slept == []


def test_giving_up_ends_the_wait_at_once_and_says_why() -> None:
    def check() -> None:
        raise GiveUp("pod greeter-1: ErrImagePull")

    with pytest.raises(
        NeverReached, match=r"^'check' did not hold after 0\.0 s, 1 attempt, and never will be: pod greeter-1: ErrImagePull$"
    ):
        eventually(check, within=60, clock=FakeClock())


def test_giving_up_inside_an_inner_wait_ends_the_outer_one_too() -> None:
    clock = FakeClock()

    def inner() -> None:
        raise GiveUp("the pod failed")

    with pytest.raises(NeverReached, match="'inner'"):
        eventually(lambda: eventually(inner, within=1, clock=clock), within=60, clock=clock)
    assert clock.slept == []


def test_an_inner_timeout_means_not_yet_to_the_outer_wait() -> None:
    clock = FakeClock()
    check = outcomes(False, False, False, True)

    assert eventually(lambda: eventually(check, within=1, every=1, clock=clock), within=60, clock=clock) == 4


def test_successes_must_follow_each_other() -> None:
    check = outcomes(True, True, False, True, True, True)

    assert eventually(check, within=60, consecutive=3, clock=FakeClock()) == 6


def test_a_wait_that_ends_in_the_middle_of_a_row_says_so() -> None:
    with pytest.raises(TimedOut, match="last: held 2 of 3 times in a row"):
        eventually(outcomes(False, True), within=1, every=0.5, consecutive=3, clock=FakeClock())


def test_no_attempt_starts_after_a_check_that_hung_beyond_the_end() -> None:
    clock = FakeClock()

    with pytest.raises(TimedOut) as caught:
        eventually(outcomes(False, takes=45.0, clock=clock), within=60, every=1, clock=clock)

    assert (caught.value.attempts, caught.value.seconds) == (2, 91.0)


@pytest.mark.parametrize(("within", "every", "consecutive"), [(-1, 1, 1), (1, 0, 1), (1, 1, 0)], ids=["negative", "busy", "no success"])
def test_a_wait_without_sense_is_refused(within: float, every: float, consecutive: int) -> None:
    with pytest.raises(ValueError, match="a wait needs"):
        eventually(outcomes(True), within=within, every=every, consecutive=consecutive, clock=FakeClock())


def test_a_long_state_is_cut() -> None:
    def check() -> None:
        raise AssertionError("x" * 10_000)

    with pytest.raises(TimedOut) as caught:
        eventually(check, within=0, clock=FakeClock())
    assert len(str(caught.value)) < 1_000


def test_what_lasts_is_looked_at_from_the_start_to_the_end() -> None:
    clock = FakeClock()

    assert consistently(outcomes(True), during=10, every=3, clock=clock) == 5
    assert clock.slept == [3, 3, 3, 1]


def test_the_first_break_ends_it_and_says_when() -> None:
    with pytest.raises(Broken) as caught:
        consistently(outcomes(True, True, False), during=10, every=1, subject="refusal of 'intruder' ended", clock=FakeClock())

    assert str(caught.value) == "refusal of 'intruder' ended 2.0 s into 10.0 s, at look 3: look 3"


def test_giving_up_ends_a_watch_too() -> None:
    def check() -> None:
        raise GiveUp("gone")

    with pytest.raises(NeverReached):
        consistently(check, during=10, clock=FakeClock())


SECONDS = st.floats(min_value=0, max_value=1e4, allow_nan=False)
STEPS = st.floats(min_value=0.1, max_value=1e3, allow_nan=False)
HELD = st.lists(st.booleans(), min_size=1, max_size=30)


@given(within=SECONDS, every=STEPS, takes=st.floats(min_value=0, max_value=100), start=st.floats(min_value=0, max_value=1e9))
def test_a_wait_is_bounded_by_its_time_and_one_attempt(within: float, every: float, takes: float, start: float) -> None:
    # Bounded so that a case stays fast; the bound on attempts below is what is proved.
    every = max(every, within / 200)
    clock = FakeClock(start)

    with pytest.raises(TimedOut) as caught:
        eventually(outcomes(False, takes=takes, clock=clock), within=within, every=every, clock=clock)

    slack = 1e-6 * max(1.0, start, within)
    assert clock.now - start <= within + takes + slack
    assert sum(clock.slept) <= within + slack
    # One at the start, one at the end, and one more where a rounded sum falls short of the end.
    assert caught.value.attempts <= within / every + 3


@given(held=HELD, consecutive=st.integers(min_value=1, max_value=4))
def test_a_wait_ends_exactly_at_the_first_row_of_successes(held: list[bool], consecutive: int) -> None:
    rows = [end for end in range(consecutive, len(held) + 1) if all(held[end - consecutive : end])]
    check = outcomes(*held, False)
    within = float(len(held) + 2)

    if rows:
        assert timed(check, within=within, every=1, consecutive=consecutive, clock=FakeClock()).attempts == rows[0]
    else:
        with pytest.raises(TimedOut):
            eventually(check, within=within, every=1, consecutive=consecutive, clock=FakeClock())


@given(held=HELD, every=STEPS)
def test_a_watch_breaks_exactly_at_the_first_failure(held: list[bool], every: float) -> None:
    clock = FakeClock(0.0)
    during = every * (len(held) - 1)

    if all(held):
        consistently(outcomes(*held), during=during, every=every, clock=clock)
        assert clock.now == pytest.approx(during)
    else:
        with pytest.raises(Broken) as caught:
            consistently(outcomes(*held), during=during, every=every, clock=clock)
        assert caught.value.attempts == held.index(False) + 1
