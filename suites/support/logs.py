"""Log lines against what was written: which are lost, which are there more than once, and how long they took to be found."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from clusters.components.fluentd.client import Backlog
from clusters.components.store.client import Line, StoreUnreachable
from clusters.waiting import TimedOut, eventually
from suites.support.quantiles import estimate
from suites.support.verdicts import Claim

Found = TypeVar("Found")
# Of what is wrong, evidence names the first few.
NAMED = 10
DELIVERED_WITHIN_S = 15.0
FOUND_AT_ONCE = 100


class Counting(Protocol):
    """What is needed of the store to know whether all is there."""

    def count(self, **terms: str) -> int:
        """Return how many lines have these values."""

    def refresh(self) -> None:
        """Have all that was taken be found."""

    def values(self, field: str, **terms: str) -> list[str]:
        """Return the value of a field of each line that has these values."""


class Searching(Protocol):
    """What is needed of the store to look at lines."""

    def search(self, most: int, **terms: str) -> list[Line]:
        """Return the lines that have these values."""


class Collecting(Protocol):
    """What is needed of collectors to know that nothing is under way."""

    def backlog(self, namespace: str, name: str = ...) -> Backlog | None:
        """Return how far they are."""


def tally(written: int, found: Iterable[str]) -> dict[str, Any]:
    """Return what became of `written` lines that count from 0, by the numbers that were found: how many are lost, how many are there again, how many nobody wrote.

    Every number that was found is in exactly one of `once`, `again` (each time beyond the first) and `foreign`.
    """
    times = Counter(found)
    ours = {str(number) for number in range(written)}
    lost = [number for number in range(written) if str(number) not in times]
    again = {number: count - 1 for number, count in times.items() if number in ours and count > 1}
    foreign = Counter({number: count for number, count in times.items() if number not in ours})
    return {
        "written": written, "once": sum(number in ours for number in times), "lost": len(lost), "again": sum(again.values()), "foreign": foreign.total(),
        "first_lost": lost[:NAMED], "first_again": sorted(again, key=int)[:NAMED], "first_foreign": sorted(foreign)[:NAMED],
    }


def number_of(message: str) -> str:
    """Return the number of a line as it was written, where a store has it as text; empty for a text that is no such line."""
    try:
        return str(json.loads(message)["n"])
    except (ValueError, KeyError, TypeError):
        return ""


def none_lost(name: str, seen: Mapping[str, Any], *, least: int = 1) -> Claim:
    """Claim that every line that was written is there; inconclusive where fewer than `least` were."""
    if seen["written"] < least:
        return Claim(name, None, f"{seen['written']} lines were written, {least} are needed")
    if seen["lost"]:
        return Claim(name, held=False, said=f"{seen['lost']} of {seen['written']} lines are lost, the first are {seen['first_lost']}", expected="none", got=str(seen["lost"]))
    return Claim(name, held=True, said=f"all {seen['written']} lines are there")


def none_again(name: str, seen: Mapping[str, Any]) -> Claim:
    """Claim that no line is there more than once, and none that nobody wrote; inconclusive where none is there."""
    if seen["again"] or seen["foreign"]:
        said = f"{seen['again']} lines are there again, the first are {seen['first_again']}; {seen['foreign']} were never written, the first are {seen['first_foreign']}"
        return Claim(name, held=False, said=said, expected="none", got=f"{seen['again']} and {seen['foreign']}")
    return Claim(name, held=True if seen["once"] else None, said=f"{seen['once']} lines are there, each once")


def found_once(name: str, found: Sequence[Mapping[str, Any]], writer: Mapping[str, str], labels: Mapping[str, str]) -> Claim:
    """Claim that a line was found exactly once, under whom wrote it (`namespace`, `pod`, `container`, `stream`) and with these labels among its pod's."""
    if len(found) != 1:
        return Claim(name, held=False, said=f"it was found {len(found)} times", expected="once", got=str(len(found)))
    line = found[0]
    wrong = {field: line[field] for field, value in writer.items() if line[field] != value} | {key: line["labels"].get(key) for key, value in labels.items() if line["labels"].get(key) != value}
    if wrong:
        return Claim(name, held=False, said=f"it says {wrong} of its writer", expected=str({**writer, **labels}), got=str(wrong))
    return Claim(name, held=True, said=f"once, from {line['container']} of {line['namespace']}/{line['pod']}, with {len(line['labels'])} labels")


