"""Alerts judged by a timetable: what an alert's state must have been at every evaluation, and when its news must have come."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from suites.support import disturbance
from suites.support.verdicts import Claim

INACTIVE, PENDING, FIRING = "inactive", "pending", "firing"
RESOLVED = "resolved"
# What a scrape, an evaluation or a notification may be late by where two cores have other work; none of it grows with the times.
SLACK_S = 3.0
# Evaluation times are multiples of the interval in milliseconds; a float of seconds is off by less.
ROUNDING_S = 0.0005

# One evaluation: its time, and what the expression was without its threshold (None where it is no number).
Point = tuple[float, float | None]
Notification = Mapping[str, Any]


@dataclass(frozen=True)
class Times:
    """What a rule, its scrapes and its route are told, in seconds: `window` is the rate's, `hold` the rule's `for`."""

    scrape: float
    evaluation: float
    window: float
    hold: float
    group_wait: float
    group_interval: float

    def scaled(self, factor: float) -> Self:
        """Return all of them divided by one factor."""
        return type(self)(**{name: value / factor for name, value in asdict(self).items()})

    def texts(self) -> dict[str, str]:
        """Return them as manifests write them; ValueError for one that is no whole number of milliseconds."""
        return {name: written(value) for name, value in asdict(self).items()}


# The reference's own 30 s, 5 m and 5 m; where it says nothing, what Alertmanager does unless it is told.
REFERENCE = Times(scrape=30, evaluation=30, window=300, hold=300, group_wait=30, group_interval=300)


def written(seconds: float) -> str:
    """Return a time as Prometheus writes it: whole seconds, else milliseconds."""
    ms = round(seconds * 1000, 6)
    if ms != round(ms) or ms <= 0:
        raise ValueError(f"{seconds} s is no whole number of milliseconds")
    return f"{round(ms / 1000)}s" if ms % 1000 == 0 else f"{round(ms)}ms"


def expected_states(points: Iterable[Point], *, threshold: float, hold: float) -> list[str]:
    """Return what an alert's state has to be at each evaluation.

    It is pending from the first evaluation at which the value is above the threshold, firing from the first at least `hold` after that,
    and inactive again as soon as the value is not above it, or is no number.
    """
    since: float | None = None
    states = []
    for at, value in points:
        if value is None or not value > threshold:
            since = None
            states.append(INACTIVE)
            continue
        since = at if since is None else since
        states.append(FIRING if at - since >= hold - ROUNDING_S else PENDING)
    return states


def seen_states(points: Iterable[Point], stamped: Mapping[str, Sequence[float]]) -> list[str]:
    """Return what the alert's state was at each evaluation, where `stamped` has the times at which it was pending and firing."""
    rounded = {state: {round(at, 3) for at in times} for state, times in stamped.items()}
    return [next((state for state in (FIRING, PENDING) if round(at, 3) in rounded.get(state, ())), INACTIVE) for at, _ in points]


def runs(points: Sequence[Point], states: Sequence[str]) -> list[tuple[str, float, float]]:
    """Return the stretches of one state: the state, its first evaluation's time, and that of the next stretch's first (the last's own at the end)."""
    found: list[tuple[str, float, float]] = []
    for (at, _), state in zip(points, states, strict=True):
        if found and found[-1][0] == state:
            found[-1] = (state, found[-1][1], at)
            continue
        if found:
            found[-1] = (found[-1][0], found[-1][1], at)
        found.append((state, at, at))
    return found


def first(points: Sequence[Point], states: Sequence[str], state: str, *, after: float = -math.inf) -> float | None:
    """Return the time of the first evaluation at which the state was seen, after a time."""
    return next((at for (at, _), seen in zip(points, states, strict=True) if seen == state and at > after), None)


# Claims


def follows(name: str, points: Sequence[Point], stamped: Mapping[str, Sequence[float]], *, threshold: float, hold: float, least: int) -> Claim:
    """Claim that the state was the expected one at every evaluation, of which there are at least so many."""
    expected, seen = expected_states(points, threshold=threshold, hold=hold), seen_states(points, stamped)
    wrong = [(at, value, should, was) for (at, value), should, was in zip(points, expected, seen, strict=True) if should != was]
    if wrong:
        at, value, should, was = wrong[0]
        return Claim(name, held=False, said=f"at {at:.3f}, {_value(value)}, it was {was}; {len(wrong)} of {len(points)} evaluations differ", expected=should, got=was)
    if len(points) < least:
        return Claim(name, held=None, said=f"{len(points)} evaluations were recorded, {least} are needed")
    return Claim(name, held=True, said=f"{len(points)} evaluations: {', '.join(f'{state} {until - began:.1f} s' for state, began, until in runs(points, seen))}")


