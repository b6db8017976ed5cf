"""Claims about functions that a process is started for at every request: what was answered when, and what was run how often."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from suites.support import judges
from suites.support.verdicts import Claim
from workloads.records import join_key


def bounded(name: str, draw: judges.Draw, status: int, *, within_s: float, after_s: float = 0.0) -> Claim:
    """Claim that every call was answered with a status, no earlier than `after_s` and no later than `within_s`; 0 is a call without an answer."""
    records, incomplete = judges.records_of(name, draw)
    got = "; ".join(sorted({f"status {record['status']} after {record['latency_ms'] / 1000:.1f} s" for record in records}))
    expected = f"status {status} within {within_s:g} s" + (f", not before {after_s:g} s" if after_s else "")
    wrong = [record for record in records if record["status"] != status or not after_s <= record["latency_ms"] / 1000 <= within_s]
    if wrong:
        return Claim(name, held=False, said=f"{len(wrong)} of {len(records)} calls ended otherwise: {got}", expected=expected, got=got)
    return incomplete or Claim(name, held=True, said=f"all {len(records)} calls: {got}")


def each_once(name: str, ids: Iterable[str], runs: Iterable[str], *, again: int = 0) -> Claim:
    """Claim that what was asked for was run, each once, and nothing else; `again` of them may have been run a second time.

    Both are request ids, as they were sent and as the function was told them.
    """
    asked, ran = {join_key(one) for one in ids}, Counter(join_key(one) for one in runs)
    lost, strange = asked - ran.keys(), ran.keys() - asked
    twice = {one: times for one, times in ran.items() if times > 1 and one in asked}
    said = f"of {len(asked)} requests {len(asked) - len(lost)} were run, {len(twice)} of them more than once; {len(strange)} others were"
    if not asked:
        return Claim(name, held=None, said="nothing was asked for")
    right = not lost and not strange and len(twice) <= again and all(times == 2 for times in twice.values())  # noqa: PLR2004  # twice
    return Claim(name, held=right, said=said, expected=f"each once{f', {again} of them twice at most' if again else ''}", got=said)


def ids_of(draw: Mapping[str, Any]) -> list[str]:
    """Return the request ids of a draw's calls."""
    return [str(record["request_id"]) for record in draw.get("records", ())]


def counted(name: str, seen: Mapping[str, int], wanted: Mapping[str, int], *, answered: int) -> Claim:
    """Claim that exactly so much was counted of each kind; nothing at all settles nothing where nothing was answered either."""
    got, expected = (", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items())) or "nothing" for counts in (seen, wanted))
    if not seen and not answered:
        return Claim(name, held=None, said="nothing was counted")
    return Claim(name, held=dict(seen) == dict(wanted), said=f"counted: {got}", expected=expected, got=got)