def absent(name: str, found: Sequence[Mapping[str, Any]], *, where: str, written: bool) -> Claim:
    """Claim that a line is not found `where`; inconclusive unless it was `written`."""
    if found:
        return Claim(name, held=False, said=f"it was found {len(found)} times {where}", expected="never", got=str(len(found)))
    return Claim(name, held=True if written else None, said=f"not found {where}" if written else "nobody wrote it")


def arrived(store: Counting, count: int, *, within: float, settle: Callable[[], object] = lambda: None, **terms: str) -> list[str]:
    """Return the numbers of the lines with these values once `count` of them are there, or after a bounded wait what is there.

    `settle` is called in between: what is still under way by then would be there again.
    """

    def all_there() -> None:
        there = store.count(**terms)
        assert there >= count, f"{there} of {count} lines are there"

    or_nothing(all_there, within=within, every=0.5)
    settle()
    store.refresh()
    return store.values("n", **terms)


@dataclass(frozen=True)
class Watched:
    """Lines that were watched for while they were written, and when each was first found, by its id (seconds since 1970)."""

    lines: Sequence[Line]
    found_at: Mapping[str, float]

    def delays(self) -> dict[str, Any]:
        """Return how long after its writing a line was found, in seconds: by the runtime's clock, which is the node's, and this machine's, which is the same on kind."""
        took = sorted(self.found_at[line.id] - datetime.fromisoformat(line.at).timestamp() for line in self.lines)
        if not took:
            return {"lines": 0}
        return {"lines": len(took), "median_s": round(estimate(took).value, 3), "p95_s": round(estimate(took, 0.95).value, 3), "longest_s": round(took[-1], 3)}


def watched_while(write: Callable[[], object], search: Callable[[], Sequence[Line]], count: int, *, within: float) -> Watched:
    """Search again and again while `write` writes, until `count` lines are found, or for `within` seconds after it has ended."""
    found: Sequence[Line] = ()
    first: dict[str, float] = {}

    def all_there() -> None:
        nonlocal found
        found = search()
        now = time.time()
        for line in found:
            first.setdefault(line.id, now)
        assert len(found) >= count, f"{len(found)} of {count} lines are there"

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            or_nothing(all_there, within=0.5)
        writing.result()
    or_nothing(all_there, within=within)
    return Watched(found, first)


def or_nothing(look: Callable[[], Found], *, within: float, every: float = 0.1) -> Found | None:
    """Return what a look returns once it does not assert, or None after a bounded wait: what never comes is for the judge to miss.

    A store that cannot answer at a moment, such as that in which a day's index is made, may at the next.
    """
    with suppress(TimedOut):
        return eventually(look, within=within, every=every, ignoring=(StoreUnreachable,))
    return None


def found_soon(store: Searching, *, within: float, **terms: str) -> list[Line]:
    """Return the lines with these values once there is one, or none after a bounded wait."""

    def there() -> list[Line]:
        found = store.search(FOUND_AT_ONCE, **terms)
        assert found, "none is there"
        return found

    return or_nothing(there, within=within) or []


def delivered(collectors: Collecting, namespace: str, name: str) -> None:
    """Return once the collectors hold nothing more, or after a bounded wait."""

    def nothing_held() -> None:
        seen = collectors.backlog(namespace, name)
        assert seen is not None, "the collectors cannot be asked"
        assert seen.size == 0, f"{seen.size} bytes are not delivered"

    or_nothing(nothing_held, within=DELIVERED_WITHIN_S)
