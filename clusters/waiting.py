"""Waiting for a state of the world, the one verb for it, and the only place that sleeps."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NoReturn, Protocol, TypeVar

T = TypeVar("T")

# A quoted object can be a whole resource; the line must stay a line.
LONGEST_STATE = 800


class Clock(Protocol):
    """What waiting needs of time; self-tests inject one that does not pass by itself."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`; Ctrl-C interrupts it."""
        time.sleep(seconds)  # noqa: TID251  # the one sleep that every wait goes through


CLOCK = SystemClock()


class GiveUp(Exception):  # noqa: N818  # an instruction to the wait, not an error of its own
    """Raised by a check that knows the awaited state can no longer come: the wait ends at once."""


class Unsettled(AssertionError):  # noqa: N818  # states what happened
    """A wait that ended without its state: what was awaited, how long, how often, what was seen last."""

    def __init__(self, message: str, *, seconds: float, attempts: int, last: str) -> None:
        self.seconds = seconds
        self.attempts = attempts
        self.last = last
        super().__init__(message)


class TimedOut(Unsettled):
    """The state did not come in time."""


class NeverReached(Unsettled):
    """The check gave up: the state can no longer come. Passes through enclosing waits."""


class Broken(Unsettled):
    """A state that had to last did not."""


@dataclass(frozen=True)
class Waited(Generic[T]):
    """What a wait returned and what it took: seconds from the first attempt's start to the last one's end."""

    value: T
    seconds: float
    attempts: int


def eventually(
    check: Callable[[], T],
    *,
    within: float,
    every: float = 0.5,
    consecutive: int = 1,
    ignoring: tuple[type[BaseException], ...] = (),
    subject: str | None = None,
    clock: Clock = CLOCK,
) -> T:
    """Return what `check` returns once it has held `consecutive` times in a row.

    `check` asserts and returns a value. AssertionError, and what `ignoring` names, mean "not yet";
    GiveUp means "never" and ends the wait at once as NeverReached; anything else is a bug and propagates.
    `within` and `every` are seconds; `every` runs from the end of one attempt to the start of the next.
    `subject` says what is missing, such as "route 'greeter' not programmed".

    No attempt starts after `within`, and one starts exactly then. An attempt is never cut short:
    a check that hangs extends the wait by its own length, so give every request inside it a timeout.
    Raises TimedOut with the subject, the seconds, the attempts and the last state seen.
    """
    return timed(check, within=within, every=every, consecutive=consecutive, ignoring=ignoring, subject=subject, clock=clock).value


def timed(
    check: Callable[[], T],
    *,
    within: float,
    every: float = 0.5,
    consecutive: int = 1,
    ignoring: tuple[type[BaseException], ...] = (),
    subject: str | None = None,
    clock: Clock = CLOCK,
) -> Waited[T]:
    """Do what `eventually` does, and say how long it took and how many attempts."""
    _refuse_nonsense(within=within, every=every, consecutive=consecutive)
    awaited = subject or f"{_name(check)} did not hold"
    began = clock.monotonic()
    attempts = in_a_row = 0
    meaning_not_yet: tuple[type[BaseException], ...] = (AssertionError, *ignoring)
    last_attempt = within == 0
    while True:
        attempts += 1
        cause: BaseException | None = None
        try:
            value = check()
        except NeverReached:
            raise
        except GiveUp as never:
            _never(awaited, never, seconds=clock.monotonic() - began, attempts=attempts)
        except meaning_not_yet as not_yet:
            in_a_row, last, cause = 0, _state(not_yet), not_yet
        else:
            in_a_row += 1
            if in_a_row == consecutive:
                return Waited(value, clock.monotonic() - began, attempts)
            last = f"held {in_a_row} of {consecutive} times in a row"
        seconds = clock.monotonic() - began
        if last_attempt or seconds >= within:
            message = f"{awaited} after {seconds:.1f} s, {_times(attempts)}; last: {last}"
            raise TimedOut(message, seconds=seconds, attempts=attempts, last=last) from cause
        # Flagged rather than recomputed: a remainder below the clock's resolution would never run out.
        last_attempt = within - seconds <= every
        clock.sleep(min(every, within - seconds))


def consistently(
    check: Callable[[], T],
    *,
    during: float,
    every: float = 0.5,
    subject: str | None = None,
    clock: Clock = CLOCK,
) -> T:
    """Return what `check` returned last, having held at every look for `during` seconds.

    The first look is at the start, the last one at the end. The first AssertionError ends it as Broken, saying when;
    GiveUp ends it as NeverReached. `subject` says what broke, such as "refusal of 'intruder' ended".
    """
    _refuse_nonsense(within=during, every=every, consecutive=1)
    awaited = subject or f"{_name(check)} did not last"
    began = clock.monotonic()
    attempts = 0
    last_attempt = during == 0
    while True:
        attempts += 1
        at = clock.monotonic() - began
        try:
            value = check()
        except NeverReached:
            raise
        except GiveUp as never:
            _never(awaited, never, seconds=at, attempts=attempts)
        except AssertionError as broken:
            last = _state(broken)
            message = f"{awaited} {at:.1f} s into {during:.1f} s, at look {attempts}: {last}"
            raise Broken(message, seconds=at, attempts=attempts, last=last) from broken
        seconds = clock.monotonic() - began
        if last_attempt or seconds >= during:
            return value
        last_attempt = during - seconds <= every
        clock.sleep(min(every, during - seconds))


def _never(awaited: str, never: GiveUp, *, seconds: float, attempts: int) -> NoReturn:
    last = _state(never)
    message = f"{awaited} after {seconds:.1f} s, {_times(attempts)}, and never will be: {last}"
    raise NeverReached(message, seconds=seconds, attempts=attempts, last=last) from never


def _refuse_nonsense(*, within: float, every: float, consecutive: int) -> None:
    if within < 0 or every <= 0 or consecutive < 1:
        raise ValueError(f"a wait needs within >= 0, every > 0 and consecutive >= 1, got {within}, {every}, {consecutive}")


def _times(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


def _state(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (AssertionError, GiveUp)):
        text = text or f"{type(error).__name__} without a message{_place(error)}"
    else:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST_STATE else f"{text[:LONGEST_STATE]}..."


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _name(check: Callable[[], object]) -> str:
    name = getattr(check, "__name__", type(check).__name__)
    code = getattr(check, "__code__", None)
    if name == "<lambda>" and code is not None:
        return f"the check at {code.co_filename}:{code.co_firstlineno}"
    return f"'{name}'"
