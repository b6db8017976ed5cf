"""Permissions as a table: one line a case, one claim a line, and two that only the whole table can make.

A case is a caller, a target and a request, with what must become of it. Every case is drawn once; a refusal counts only
beside a caller that the same target answered, a refused request must be missing from the function's own count and from its
own log, and the callee's proxy must have written down each request once, with its decision.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from string import Template
from typing import Any, Protocol

from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.verdicts import Claim
from workloads.caller.client import LOGGED_WITHIN_S, Caller
from workloads.greeter.client import Greeter
from workloads.records import join_key

# What a policy decides is its configuration, not chance: a second call only shows that the first was no accident.
CALLS = 2
# Each draw is a request through the API server; more of them at once are not answered sooner on two cores.
DRAWS_AT_ONCE = 4
ARRIVALS = "only-the-allowed-arrive"
AUDIT = "each-is-logged-once-with-its-decision"
# What evidence keeps of a proxy's log entry, and of the function's headers: never a token.
KEPT_OF_ENTRY = (
    "request_id", "method", "path", "authority", "protocol", "response_code", "response_flags", "response_code_details", "downstream_peer_principal",
    "downstream_local_principal", "rbac_decision", "rbac_policy",
)
KEPT_SEEN = ("x-forwarded-client-cert",)
KEPT_HEADERS = ("grpc-status", "location", "www-authenticate")


@dataclass(frozen=True)
class Expectation:
    """What becomes of a request: its status, whether the function answers it, and what the callee's proxy says in its log.

    `status` 0 is a connection closed on purpose. `details` is how the log's response code details begin (Envoy documentation,
    response code details), and `decision` what the role-based access control filter noted; empty where neither is asked for.
    What was never a request to the proxy (no connection, no valid HTTP) is not `logged`: it has no id to be found by.
    """

    status: int
    reaches: bool = False
    logged: bool = True
    details: str = ""
    decision: str = ""


ALLOWED = Expectation(200, reaches=True, details="via_upstream")
# A policy was asked and allowed it; without any policy for the workload there is no decision to log.
ALLOWED_BY_POLICY = Expectation(200, reaches=True, details="via_upstream", decision="allowed")
DENIED = Expectation(403, details="rbac_access_denied", decision="denied")
# A DENY policy names it; DENIED alone may also be that no ALLOW policy does.
FORBIDDEN = Expectation(403, details="rbac_access_denied_matched_policy", decision="denied")
UNAUTHENTICATED = Expectation(401, details="jwt_authn_access_denied")
MALFORMED = Expectation(400, logged=False)
CLOSED = Expectation(0, logged=False)


@dataclass(frozen=True)
class Case:
    """One line of a table: who calls what, how, and what must become of it.

    `caller` and `target` are names that the check gives a meaning to; `path` replaces the path of the target's url. `$name` in
    a header's value is filled in when the case is drawn, so that a table may speak of tokens that do not exist yet. `policy`
    is a part of the name of the policy that must have decided, as the callee's proxy logs it.
    """

    name: str
    expected: Expectation
    caller: str = "caller"
    target: str = "function"
    method: str = "GET"
    path: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    protocol: str = "http/1.1"
    policy: str = ""


@dataclass(frozen=True)
class Client:
    """A caller and the principal that a callee's proxy must log for it: a SPIFFE id, "" for one without a certificate."""

    caller: Caller
    principal: str = ""


@dataclass(frozen=True)
class Target:
    """An address, the function's pod behind it, and the pod's principal, "" where it is not to be looked at."""

    url: str
    function: Greeter
    principal: str = ""


class AccessLogs(Protocol):
    """Where it is found what proxies wrote down: with them, or in a store that has collected it."""

    def access_log(self, namespace: str, pod: str, since: float | str) -> Sequence[Mapping[str, Any]]:
        """Return the entries of one proxy over the last `since` seconds, or since that time (RFC 3339)."""


