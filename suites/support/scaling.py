"""Claims about how many pods a function had and was to have while it was used: pure functions of a saved scale and a saved draw.

A scale is what clusters.components.knative.scale.ScaleWatch saves, a draw one of the load, both in milliseconds of one clock.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from suites.support import judges
from suites.support.judges import Draw, Record
from suites.support.verdicts import Claim

Scale = Mapping[str, Any]
Span = tuple[float, float]

# How finely the windows of an average are laid over a stretch of load, in milliseconds: an autoscaler's fall between any two.
STEP_MS = 250.0
# A watch hears of a change later than it happened; so much later, on a machine whose cores are all busy, that a pod could seem not ready
# to a call that it served. Only where it matters which came first.
HEARD_LATE_MS = 500.0
# Two numbers of pods next to each other are a measurement, three are a guess.
MOST_ACCEPTED = 2


@dataclass(frozen=True)
class Target:
    """What an autoscaler was told: so many calls in hand for each pod, of which it fills a share, and the bounds of its pods.

    The number of pods is the average of the calls in hand over the window, divided by the filled share of the target, rounded up and
    kept within the bounds (Knative documentation, "About autoscaling", and serving v0.50.0, pkg/autoscaler/scaling/autoscaler.go, Scale).
    """

    calls_per_pod: float
    utilization: float
    least: int
    most: int
    window_s: float

    def demanded(self, in_hand: float) -> int:
        """Return the pods that so many calls in hand demand, the bounds aside."""
        return math.ceil(round(in_hand / (self.calls_per_pod * self.utilization), 6))

    def wanted(self, in_hand: float) -> int:
        """Return the pods that an autoscaler is to want for so many calls in hand."""
        return max(self.least, min(self.most, self.demanded(in_hand)))


def span(draw: Draw, stage: str, seconds: float, *, after_s: float = 0.0) -> Span:
    """Return when a stage of a load lasted, in milliseconds of its draw, but for its first `after_s` seconds.

    Its first call is due when it begins. Raises UserError for a draw in which nothing of it was due.
    """
    due = [float(record["started_ms"]) for record in draw.get("records", []) if record.get("stage") == stage]
    if not due:
        raise judges.damaged("scale", f"calls of stage {stage}", "none")
    return min(due) + 1000 * after_s, min(due) + 1000 * seconds


def in_hand(records: Sequence[Record], held_ms: float, within: Span) -> tuple[float, float]:
    """Return the least and the most calls in hand, on average over a stretch of time, that the function's side can have seen.

    The caller's side saw a call from its beginning to its answer, which is the most; the function held it for `held_ms` at some time in
    between, which is the least (Little's law, summed call by call). A call without an answer may not have been held at all.
    """
    least = most = 0.0
    for record in records:
        ends = float(record["started_ms"]) + float(record["latency_ms"])
        begins = float(record["started_ms"]) + float(record.get("late_ms", 0.0))
        most += _overlap((begins, ends), within)
        if record["status"]:
            # What a stretch sees of so long a time is least where that lies first or last.
            least += min(_overlap((begins, begins + held_ms), within), _overlap((ends - held_ms, ends), within))
    length = within[1] - within[0]
    return least / length, most / length


def extremes(records: Sequence[Record], held_ms: float, within: Span, window_s: float) -> tuple[float, float]:
    """Return the least and the most average that a window within or ending within a stretch can have shown, in calls in hand.

    An autoscaler adds up reports that come once a second and of which one more or one less may fall into its window.
    """
    window = 1000 * window_s
    ends = [within[0] + STEP_MS * step for step in range(int((within[1] - within[0]) // STEP_MS) + 1)]
    seen = [in_hand(records, held_ms, (end - window, end)) for end in ends]
    return min(least for least, _ in seen) * (1 - 1 / window_s), max(most for _, most in seen) * (1 + 1 / window_s)


def wanted_as_demanded(name: str, scale: Scale, draw: Draw, within: Span, target: Target, held_ms: float) -> Claim:
    """Claim that during a stretch of steady load the autoscaler wanted the pods that its formula gives for the calls in hand, throughout."""
    records, incomplete = judges.records_of(name, draw)
    said, open_ = _said_during(name, scale, within)
    if open_ := voided(name, draw) or open_:
        return open_
    least, most = extremes(records, held_ms, within, target.window_s)
    accepted = range(target.wanted(least), target.wanted(most) + 1)
    per_pod = target.calls_per_pod * target.utilization
    story = f"{least:.2f} to {most:.2f} calls in hand at {per_pod:g} a pod"
    if other := sorted(set(said) - set(accepted)):
        return _refuted(name, f"the autoscaler wanted {_listed(other)} pods for {story}", _range(accepted), _listed(said))
    if incomplete or len(accepted) > MOST_ACCEPTED:
        return incomplete or _open(name, f"{story} demand {_range(accepted)} pods, which says too little")
    return _held(name, f"the autoscaler wanted {_listed(said)} pods throughout for {story}, which demand {_range(accepted)}")


def held_at_most(name: str, scale: Scale, draw: Draw, within: Span, target: Target, held_ms: float) -> Claim:
    """Claim that a demand above the bound was met with exactly as many pods as the bound allows, which all got ready.

    A demand that may not have been above it, or a machine that was too slow to start them, leaves it inconclusive, unless there were pods
    that no demand there was can explain.
    """
    records, incomplete = judges.records_of(name, draw)
    said, open_ = _said_during(name, scale, within)
    if open_ := voided(name, draw) or open_:
        return open_
    least, most = extremes(records, held_ms, within, target.window_s)
    counts, ready = [count for _, count in asked_for(scale, within)], max(count for _, count in ready_at(scale, within))
    story = f"{least:.2f} to {most:.2f} calls in hand demand {target.demanded(least)} to {target.demanded(most)} pods"
    seen = {*said, *counts}
    if min(seen) < target.wanted(least) or max(seen) > target.most:
        return _refuted(name, f"{story}; wanted were {_listed(said)}, there were {_listed(counts)}", f"{target.most} throughout", f"wanted {_listed(said)}, there {_listed(counts)}")
    if incomplete or target.demanded(least) <= target.most:
        return incomplete or _open(name, f"{story}, which is not clearly above {target.most}")
    if ready < target.most:
        return _open(name, f"{story}; {ready} of {target.most} pods got ready in time")
    return _held(name, f"{story}; {target.most} were wanted, there, and ready")


def never_below(name: str, scale: Scale, least: int) -> Claim:
    """Claim that there were `least` pods at every moment and the autoscaler never wanted fewer; pods that are to end do not count."""
    return _bounded(name, scale, "fewer", lambda count: count < least, f"{least} or more")


def never_above(name: str, scale: Scale, most: int) -> Claim:
    """Claim that there were at most `most` pods at every moment and the autoscaler never wanted more; pods that are to end do not count.

    Finding: they are there all the same, for as long as `timeoutSeconds` lasts (or 30 s after their last request): queue-proxy goes on
    answering for callers that have not heard of its end.
    """
    return _bounded(name, scale, "more", lambda count: count > most, f"{most} or fewer")


def returned_to(name: str, scale: Scale, pods: int) -> Claim:
    """Claim that at the end of the watch the function had `pods` pods, and its autoscaler wanted so many, after it had had more."""
    counts, said = asked_for(scale), _wanted(scale)
    if not _pods(scale) or not said:
        return _open(name, "nothing was heard of the pods or of their autoscaler")
    highest, now, wished = max(count for _, count in counts), counts[-1][1], said[-1][1]
    got = f"{now} pods, {wished} wanted"
    if (now, wished) != (pods, pods):
        return _refuted(name, f"after {highest} pods there were {got} at the end", f"{pods} pods", got)
    if highest <= pods:
        return _open(name, f"there were never more than {highest} pods to return from")
    at = max(at for (_, before), (at, after) in pairwise(counts) if after < before)
    return _held(name, f"after {highest} pods there were {got} at the end, since {(float(scale['ended_ms']) - at) / 1000:.1f} s")


def busy_while_pods_end(name: str, draw: Draw, scale: Scale, least: int) -> Claim:
    """Claim that no call was lost, `least` of them begun while pods were on their way out: every one was answered 200."""
    records, incomplete = judges.records_of(name, draw)
    if open_ := voided(name, draw):
        return open_
    wrong = [record for record in records if record["status"] != 200]  # noqa: PLR2004  # HTTP's own word
    if wrong:
        return _refuted(name, f"{len(wrong)} of {len(records)} calls were lost: {judges.shapes(wrong)}", "200 on every call", judges.shapes(wrong))
    ending = [(float(pod["ending_ms"]), _or_end(pod["gone_ms"], scale)) for pod in _pods(scale) if pod["ending_ms"] is not None]
    begun = sum(any(since <= float(record["started_ms"]) <= until for since, until in ending) for record in records)
    if incomplete or begun < least:
        return incomplete or _open(name, f"{begun} calls began while a pod was on its way out, {least} are wanted")
    return _held(name, f"all {len(records)} calls were answered, {begun} of them begun while {len(ending)} pods were on their way out")


def cold(draw: Draw, scale: Scale) -> list[Record]:
    """Return the calls that were held for a pod: that which answered was not ready when they were due, by what was heard of it.

    A call without an answer, or from a pod that nobody heard of, is not among them; `strangers` finds those.
    """
    ready = {str(pod["pod"]): pod["ready_ms"] for pod in _pods(scale)}
    return [record for record in _records(draw) if record["pod"] in ready and _late(ready[str(record["pod"])], float(record["started_ms"]))]


def created_for(draw: Draw, scale: Scale) -> list[Record]:
    """Return the calls that were answered by a pod that did not exist when they were due."""
    created = {str(pod["pod"]): float(pod["created_ms"]) for pod in _pods(scale)}
    return [record for record in _records(draw) if created.get(str(record["pod"]), -math.inf) > float(record["started_ms"])]


def strangers(draw: Draw, scale: Scale) -> list[Record]:
    """Return the answered calls whose pod was not heard of: what they waited for is not known."""
    known = {str(pod["pod"]) for pod in _pods(scale)}
    return [record for record in _records(draw) if record["status"] and record["pod"] not in known]


def never_cold(name: str, draw: Draw, scale: Scale, least: int) -> Claim:
    """Claim that none of `least` or more calls was held for a pod."""
    records, incomplete = judges.records_of(name, draw, least=least)
    if open_ := voided(name, draw):
        return open_
    ready = {str(pod["pod"]): pod["ready_ms"] for pod in _pods(scale)}
    waited = [one for one in cold(draw, scale) if _late(ready[str(one["pod"])], float(one["started_ms"]) + HEARD_LATE_MS)]
    if waited:
        stages = _counts(waited)
        return _refuted(name, f"{len(waited)} of {len(records)} calls were held for a pod ({stages})", "no call held for a pod", f"{len(waited)} held")
    if open_ := incomplete or _unclear(name, draw, scale):
        return open_
    return _held(name, f"none of {len(records)} calls was held for a pod")


def cold_after_every_gap(name: str, draw: Draw, scale: Scale, bursts: Sequence[str], *, gone_within_s: float) -> Claim:
    """Claim that the first call of every burst was answered by a pod that was made for it.

    A pod that was there already refutes it, unless it had been idle for less than `gone_within_s`: the machine was then too slow for the gap.
    """
    records, incomplete = judges.records_of(name, draw)
    if open_ := voided(name, draw):
        return open_
    firsts = first_of(draw, bursts)
    made = {one["index"] for one in created_for(draw, scale)}
    idle = {stage: _idle_s(record, records, scale) for stage, record in firsts.items() if record["status"] and record["index"] not in made}
    if kept := [f"{stage}: idle for {seconds:.1f} s" for stage, seconds in idle.items() if seconds >= gone_within_s]:
        return _refuted(name, f"after {len(kept)} of {len(bursts)} gaps a pod was there still ({'; '.join(kept)})", "a new pod after every gap", f"{len(bursts) - len(kept)} of {len(bursts)}")
    if open_ := incomplete or _unclear(name, draw, scale):
        return open_
    if idle or len(firsts) < len(bursts):
        return _open(name, f"{len(firsts)} of {len(bursts)} bursts have calls, and before {len(idle)} of them the function was not idle for {gone_within_s:g} s")
    return _held(name, f"after each of {len(bursts)} gaps the first call was held for a pod that was made for it, {len(cold(draw, scale))} of {len(records)} calls in all were held")


def voided(name: str, draw: Draw) -> Claim | None:
    """Return the inconclusive claim that is left of a load that its generator could not make as planned, None for one that it could.

    Judged before anything else: what such a load met with may be the generator's doing.
    """
    return _open(name, f"the load generator was saturated: {draw['saturated']}") if draw.get("saturated") else None


def pod_seconds(scale: Scale, within: Span) -> dict[str, float]:
    """Return what a function cost in a stretch of time: seconds of pods that were asked for, and of those that were on their way out."""
    asked = ending = 0.0
    for pod in _pods(scale):
        gone = _or_end(pod["gone_ms"], scale)
        ends = gone if pod["ending_ms"] is None else float(pod["ending_ms"])
        asked += _overlap((float(pod["created_ms"]), ends), within)
        ending += _overlap((ends, gone), within)
    return {"asked_for": asked / 1000, "ending": ending / 1000}


def costs(name: str, scale: Scale, within: Span, least: float, most: float) -> Claim:
    """Claim that a function cost between `least` and `most` pods throughout, those on their way out not counted."""
    if not _pods(scale) or within[0] < float(scale["began_ms"]) or within[1] > float(scale["ended_ms"]):
        return _open(name, "its pods were not watched throughout")
    seconds = pod_seconds(scale, within)
    pods = seconds["asked_for"] / ((within[1] - within[0]) / 1000)
    said = f"{seconds['asked_for']:.1f} pod seconds in {(within[1] - within[0]) / 1000:.1f} s are {pods:.2f} pods throughout; {seconds['ending']:.1f} more on their way out"
    return _held(name, said) if least <= pods <= most else _refuted(name, said, f"{least:g} to {most:g} pods throughout", f"{pods:.2f}")


def first_of(draw: Draw, stages: Sequence[str]) -> dict[str, Record]:
    """Return the first call that was due in each stage, for the stages that have one."""
    found: dict[str, Record] = {}
    for record in sorted(_records(draw), key=lambda one: float(one["started_ms"])):
        found.setdefault(str(record["stage"]), record)
    return {stage: found[stage] for stage in stages if stage in found}


def asked_for(scale: Scale, within: Span | None = None) -> list[tuple[float, int]]:
    """Return how many pods were there and not to end, as (milliseconds, pods) at the beginning and after every change."""
    moments = [(float(pod["created_ms"]), _or_never(pod["ending_ms"], pod["gone_ms"])) for pod in _pods(scale)]
    return _counted(moments, within or (float(scale["began_ms"]), float(scale["ended_ms"])))


def ready_at(scale: Scale, within: Span | None = None) -> list[tuple[float, int]]:
    """Return how many pods were ready and not to end, as `asked_for` does."""
    moments = [(float(pod["ready_ms"]), _or_never(pod["ending_ms"], pod["gone_ms"])) for pod in _pods(scale) if pod["ready_ms"] is not None]
    return _counted(moments, within or (float(scale["began_ms"]), float(scale["ended_ms"])))


def _bounded(name: str, scale: Scale, word: str, beyond: Any, expected: str) -> Claim:  # noqa: ANN401  # a predicate of a count
    counts, said = asked_for(scale), _wanted(scale)
    if not _pods(scale) or not said:
        return _open(name, "nothing was heard of the pods or of their autoscaler")
    story = f"there were {_range(sorted({count for _, count in counts}))} pods and {_range(sorted({wished for _, wished in said}))} were wanted"
    wrong = [(at, f"{count} pods") for at, count in counts if beyond(count)] + [(at, f"{wished} wanted") for at, wished in said if beyond(wished)]
    if wrong:
        at, seen = min(wrong)
        return _refuted(name, f"{story}; {word} first at {at / 1000:.1f} s: {seen}", expected, seen)
    return _held(name, f"{story} in {(float(scale['ended_ms']) - float(scale['began_ms'])) / 1000:.1f} s, at every one of {len(counts) + len(said)} changes")


def _said_during(name: str, scale: Scale, within: Span) -> tuple[list[int], Claim | None]:
    """Return the numbers that the autoscaler wanted during a stretch, the one it began with included."""
    said = _wanted(scale)
    if float(scale["ended_ms"]) < within[1] or not any(at <= within[0] for at, _ in said):
        return [], _open(name, "the autoscaler was not watched throughout")
    before = [wished for at, wished in said if at <= within[0]]
    return [before[-1], *(wished for at, wished in said if within[0] < at <= within[1])], None


def _wanted(scale: Scale) -> list[tuple[float, int]]:
    try:
        # What an autoscaler says before it has said anything is no wish.
        return [(float(one["at_ms"]), int(one["desired"])) for one in scale["wanted"] if int(one["desired"]) >= 0]
    except (KeyError, TypeError, ValueError) as error:
        raise judges.damaged("scale", "what a scale watch saves", repr(error)) from error


def _pods(scale: Scale) -> Sequence[Mapping[str, Any]]:
    try:
        return [{name: pod[name] for name in ("pod", "created_ms", "ready_ms", "ending_ms", "gone_ms")} for pod in scale["pods"]]
    except (KeyError, TypeError) as error:
        raise judges.damaged("scale", "what a scale watch saves", repr(error)) from error


def _records(draw: Draw) -> list[Record]:
    return judges.records_of("scale", draw)[0]


def _idle_s(record: Record, records: Sequence[Record], scale: Scale) -> float:
    """Return for how many seconds a function had had nothing to do when a call was due: neither a call in hand nor a pod to start."""
    due = float(record["started_ms"])
    ended = [float(one["started_ms"]) + float(one["latency_ms"]) for one in records if float(one["started_ms"]) < due]
    started = [float(pod["ready_ms"]) for pod in _pods(scale) if pod["ready_ms"] is not None and float(pod["ready_ms"]) <= due]
    return (due - max([*ended, *started], default=float(scale["began_ms"]))) / 1000


def _unclear(name: str, draw: Draw, scale: Scale) -> Claim | None:
    lost = [record for record in _records(draw) if not record["status"]]
    unknown = strangers(draw, scale)
    if lost or unknown:
        return _open(name, f"{len(lost)} calls got no answer and {len(unknown)} were answered by nobody that was watched ({judges.shapes([*lost, *unknown])})")
    return None


def _counted(moments: Sequence[tuple[float, float]], within: Span) -> list[tuple[float, int]]:
    edges = sorted({within[0], *(at for moment in moments for at in moment if within[0] < at <= within[1])})
    counts = [(at, sum(since <= at < until for since, until in moments)) for at in edges]
    return [one for before, one in _with_before(counts) if before is None or before[1] != one[1]]


def _with_before(counts: Sequence[tuple[float, int]]) -> Iterator[tuple[tuple[float, int] | None, tuple[float, int]]]:
    yield from zip([None, *counts[:-1]], counts, strict=True)


def _or_never(*moments: float | None) -> float:
    return min((float(moment) for moment in moments if moment is not None), default=math.inf)


def _or_end(moment: float | None, scale: Scale) -> float:
    return float(scale["ended_ms"]) if moment is None else float(moment)


def _late(ready_ms: float | None, due_ms: float) -> bool:
    return ready_ms is None or float(ready_ms) > due_ms


def _overlap(one: Span, other: Span) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def _counts(records: Sequence[Record]) -> str:
    return ", ".join(f"{count} in {stage}" for stage, count in sorted(Counter(str(record["stage"]) for record in records).items()))


def _range(numbers: Sequence[int]) -> str:
    return "none" if not numbers else str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in dict.fromkeys(numbers)) or "none"


def _held(name: str, said: str) -> Claim:
    return Claim(name, held=True, said=said)


def _open(name: str, said: str) -> Claim:
    return Claim(name, held=None, said=said)


def _refuted(name: str, said: str, expected: str, got: str) -> Claim:
    return Claim(name, held=False, said=said, expected=expected, got=got)
