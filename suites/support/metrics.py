"""Metrics judged against the requests that were made: exact counts, and who is scraped how."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from suites.support import quantiles
from suites.support.verdicts import Claim
from workloads.records import join_key

# The functions that the reference's ServiceMonitor is to find, by runtime, and two that it is not: one without its label, one without its port.
FOUND = {"first": "go", "second": "python"}
UNLABELLED, UNPORTED = "unlabelled", "unported"

Samples = Sequence[Mapping[str, Any]]
Targets = Sequence[Mapping[str, Any]]


def scraped(name: str, targets: Targets, services: Iterable[str]) -> Claim:
    """Claim that each of these Services has exactly one target, and that its last scrape was answered."""
    by_service = {service: [one for one in targets if one["labels"].get("service") == service] for service in services}
    wrong = {service: [f"{one['health']} {one['error']}".strip() for one in found] for service, found in by_service.items() if [one["health"] for one in found] != ["up"]}
    if wrong:
        service, found = next(iter(wrong.items()))
        return Claim(name, held=False, said=f"{service} has {len(found)} targets: {', '.join(found) or 'none'}", expected="one that is up", got=", ".join(found) or "none")
    return Claim(name, held=True, said=f"{', '.join(by_service)} have a target each, and it is up")


def unscraped(name: str, targets: Targets, services: Iterable[str]) -> Claim:
    """Claim that none of these Services has a target."""
    found = sorted({str(one["labels"].get("service")) for one in targets} & set(services))
    if found:
        return Claim(name, held=False, said=f"{', '.join(found)} is scraped", expected="no target of it", got=f"{len(found)} of them")
    return Claim(name, held=True, said=f"none of {len(targets)} targets is of {', '.join(services)}")


def every(name: str, targets: Targets, interval: str) -> Claim:
    """Claim that every target is scraped at this interval."""
    seen = sorted({one["interval"] for one in targets})
    if not seen:
        return Claim(name, held=None, said="there are no targets")
    return Claim(name, held=seen == [interval], said=f"{len(targets)} targets, each {', '.join(seen)}", expected="" if seen == [interval] else interval, got="" if seen == [interval] else ", ".join(seen))


def counted(name: str, samples: Samples, expected: Mapping[str, int], *, label: str = "function") -> Claim:
    """Claim that the newest sample of each series, by one label, is exactly the expected number, and that there are no others.

    A scrape that began before the last call was answered says nothing: `samples` are to be of later ones.
    """
    seen: dict[str, float] = {}
    for one in sorted(samples, key=lambda each: float(each["at"])):
        seen[str(one["labels"].get(label))] = float(one["value"])
    wrong = {each: (wanted, seen.get(each)) for each, wanted in expected.items() if seen.get(each) != wanted}
    if wrong:
        each, (wanted, got) = next(iter(wrong.items()))
        return Claim(name, held=False, said=f"{each} counts {'nothing' if got is None else f'{got:g}'}", expected=str(wanted), got="no series" if got is None else f"{got:g}")
    if extra := sorted(seen.keys() - expected.keys()):
        return Claim(name, held=False, said=f"{', '.join(extra)} is counted too", expected="no other series", got=str(len(extra)))
    return Claim(name, held=True, said=", ".join(f"{each} {wanted}" for each, wanted in sorted(expected.items())))


def led_to(name: str, exemplars: Sequence[Mapping[str, Any]], request_ids: Iterable[str], *, least: int) -> Claim:
    """Claim that each exemplar carries the id of a request that was made, and that there are at least so many."""
    made = {join_key(one) for one in request_ids}
    strange = [one["labels"] for one in exemplars if join_key(str(one["labels"].get("request_id", ""))) not in made]
    if strange:
        return Claim(name, held=False, said=f"{len(strange)} of {len(exemplars)} lead to no request that was made", expected="the id of one", got=str(strange[0]))
    if len(exemplars) < least:
        return Claim(name, held=False, said=f"{len(exemplars)} exemplars were kept", expected=f"at least {least}", got=str(len(exemplars)))
    return Claim(name, held=True, said=f"{len(exemplars)} exemplars, each of a request that was made")


def visible_after(seen: Sequence[tuple[float, float]], ended: Sequence[float], *, base: float) -> list[float]:
    """Return, for each call in order of its end, how long after it a counter was first seen to have counted so many.

    `seen` are looks at the counter (when, how much), `base` is what it was before. A call that was never seen counted has inf.
    """
    found = []
    for number, end in enumerate(sorted(ended), start=1):
        when = next((at for at, value in seen if value >= base + number), math.inf)
        # A look that began before the answer reached the caller may have seen it counted already.
        found.append(max(0.0, when - end))
    return found


def visible(name: str, waits: Sequence[float], *, within: float) -> Claim:
    """Claim that every call was counted where it can be asked for within so many seconds; says median and p95."""
    if not waits:
        return Claim(name, held=None, said="no call was made")
    late = [wait for wait in waits if wait > within]
    if late:
        return Claim(name, held=False, said=f"{len(late)} of {len(waits)} calls were seen later, or never", expected=f"at most {within:g} s", got=f"{max(late):.2f} s")
    median, p95 = (quantiles.estimate(waits, quantile).value for quantile in (0.5, 0.95))
    return Claim(name, held=True, said=f"median {median:.2f} s, p95 {p95:.2f} s of {len(waits)} calls")


def turned(name: str, ups: Samples, value: float, *, since: float, within: float) -> Claim:
    """Claim that `up` was this value at a scrape at most so many seconds after a time, and at every one from then on."""
    after = sorted((float(one["at"]), float(one["value"])) for one in ups if float(one["at"]) >= since)
    turned_at = next((at for at, seen in after if seen == value), None)
    expected = f"{value:g} within {within:g} s"
    if turned_at is None or turned_at - since > within:
        got = "never" if turned_at is None else f"after {turned_at - since:.2f} s"
        return Claim(name, held=False, said=f"up was {value:g} {got}", expected=expected, got=got)
    back = [at for at, seen in after if at > turned_at and seen != value]
    if back:
        return Claim(name, held=False, said=f"up was another {back[0] - turned_at:.2f} s later", expected=expected, got="changing")
    return Claim(name, held=True, said=f"up was {value:g} after {turned_at - since:.2f} s, at {len([1 for at, _ in after if at >= turned_at])} scrapes")


def steady(name: str, ups: Samples, value: float, *, least: int) -> Claim:
    """Claim that `up` was this value at every scrape, of which there are at least so many."""
    other = [one for one in ups if float(one["value"]) != value]
    if other:
        return Claim(name, held=False, said=f"up was another at {len(other)} of {len(ups)} scrapes", expected=f"{value:g}", got=f"{other[0]['value']:g}")
    if len(ups) < least:
        return Claim(name, held=None, said=f"{len(ups)} scrapes, {least} are needed")
    return Claim(name, held=True, said=f"up was {value:g} at {len(ups)} scrapes")