def try_all(
    cases: Sequence[Case], clients: Mapping[str, Client], targets: Mapping[str, Target], proxies: AccessLogs, *,
    values: Mapping[str, str] | None = None, calls: int = CALLS, audited: bool = True, keep_seen: Sequence[str] = KEPT_SEEN,
) -> dict[str, Any]:
    """Draw every case once, ask the functions and their proxies what they know of it, and return the evidence.

    With `audited` False the proxies' logs are not asked: the mesh is somebody's, and keeps whatever log it likes. Raises
    KeyError for a caller, target or value that a case names and nobody gave.
    """
    functions = {target.function.pod: target.function for target in targets.values()}
    for function in functions.values():
        function.reset_counts()
    with ThreadPoolExecutor(DRAWS_AT_ONCE) as pool:
        drawn = list(pool.map(partial(_draw, clients, targets, values or {}, calls, tuple(keep_seen)), cases))
    draws = {case.name: draw for case, draw in zip(cases, drawn, strict=True)}
    began = min((draw["began"] for draw in draws.values()), default="")
    at = {case.name: targets[case.target].function.pod for case in cases}

    def keys(pod: str, chosen: Iterable[Case]) -> set[str]:
        return {join_key(record["request_id"]) for case in chosen if at[case.name] == pod for record in draws[case.name]["records"]}

    arrived = {pod: keys(pod, (case for case in cases if case.expected.reaches)) for pod in functions}
    logged = {pod: keys(pod, (case for case in cases if case.expected.logged)) for pod in functions}
    return {
        "draws": draws,
        "at": at,
        "counts": {pod: function.counts().to_json() for pod, function in functions.items()},
        "said": {pod: written(partial(function.logged, began), arrived[pod]) for pod, function in functions.items()},
        "logged": {
            pod: [{field: entry.get(field) for field in KEPT_OF_ENTRY} for entry in written(partial(proxies.access_log, function.namespace, pod, began), logged[pod])]
            for pod, function in functions.items()
        } if audited else None,
        "principals": {case.name: [clients[case.caller].principal, targets[case.target].principal] for case in cases},
    }


def tried(evidence: object) -> int:
    """Return how many cases a check's evidence holds, wherever in it they are."""
    if not isinstance(evidence, Mapping):
        return 0
    if {"draws", "at", "counts", "said"} <= evidence.keys():
        return len(evidence["draws"])
    return sum(map(tried, evidence.values()))


def claims(cases: Sequence[Case], trial: Mapping[str, Any], *, prefix: str = "", alive: Mapping[str, judges.Draw] | None = None) -> Iterator[Claim]:
    """Claim of each case that it became what it must, and of all together that refusals never arrive and every decision is logged.

    Names are those of the cases behind `prefix`. `alive` has draws that a target answered, for one that must refuse all of its cases;
    the others are known to be alive from those that they allow. The last claim is made only of a trial that asked the proxies for their logs.
    """
    draws = trial["draws"]
    answered = {case.target: judges.joined({one.name: draws.get(one.name, {}) for one in cases if one.target == case.target and one.expected.reaches}) for case in cases}
    answered |= alive or {}
    for case in cases:
        name, draw = f"{prefix}{case.name}", draws.get(case.name, {})
        if case.expected.reaches:
            yield _answered(name, draw, case.expected.status)
        else:
            yield judges.refused(name, draw, control=answered[case.target], status=case.expected.status)
    yield _arrivals(f"{prefix}{ARRIVALS}", cases, trial, alive=bool(alive) and all(answered.values()))
    if trial.get("logged") is not None:
        yield _audit(f"{prefix}{AUDIT}", cases, trial)


def _answered(name: str, draw: judges.Draw, status: int) -> Claim:
    """Claim that the function itself gave every answer, with that status."""
    records, _ = judges.records_of(name, draw)
    foreign = [record for record in records if record["status"] and not record["version"]]
    if foreign:
        return Claim(name, held=False, said=f"{len(foreign)} of {len(records)} calls were answered by the proxy: {judges.shapes(foreign)}", expected=f"status {status} by the function", got=judges.shapes(foreign))
    return judges.every_status(name, draw, status)


def _arrivals(name: str, cases: Sequence[Case], trial: Mapping[str, Any], *, alive: bool) -> Claim:
    """Claim that what was allowed is in the function's count and in its own log once, and what was refused in neither.

    A table that allows nothing shows by itself that nothing arrived, but not that an arrival would have been counted: that has
    to be known from elsewhere (`alive`).
    """
    wrong, lost, seen = Counter[str](), 0, Counter[bool]()
    said = {pod: Counter(join_key(str(line["request_id"])) for line in lines) for pod, lines in trial["said"].items()}
    counted = {pod: Counter({join_key(key): count for key, count in counts["by_request_id"].items()}) for pod, counts in trial["counts"].items()}
    for case in cases:
        records, incomplete = judges.records_of(name, trial["draws"].get(case.name, {}))
        lost += incomplete is not None
        pod = trial["at"].get(case.name, "")
        if pod not in counted or pod not in said:
            raise judges.damaged(name, f"counts and log of the function that {case.name} was sent to", repr(pod))
        for record in records:
            key = join_key(str(record["request_id"]))
            times = (counted[pod][key], said[pod][key])
            if case.expected.reaches and max(times) <= 1 and times != (1, 1) and not record["status"]:
                lost += 1
            elif times != (int(case.expected.reaches),) * 2:
                wrong[f"{case.name}: counted {times[0]} times, in its log {times[1]} times"] += 1
            else:
                seen[case.expected.reaches] += 1
    if wrong:
        return Claim(name, held=False, said=_most(wrong), expected="allowed once in both, refused in neither", got=_most(wrong))
    if lost or not (seen[True] or alive):
        return Claim(name, held=None, said=f"{lost} cases or calls were lost, {seen[True]} arrived")
    return Claim(name, held=True, said=f"{seen[True]} allowed requests are in the function's count and log once, {seen[False]} refused ones in neither")


