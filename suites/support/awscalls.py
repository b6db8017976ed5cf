"""Calls of AWS that a function of the mesh makes: what the function says of them, what its proxy wrote down of them, and what the called function did."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.verdicts import Claim
from workloads.aws import migration
from workloads.records import Draw, join_key

# Envoy writes its access log out once a second; a busy machine takes longer to pass it on.
LOGGED_WITHIN_S = 15.0
INBOUND = "inbound|"
KEPT = ("request_id", "response_code", "response_flags", "response_code_details", "route_name", "upstream_cluster", "upstream_host", "path")


def ended(name: str, draw: Mapping[str, Any], status: int, error: str = "", *, least: int = 1) -> Claim:
    """Claim that AWS, or who answered in its place, ended each call with `status` and `error`, as the calling function tells it.

    `status` 0 means that nobody answered. A call that the function itself did not answer leaves it inconclusive.
    """
    records, incomplete = judges.records_of(name, draw, least=least)
    told = Counter(outcome(record) for record in records if outcome(record))
    got = ", ".join(f"{count} x status {one[0]} {one[1]}".strip() for one, count in sorted(told.items()))
    if set(told) - {(str(status), error)}:
        return Claim(name, held=False, said=f"{len(records)} calls of AWS ended with {got}", expected=f"status {status} {error}".strip(), got=got)
    if sum(told.values()) < len(records):
        return Claim(name, held=None, said=f"{len(records) - sum(told.values())} of {len(records)} calls were not answered by the function: {judges.shapes(records)}")
    return incomplete or Claim(name, held=True, said=f"{len(records)} calls of AWS ended with {got}")


def outcome(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the status and the error of a call of AWS, empty where the function says nothing of one."""
    headers = record.get("headers", {})
    return (headers["x-aws-status"][0], next(iter(headers.get("x-aws-error", ())), "")) if headers.get("x-aws-status") else ()


def ran(name: str, times: int, expected: int) -> Claim:
    """Claim that the called function ran exactly so often, by its own log."""
    return Claim(name, held=times == expected, said=f"the function ran {times} times", expected=str(expected), got=str(times))


def within(name: str, draw: Mapping[str, Any], bound_ms: float) -> Claim:
    """Claim that each call ended, whichever way, within `bound_ms` milliseconds."""
    records, incomplete = judges.records_of(name, draw)
    slowest = max((float(record["latency_ms"]) for record in records), default=0.0)
    if slowest > bound_ms:
        return Claim(name, held=False, said=f"of {len(records)} calls the slowest took {slowest:.0f} ms", expected=f"at most {bound_ms:g} ms", got=f"{slowest:.0f} ms")
    return incomplete or Claim(name, held=True, said=f"each of {len(records)} calls ended within {slowest:.0f} ms, {bound_ms:g} ms are allowed")


def said_the_same(name: str, rows: Iterable[Mapping[str, Any]], applied: Mapping[str, Any]) -> Claim:
    """Claim that what is applied in the mesh says every registered setting that has a counterpart there, with its value."""
    listed = list(rows)
    wrong = [(row, migration.at(applied.get(row["kind"], {}), row["path"])) for row in listed if row["kind"] != migration.NOTHING]
    differing = [f"{row['resource']} {row['setting']}: {row['kind']} {row['path']} is {seen}, not {row['wanted']}" for row, seen in wrong if seen != row["wanted"]]
    if differing:
        return Claim(name, held=False, said="; ".join(differing), expected="every setting said in Istio's words", got=f"{len(differing)} said otherwise")
    if not wrong:
        return Claim(name, held=None, said="nothing is registered that could be said")
    lost = [f"{row['resource']} {row['setting']}" for row in listed if row["kind"] == migration.NOTHING]
    return Claim(name, held=True, said=f"{len(wrong)} of {len(listed)} registered settings are said in Istio's words; nothing there says {', '.join(lost) or 'none of the others'}")


def sent_out(access_log: Callable[[str], Sequence[Mapping[str, Any]]], draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """Return what the proxy of the calling function wrote down of the calls that it let out, or refused, for the calls of `draws`.

    Waits for an entry for each call; after a bounded time what is there is all there will be.
    """
    ids = {join_key(record.request_id) for draw in draws for record in draw.records}
    found: list[dict[str, Any]] = []

    def read() -> None:
        entries = access_log(min(draw.began for draw in draws))
        out = [entry for entry in entries if entry["request_id"] and join_key(str(entry["request_id"])) in ids and not str(entry["upstream_cluster"]).startswith(INBOUND)]
        found[:] = [{field: entry.get(field) for field in KEPT} for entry in out]
        seen = {join_key(str(entry["request_id"])) for entry in found}
        assert seen >= ids, f"{len(seen)} of {len(ids)} calls are in the log"

    with suppress(TimedOut):
        eventually(read, within=LOGGED_WITHIN_S)
    return found