def reached(name: str, at: float | None, *, since: float, within: tuple[float, float], what: str) -> Claim:
    """Claim that something happened so many seconds after a time, at the earliest and at the latest."""
    low, high = within
    expected = f"{low:.1f} to {high:.1f} s after"
    if at is None:
        return Claim(name, held=False, said=f"{what}: never", expected=expected, got="never")
    took = at - since
    held = low - ROUNDING_S <= took <= high
    return Claim(name, held=held, said=f"{what}: {took:.2f} s", expected="" if held else expected, got="" if held else f"{took:.2f} s")


def stays(name: str, points: Sequence[Point], stamped: Mapping[str, Sequence[float]], *, between: tuple[float, float], bounds: tuple[float, float] | None, least: int) -> Claim:
    """Claim that the alert was inactive at every evaluation of a stretch, and the value within bounds, or no number where there are none."""
    low, high = between
    inside = [(at, value, state) for (at, value), state in zip(points, seen_states(points, stamped), strict=True) if low <= at <= high]
    active = [(at, value, state) for at, value, state in inside if state != INACTIVE]
    if active:
        at, value, state = active[0]
        return Claim(name, held=False, said=f"at {at:.3f}, {_value(value)}, it was {state}", expected=INACTIVE, got=state)
    off = [value for _, value, _ in inside if (value is not None if bounds is None else value is None or not bounds[0] <= value <= bounds[1])]
    if off:
        wanted = "no number" if bounds is None else f"{bounds[0]:g} to {bounds[1]:g}"
        return Claim(name, held=False, said=f"the expression was {_value(off[0])} at {len(off)} of {len(inside)} evaluations", expected=wanted, got=_value(off[0]))
    if len(inside) < least:
        return Claim(name, held=None, said=f"{len(inside)} evaluations were recorded, {least} are needed")
    values = sorted(value for _, value, _ in inside if value is not None)
    return Claim(name, held=True, said=f"inactive at {len(inside)} evaluations, the expression {f'{values[0]:.2f} to {values[-1]:.2f}' if values else 'no number'}")


def flapped(name: str, points: Sequence[Point], stamped: Mapping[str, Sequence[float]], *, threshold: float, hold: float, between: tuple[float, float], least: int) -> Claim:
    """Claim that an alert was pending so many times, each time for less than `hold` and together for longer, and never fired.

    Where the calls themselves kept the expression above the threshold for as long as `hold`, nothing is settled.
    """
    inside = [(point, state) for point, state in zip(points, seen_states(points, stamped), strict=True) if between[0] <= point[0] <= between[1]]
    stretches = runs([point for point, _ in inside], [state for _, state in inside])
    pending = [until - began for state, began, until in stretches if state == PENDING]
    said = f"pending {len(pending)} times: {', '.join(f'{seconds:.1f} s' for seconds in pending)}"
    if FIRING in expected_states([point for point, _ in inside], threshold=threshold, hold=hold):
        return Claim(name, held=None, said=f"the share was above the threshold for {hold:g} s; {said}")
    if any(state == FIRING for state, _, _ in stretches):
        return Claim(name, held=False, said=f"it fired; {said}", expected="never firing", got=FIRING)
    if len(pending) < least or sum(pending) <= hold or max(pending) >= hold:
        return Claim(name, held=None, said=f"{said}; {least} times are needed, each below {hold:g} s and together above")
    return Claim(name, held=True, said=said)