def _audit(name: str, cases: Sequence[Case], trial: Mapping[str, Any]) -> Claim:
    """Claim that the callee's proxy logged each request exactly once, with both principals, the decision and the policy behind it."""
    wrong, lost, right = Counter[str](), 0, 0
    logged = {pod: by_request(entries) for pod, entries in trial["logged"].items()}
    for case in cases:
        records, incomplete = judges.records_of(name, trial["draws"].get(case.name, {}))
        lost += incomplete is not None
        for record in records if case.expected.logged else ():
            found = logged[trial["at"][case.name]].get(join_key(str(record["request_id"])), [])
            if not record["status"] and not found:
                lost += 1
            elif len(found) != 1:
                wrong[f"{case.name}: {len(found)} entries"] += 1
            elif problem := _problem(case, found[0], trial["principals"][case.name]):
                wrong[f"{case.name}: {problem}"] += 1
            else:
                right += 1
    if wrong:
        return Claim(name, held=False, said=_most(wrong), expected="one entry each, with its decision", got=_most(wrong))
    if lost or not right:
        return Claim(name, held=None, said=f"{lost} cases or calls were lost, {right} requests are in the log as they should be")
    return Claim(name, held=True, said=f"{right} requests are in the callee's log exactly once, each with principals, decision and policy")


def _problem(case: Case, entry: Mapping[str, Any], principals: Sequence[str]) -> str:
    """Say what is wrong with a log entry, "" when nothing is."""
    said = {field: "" if entry.get(field) in (None, "-") else str(entry[field]) for field in KEPT_OF_ENTRY}
    source, destination = principals
    grpc = case.protocol == "grpc"
    looked_at = (
        ("method", said["method"], "POST" if grpc else case.method),
        ("source", said["downstream_peer_principal"], source),
        # Without a certificate of the caller's there was no handshake in which the function could have shown its own.
        *([("destination", said["downstream_local_principal"], destination if source else "")] if destination else []),
        # What Envoy refuses over gRPC it says in a trailer, and logs as HTTP's 200.
        *([("status", said["response_code"], str(case.expected.status))] if not grpc else []),
        *([("decision", said["rbac_decision"], case.expected.decision)] if case.expected.decision else []),
    )
    for field, seen, wanted in looked_at:
        if seen != wanted:
            return f"{field} {seen or 'none'} instead of {wanted or 'none'}"
    if not said["response_code_details"].startswith(case.expected.details):
        return f"details {said['response_code_details']} instead of {case.expected.details}"
    if case.policy not in f"{said['rbac_policy']} {said['response_code_details']}":
        return f"policy {said['rbac_policy'] or said['response_code_details']} instead of {case.policy}"
    return ""


def _draw(clients: Mapping[str, Client], targets: Mapping[str, Target], values: Mapping[str, str], calls: int, keep_seen: Sequence[str], case: Case) -> dict[str, Any]:
    draw = clients[case.caller].caller.draw(
        targets[case.target].url, count=calls, method=case.method, path=case.path, protocol=case.protocol, fresh_connections=True,
        headers=[(name, Template(value).substitute(values)) for name, value in case.headers], keep_seen=keep_seen, keep_headers=KEPT_HEADERS,
    )
    return draw.to_json()


def by_request(entries: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the entries of a log by the join key of their request."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        found.setdefault(join_key(str(entry["request_id"])), []).append(entry)
    return found


def written(log: Callable[[], Sequence[Mapping[str, Any]]], wanted: set[str]) -> list[Mapping[str, Any]]:
    """Return the entries of a log once those of all wanted requests are there; what never comes is missing from them.

    Entries of nobody's request are left out: health checks, and what another check asked for a moment ago.
    """
    found: list[Mapping[str, Any]] = []

    def complete() -> None:
        nonlocal found
        found = [entry for entry in log() if entry["request_id"]]
        missing = wanted - {join_key(str(entry["request_id"])) for entry in found}
        assert not missing, f"{len(missing)} of {len(wanted)} requests are not in the log"

    with suppress(TimedOut):
        eventually(complete, within=LOGGED_WITHIN_S, every=0.2)
    return found


def _most(kinds: Mapping[str, int], most: int = 4) -> str:
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{what} ({count} times)" for what, count in ordered[:most]) + (f"; and {len(ordered) - most} more kinds" if len(ordered) > most else "")
