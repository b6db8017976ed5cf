"""What a load left behind, as a draw: which calls count, which never began, and whether the generator kept up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from workloads.load import LATE_MS, WARM_UP, LoadProfile, OpenProfile
from workloads.records import CallRecord, Draw

Line = Mapping[str, Any]

# Two busy cores keep a process waiting for some tens of milliseconds now and then, hence a share of late calls and not the worst.
LATE_SHARE = 0.01
# A Python process does one thing at a time: near one whole core its calls wait for each other.
CPU_FULL = 0.9
CPU_FULL_SHARE = 0.1
# What was due this shortly before a load was ended early may have been about to begin.
ABOUT_TO_BEGIN_S = 0.1


@dataclass(frozen=True)
class Generator:
    """How the generator fared while it made the calls that count.

    `planned` arrivals were due, `begun` of them began, `exhausted` found no user free, `late` began more than `late_ms` after they were
    due; `late_p99_ms` is how late the hundredth part of them was at least. `cpu` is its mean share of a core, `cpu_full_share` the part of the
    time in which it had more than CPU_FULL of one. Loads of users who wait for their answers have no arrivals, so nothing of theirs is late.
    """

    planned: int
    begun: int
    exhausted: int
    late: int
    late_p99_ms: float
    cpu: float
    cpu_full_share: float
    late_ms: float = LATE_MS

    @property
    def saturated(self) -> str:
        """Say what the generator could not keep up with; empty where it could."""
        said = []
        if self.begun < self.planned:
            said.append(f"{self.planned - self.begun} of {self.planned} arrivals never began")
        if self.exhausted > LATE_SHARE * self.begun:
            said.append(f"{self.exhausted} of {self.begun} arrivals found every user busy")
        if self.late > LATE_SHARE * self.begun:
            said.append(f"{self.late} of {self.begun} arrivals began more than {self.late_ms:g} ms late")
        if self.cpu_full_share > CPU_FULL_SHARE:
            said.append(f"the generator had {CPU_FULL:.0%} of a core or more in {self.cpu_full_share:.0%} of the time")
        return "; ".join(said)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, with the verdict on itself."""
        return {**vars(self), "saturated": self.saturated}


def generator(profile: LoadProfile | OpenProfile, calls: Sequence[Line], ticks: Sequence[Line], *, began: float, ended: float) -> Generator:
    """Judge the generator from its calls and its own lines; times are seconds of the wall clock, of the load's begin and end."""
    counted = [call for call in calls if _counts(profile, call)]
    late = sorted(float(call["late_ms"]) for call in counted)
    since, bound = began + _warm_up_s(profile), profile.late_ms if isinstance(profile, OpenProfile) else LATE_MS
    cpu = [float(tick["cpu"]) for tick in ticks if since <= float(tick["at"]) <= ended]
    return Generator(
        planned=_planned(profile, calls, ended - began) if isinstance(profile, OpenProfile) else len(counted), begun=len(counted),
        exhausted=sum(not call.get("found_free", True) for call in counted), late=sum(ms > bound for ms in late), late_ms=bound,
        late_p99_ms=round(late[math.ceil(0.99 * len(late)) - 1], 3) if late else 0.0,
        cpu=round(sum(cpu) / len(cpu), 4) if cpu else 0.0, cpu_full_share=round(sum(one >= CPU_FULL for one in cpu) / len(cpu), 4) if cpu else 0.0,
    )


def drawn(url: str, profile: LoadProfile | OpenProfile, calls: Sequence[Line], fared: Generator, *, zero: float, ended: float) -> Draw:
    """Return the calls that count in the order in which they were to begin; their times are milliseconds since `zero`, by the wall clock.

    Of an open load, `started_ms` is when a call was due and `latency_ms` counts from there; `late_ms` says how much later it began. Arrivals
    that were due and never began are missing from the draw, which is then incomplete.
    """
    counted = sorted((call for call in calls if _counts(profile, call)), key=lambda call: float(call["started_at"]))
    records = tuple(_record(index, call, zero) for index, call in enumerate(counted))
    return Draw(
        url, "GET", max(fared.planned, len(records)), profile.users, records, datetime.fromtimestamp(zero, UTC).isoformat(), ended - zero,
        saturated=fared.saturated, warm_up=len(calls) - len(counted),
    )


def _counts(profile: LoadProfile | OpenProfile, call: Line) -> bool:
    uncounted = {WARM_UP} if isinstance(profile, LoadProfile) else {stage.name for stage in profile.stages if not stage.counted}
    return call["stage"] not in uncounted


def _warm_up_s(profile: LoadProfile | OpenProfile) -> float:
    """Return how long it takes until something counts."""
    if isinstance(profile, LoadProfile):
        return profile.warm_up_s
    uncounted = 0.0
    for stage in profile.stages:
        if stage.counted:
            break
        uncounted += stage.seconds
    return uncounted


def _planned(profile: OpenProfile, calls: Sequence[Line], lasted_s: float) -> int:
    """Count the arrivals that were to begin in the time that the load was given: all of them, unless it was ended early."""
    begun = {int(call["number"]) for call in calls}
    return sum(
        arrival.number in begun or arrival.due_s < lasted_s - ABOUT_TO_BEGIN_S
        for arrival in profile.schedule() if profile.stages[arrival.stage].counted
    )


def _record(index: int, call: Line, zero: float) -> CallRecord:
    return CallRecord(
        index=index, status=call["status"], error=call["error"], latency_ms=call["latency_ms"], started_ms=1000 * (call["started_at"] - zero),
        version=call["version"], pod=call["pod"], seen=call["seen"], late_ms=call["late_ms"], stage=call["stage"],
    )