def delivered(
    name: str, notifications: Sequence[Notification], *, inbox: str, alert: str, source: str, status: str, since: float | None, within: tuple[float, float],
) -> Claim:
    """Claim that one alert of one Prometheus came to an inbox exactly once in a state, so many seconds after a time."""
    found = [one for one in carrying(notifications, inbox=inbox, alert=alert, source=source, status=status) if not one["refused"]]
    if len(found) != 1:
        return Claim(name, held=False, said=f"{alert} came as {status} to {inbox} {len(found)} times", expected="once", got=f"{len(found)} times")
    if since is None:
        return Claim(name, held=False, said=f"{alert} came as {status} although it was never seen so", expected="a state before its news", got="news alone")
    return reached(name, found[0]["at"], since=since, within=within, what=f"{alert} came as {status} to {inbox}")


def absent(name: str, notifications: Sequence[Notification], *, source: str = "", alert: str = "", between: tuple[float, float] = (-math.inf, math.inf)) -> Claim:
    """Claim that nothing came of a Prometheus, or of one alert, in any inbox and state; between two times where these are given."""
    came = [one for one in notifications if between[0] <= one["at"] <= between[1] and any(_is(each, alert, source) for each in one["alerts"])]
    if came:
        first_one = came[0]
        what = ", ".join(sorted({each["labels"]["alertname"] for each in first_one["alerts"]}))
        return Claim(name, held=False, said=f"{len(came)} notifications came, the first as {first_one['status']} of {what} to {first_one['inbox']}", expected="none", got=str(len(came)))
    return Claim(name, held=True, said=f"none of {len(notifications)} notifications was of it")


def worded(name: str, notifications: Sequence[Notification], *, inbox: str, alert: str, source: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Claim:
    """Claim that an alert came with exactly these labels and annotations."""
    found = [each for one in carrying(notifications, inbox=inbox, alert=alert, source=source, status=FIRING) for each in one["alerts"] if _is(each, alert, source)]
    if not found:
        return Claim(name, held=None, said=f"{alert} never came to {inbox}")
    expected = {"labels": dict(labels), "annotations": dict(annotations)}
    got = {"labels": dict(found[0]["labels"]), "annotations": dict(found[0]["annotations"])}
    if got != expected:
        return Claim(name, held=False, said=f"{alert} came with other words", expected=str(expected), got=str(got))
    return Claim(name, held=True, said=f"{alert} came with its {len(labels)} labels and {len(annotations)} annotations and no other")


def grouped(name: str, notifications: Sequence[Notification], *, inbox: str, together: Iterable[str], source: str, status: str) -> Claim:
    """Claim that some alerts, and no others, came to an inbox in one notification of a state."""
    wanted = sorted(together)
    found = [sorted(each["labels"]["alertname"] for each in one["alerts"] if each["status"] == status) for one in carrying(notifications, inbox=inbox, alert=wanted[0], source=source, status=status)]
    if found != [wanted]:
        return Claim(name, held=False, said=f"{wanted[0]} came as {status} in {len(found)} notifications, with {found}", expected=str([wanted]), got=str(found))
    return Claim(name, held=True, said=f"{' and '.join(wanted)} came as {status} in one notification")


def undisturbed(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Claim:
    """Claim that the pods in use stayed what they were while a life was recorded that several checks are judged by."""
    found = disturbance.disturbances(before, after)
    return Claim(name, held=None, said="; ".join(found)) if found else Claim(name, held=True, said=f"{len(before['pods'])} pods stayed as they were")


def carrying(notifications: Iterable[Notification], *, inbox: str, alert: str, source: str, status: str) -> list[Notification]:
    """Return the notifications to an inbox that carry an alert of one Prometheus in a state, refused ones too."""
    return [one for one in notifications if one["inbox"] == inbox and any(_is(each, alert, source) and each["status"] == status for each in one["alerts"])]


def points_of(life: Mapping[str, Any]) -> list[Point]:
    """Return the evaluations of one Prometheus as evidence keeps them."""
    return [(at, value) for at, value in life["points"]]


def _is(each: Mapping[str, Any], alert: str, source: str) -> bool:
    labels = each["labels"]
    return (not alert or labels.get("alertname") == alert) and (not source or labels.get("prometheus") == source)


def _value(value: float | None) -> str:
    return "with no number" if value is None else f"with {value:.2f}"


def joined(values: Iterable[tuple[float, float]]) -> Iterator[Point]:
    """Yield evaluations from samples of a recorded expression: what JSON has no word for is no number."""
    for at, value in values:
        yield round(at, 3), value if math.isfinite(value) else None
