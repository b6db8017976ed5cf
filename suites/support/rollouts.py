"""Changing a route while functions are used: the stages of a change on the load's own clock, and what must hold of the load.

A release is put in place by one manifest after another. Between the moment a stage is applied and the moment it is in full
effect either answer is right; outside of that only one is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suites.support.judges import Record, damaged, records_of, shapes
from suites.support.manifests import Manifests
from suites.support.verdicts import Claim
from workloads.load import PERSONA_HEADER
from workloads.load.generator import Load

# Of the calls of one persona in one stage. A worker thread that is one of a proxy's two escapes them with a probability of 1e-9.
LEAST_CALLS = 30
# What begins while a change is on its way is what the change could break.
LEAST_DURING_CHANGE = 10
ANSWERED = 200
STAGES = "stages with their names and times"


@dataclass(frozen=True)
class Stage:
    """One stage of a change, in milliseconds of the load: when it was applied, and when every proxy concerned had it.

    The two are equal where it was in place before the load began. `by_proxy` are the seconds that each proxy took.
    """

    name: str
    applied_ms: float
    effective_ms: float
    by_proxy: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, as evidence keeps it."""
        return {**vars(self), "by_proxy": dict(self.by_proxy)}


def in_place(load: Load, name: str) -> Stage:
    """Let the load go on for a while under what was applied before it began."""
    began = load.elapsed_ms()
    _go_on(load)
    return Stage(name, began, began, {})


def stage(load: Load, manifests: Manifests, file: str, name: str, **values: str | int) -> Stage:
    """Apply a manifest under load, wait until every proxy concerned has it, and let the load go on for a while."""
    applied = load.elapsed_ms()
    reached = manifests.apply(file, **values)
    effective = load.elapsed_ms()
    _go_on(load)
    return Stage(name, applied, effective, {proxy: seconds for one in reached for proxy, seconds in one.by_proxy.items()})


def _go_on(load: Load) -> None:
    """Wait until every persona has had its calls; they have not the same number of users, hence twice as many in all."""
    load.await_calls(2 * LEAST_CALLS * load.personas)


def uninterrupted(name: str, draw: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], versions: Sequence[str]) -> Claim:
    """Claim that every call of the load was answered 200 by one of `versions`, during every change of stage too.

    A change during which hardly a call began leaves it inconclusive. Raises UserError for stages that cannot be read.
    """
    records, incomplete = records_of(name, draw)
    failed = [record for record in records if record["status"] != ANSWERED or record["version"] not in versions]
    if failed:
        return Claim(
            name, held=False, said=f"{len(failed)} of {len(records)} calls were not answered by a function: {shapes(failed)}",
            expected=f"status {ANSWERED} by {' or '.join(versions)} on every call", got=shapes(failed),
        )
    changes = [(applied, effective) for applied, effective in (_times(name, one) for one in stages) if effective > applied]
    during = [_begun(records, applied, effective) for applied, effective in changes]
    if incomplete or not during or min(during) < LEAST_DURING_CHANGE:
        return incomplete or Claim(name, held=None, said=f"{min(during, default=0)} calls began during a change, {LEAST_DURING_CHANGE} are wanted")
    return Claim(name, held=True, said=f"all {len(records)} calls were answered by {' or '.join(versions)}, {sum(during)} of them begun during {len(during)} changes")


def served(
    name: str, draw: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], during: str, versions: Sequence[str], *, persona: str | None = None,
) -> Claim:
    """Claim that every call of the load (or of one persona) within a stage was answered by one of `versions`.

    Within a stage lie the calls that began once it was in full effect and ended before the next was applied. Too few of
    them, or an incomplete load, leave the claim inconclusive. Raises UserError when the evidence has no such stage.
    """
    records, incomplete = records_of(name, draw)
    begins, ends = _bounds(name, stages, during)
    within = [record for record in records if begins <= float(record["started_ms"]) and float(record["started_ms"]) + float(record["latency_ms"]) <= ends]
    asked = [record for record in within if persona is None or record["seen"].get(PERSONA_HEADER) == [persona] or not record["seen"]]
    wrong = [record for record in asked if record["version"] not in versions]
    who = f"{len(asked)} calls{f' of {persona}' if persona else ''} during {during}"
    wanted = " or ".join(versions)
    if wrong:
        return Claim(name, held=False, said=f"{len(wrong)} of {who} were not answered by {wanted}: {shapes(wrong)}", expected=f"every call answered by {wanted}", got=shapes(wrong))
    if incomplete or len(asked) < LEAST_CALLS:
        return incomplete or Claim(name, held=None, said=f"{who} are too few, {LEAST_CALLS} are wanted")
    return Claim(name, held=True, said=f"all {who} were answered by {wanted}{_lag(records, stages, during, versions)}")


def _lag(records: Sequence[Record], stages: Sequence[Mapping[str, Any]], during: str, versions: Sequence[str]) -> str:
    """Say when the last other answer was asked for after the stage was applied: the change as the load itself saw it."""
    applied, effective = _times("", next(one for one in stages if one["name"] == during))
    late = [float(record["started_ms"]) - applied for record in records if record["version"] not in versions and applied <= float(record["started_ms"]) < effective]
    return f"; the last other answer was asked for {max(late):.0f} ms after the change" if late else ""


def _begun(records: Sequence[Record], since: float, until: float) -> int:
    return sum(since <= float(record["started_ms"]) < until for record in records)


def _bounds(name: str, stages: Sequence[Mapping[str, Any]], during: str) -> tuple[float, float]:
    """Return when a stage was in full effect, and when the next one was applied."""
    times = {str(one.get("name")): _times(name, one) for one in stages}
    if during not in times:
        raise damaged(name, STAGES, f"no stage {during!r} among {', '.join(times) or 'none'}")
    applied, effective = times[during]
    return effective, min((other for other, _ in times.values() if other > applied), default=float("inf"))


def _times(name: str, one: Mapping[str, Any]) -> tuple[float, float]:
    try:
        return float(one["applied_ms"]), float(one["effective_ms"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(name, STAGES, repr(error)) from error
