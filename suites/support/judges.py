"""Reusable claims over saved draws: pure functions from JSON to a Claim that says what was expected and what was seen.

Three rules hold for every one of them. An empty or incomplete draw never holds. A call that the mesh is not to blame for
(a killed pod, a lost connection) makes a claim inconclusive, never true; it is refuted all the same when no answer to
the lost calls could have saved it. What cannot be read as a draw is the user's broken file, not a verdict.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from clusters.errors import UserError
from suites.support import sampling
from suites.support.verdicts import Claim
from workloads.records import join_key

Record = Mapping[str, Any]
Draw = Mapping[str, Any]

# Envoy's response flags (access log documentation) by what they say about a call that no function answered.
# The proxy knew where to send it and the other end was gone or not ready: not the routing's fault.
UPSTREAM_GONE = frozenset({"UF", "UH", "UC", "UR", "LR", "LH", "UT", "URX", "DC"})
# The proxy did not know where to send it: the routing's fault and nobody else's.
NOT_ROUTED = frozenset({"NR", "NC"})

# The way to the function broke, before or after it was reached: its count says nothing of what the proxy would have done.
ON_THE_WAY = frozenset({"UF", "UH", "UC", "LR", "LH", "DC"})

# Finding: Envoy's timers run on libevent's clock, CLOCK_MONOTONIC_COARSE (libevent, evutil_time.c), which stands still between two
# ticks of the kernel: a timer may end up to a tick early, 10 ms where the kernel ticks slowest (HZ=100). Seen: 1.7 ms.
TICK_MS = 10.0

# How Go's net/http words a connection that the other side closed on purpose; "connection refused" is not among them,
# because nobody listening proves nothing about a policy.
# A TLS alert about the client's certificate is as much of a refusal: Envoy sends "certificate required" to a client without any, "expired
# certificate" where that is the reason, and, for one that the roots have not signed, "unknown certificate authority", or "error
# decrypting message" where the signer bears the name of a root.
CLOSED_BY_ALERT = tuple(
    f"remote error: tls: {alert}"
    for alert in ("certificate required", "expired certificate", "unknown certificate authority", "error decrypting message", "bad certificate", "unknown certificate")
)
CLOSED_ON_PURPOSE = ("connection reset", "EOF", "broken pipe", "server closed", *CLOSED_BY_ALERT)


def no_failures(name: str, draw: Draw, *, excused: frozenset[str] = frozenset()) -> Claim:
    """Claim that every call was answered with a status from 200 to 499.

    `excused` are response flags (for instance UPSTREAM_GONE, in a check that kills pods) that leave the claim
    inconclusive when every failed call carries one of them.
    """
    records, incomplete = records_of(name, draw)
    failed = [record for record in records if not 200 <= record["status"] < 500]
    expected = f"{len(records)} of {len(records)} calls answered"
    got = f"{len(failed)} failed ({shapes(failed)})"
    if failed and not all(_flags(record) & excused for record in failed):
        return _refuted(name, f"{len(failed)} of {len(records)} calls failed: {shapes(failed)}", expected, got)
    if failed:
        return _open(name, f"{len(failed)} of {len(records)} calls failed for an excused reason: {shapes(failed)}")
    return incomplete or _held(name, f"all {len(records)} calls were answered")


def every_status(name: str, draw: Draw, status: int, *, least: int = 1) -> Claim:
    """Claim that every call got `status`, in a draw of at least `least` calls; one without any answer leaves it inconclusive."""
    records, incomplete = records_of(name, draw, least=least)
    unanswered = [record for record in records if record["status"] == 0]
    other = [record for record in records if record["status"] not in (0, status)]
    if other:
        return _refuted(name, f"{len(other)} of {len(records)} calls got another status than {status}: {shapes(other)}", f"status {status}", shapes(other))
    if unanswered:
        return _open(name, f"{len(unanswered)} of {len(records)} calls got no answer: {shapes(unanswered)}")
    return incomplete or _held(name, f"all {len(records)} calls got status {status}")


def answers(name: str, draw: Draw, expected: Mapping[tuple[str, int], int]) -> Claim:
    """Claim that the calls were answered exactly so often by each version with each status, and not otherwise.

    Lost calls leave it inconclusive where their answers could have made the difference.
    """
    records, incomplete = records_of(name, draw)
    seen = Counter((str(record["version"]), int(record["status"])) for record in records if record["status"])
    wanted, got = (", ".join(f"{count} x {version or 'the proxy'} {status}" for (version, status), count in sorted(counts.items())) for counts in (expected, seen))
    if any(count > expected.get(kind, 0) for kind, count in seen.items()):
        return _refuted(name, f"{len(records)} calls were answered {got}", wanted, got)
    if incomplete or seen.total() < len(records):
        return incomplete or _open(name, f"{len(records) - seen.total()} of {len(records)} calls got no answer; the others: {got}")
    if seen != Counter(expected):
        return _refuted(name, f"{len(records)} calls were answered {got}", wanted, got)
    return _held(name, f"{len(records)} calls were answered {got}")


def counter_rise(name: str, before: Mapping[str, Any], after: Mapping[str, Any], counter: str, rise: int) -> Claim:
    """Claim that a proxy's counter rose by exactly `rise` between two readings (IstioClient.upstream).

    The first may lack it: a counter does not exist before its cluster's first call. A second without it settles nothing.
    """
    if counter not in after:
        return _open(name, f"the proxy has no counter {counter}")
    try:
        seen = int(after[counter]) - int(before.get(counter, 0))
    except (TypeError, ValueError) as error:
        raise damaged(name, f"whole numbers as {counter}", repr(error)) from error
    if seen < 0:
        return _open(name, f"{counter} went back by {-seen}: the proxy started anew in between")
    if seen != rise:
        return _refuted(name, f"{counter} rose by {seen}", f"a rise by {rise}", str(seen))
    return _held(name, f"{counter} rose by {seen}")


def logged(name: str, entries: Sequence[Mapping[str, Any]], fields: Mapping[str, str], count: int) -> Claim:
    """Claim that the caller's proxy logged exactly `count` entries, each with these fields; fewer entries settle nothing."""
    # Finding: Istio ends the names that clusters have in logs and counters with a semicolon (a delimiter for its own tags).
    wrong = [entry for entry in entries if any(str(entry.get(field)).rstrip(";") != value for field, value in fields.items())]
    wanted = ", ".join(f"{field} {value}" for field, value in fields.items())
    if wrong:
        got = str({field: wrong[0].get(field) for field in fields})
        return _refuted(name, f"{len(wrong)} of {len(entries)} entries of the log do not have {wanted}", wanted, got)
    if len(entries) != count:
        return _open(name, f"{len(entries)} entries of the log have {wanted}, {count} are wanted")
    return _held(name, f"all {len(entries)} entries of the log have {wanted}")


def most_in_hand(name: str, load: Mapping[str, Any], most: int) -> Claim:
    """Claim that a function had exactly `most` calls of a held load (suites.support.held) under way at one time.

    More than that refute it; fewer do, unless calls of the load were lost.
    """
    try:
        seen = int(load["function"]["most_in_hand"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(name, "a held load with the function's counts", repr(error)) from error
    read = [records_of(name, wave) for wave in load.get("waves", [])]
    lost = sum(incomplete is not None or any(record["status"] == 0 for record in records) for records, incomplete in read)
    said = f"the function had at most {seen} calls under way at one time"
    if seen > most or (seen < most and not lost):
        return _refuted(name, said, str(most), str(seen))
    if lost or not read:
        return _open(name, f"{said}, and calls of {lost} of {len(read)} waves were lost")
    return _held(name, said)


def split(name: str, draw: Draw, *, declared: Mapping[str, float], alpha: float, shift: float | None = None) -> Claim:  # noqa: PLR0911  # one return per thing that can be said
    """Claim that versions answered in the declared shares (by version, summing to 1), by an exact test at `alpha`.

    A version that was not declared, and a call that the proxy itself answered for want of a route, refute the claim.
    Other calls without an answer from a function (no answer, 5xx without a version) leave it inconclusive, unless the
    shares are refuted whichever version the lost calls are given to. A draw too small to notice anything, or to notice
    `shift` (share points) with a power of 99 % when that is given, is inconclusive: it could not have failed.
    """
    records, incomplete = records_of(name, draw)
    served = Counter(str(record["version"]) for record in records if record["version"])
    unserved = [record for record in records if not record["version"]]
    nowhere = [record for record in unserved if _by_mesh(record)]
    lost = [record for record in unserved if not _by_mesh(record)]
    expected = ", ".join(f"{version} {share:.4g}" for version, share in declared.items())
    if nowhere:
        return _refuted(name, f"{len(nowhere)} of {len(records)} calls were routed to no version: {shapes(nowhere)}", expected, shapes(nowhere))
    if not served:
        return incomplete or _open(name, f"no version answered any of {len(records)} calls: {shapes(lost)}")
    statistic = sampling.split(served, declared, alpha)
    missing = len(lost) + max(0, _announced(draw) - len(records))
    if missing:
        if _refuted_however_filled(served, statistic.declared, missing, alpha):
            return _refuted(name, f"whichever version the {missing} lost calls are given to, {statistic.seen} refute the shares", expected, statistic.seen, statistic)
        return incomplete or _open(name, f"{len(lost)} of {len(records)} calls were lost on the way and say nothing about routing: {shapes(lost)}", statistic)
    seen = ", ".join(f"{version} {count} ({count / statistic.n:.2%})" for version, count in statistic.counts.items())
    if statistic.rejected:
        return _refuted(name, f"{seen} of {statistic.n} refute {expected} (p = {statistic.p_value:.2g}, alpha = {alpha:g})", statistic.expected, statistic.seen, statistic)
    noticed = statistic.smallest_detectable_shift
    wanted = 1.0 if shift is None else shift
    if noticed is None or noticed > wanted:
        least = "any shift" if noticed is None else f"a shift below {noticed:.3g}"
        return _open(name, f"{statistic.n} calls are too few to notice {least}{'' if shift is None else f', {shift:g} is wanted'}", statistic)
    return _held(name, f"{seen} of {statistic.n} agree with {expected} (p = {statistic.p_value:.2g}, alpha = {alpha:g})", statistic)


def sequential_split(name: str, draw: Draw, *, version: str, test: sampling.SequentialTest) -> Claim:
    """Claim that `version` answers its declared share, by a test that stops at the first sufficient call.

    Calls are looked at in order of their index. A lost call before the decision leaves the claim inconclusive, and so
    does the cap.
    """
    records, incomplete = records_of(name, draw)
    ordered = sorted(records, key=lambda record: int(record["index"]))
    decision = test.decide([record["version"] == version for record in ordered])
    used = ordered[: decision.drawn]
    lost = [record for record in used if not record["version"]]
    if not used:
        return incomplete or _open(name, "no call was made")
    statistic = test.statistic(version, decision)
    said = f"{version} answered {decision.hits} of {decision.drawn} calls: "
    if lost:
        return _open(name, f"{len(lost)} of the {decision.drawn} calls looked at were answered by no version: {shapes(lost)}")
    if decision.outcome == "rejected":
        return _refuted(name, f"{said}a share of {test.declared:g} is refuted (p = {decision.p_value:.2g}, alpha = {test.alpha:g})", statistic.expected, statistic.seen, statistic)
    if decision.outcome == "undecided":
        return _open(name, f"{said}undecided{' at the cap' if decision.drawn >= test.cap else ''} of {test.cap}", statistic)
    return _held(name, f"{said}no shift of {test.shift:g} or more from {test.declared:g} (beta = {test.beta:g})", statistic)


def only_version(name: str, draw: Draw, version: str, *, least: int = 1) -> Claim:
    """Claim that every call was answered by `version`, in a draw of at least `least` calls."""
    return _each(name, draw, least, right=lambda record: record["version"] == version, fact=f"answered by {version}", shown=lambda record: str(record["version"]))


def never_version(name: str, draw: Draw, version: str, *, least: int = 1) -> Claim:
    """Claim that every call was answered by some version and none by `version`."""
    return _each(name, draw, least, right=lambda record: record["version"] != version, fact=f"answered by another version than {version}", shown=lambda record: str(record["version"]))


def versions_seen(name: str, draw: Draw, versions: Iterable[str]) -> Claim:
    """Claim that every one of `versions` answered at least once; a lost call leaves a missing one inconclusive."""
    wanted = sorted(set(versions))
    records, incomplete = records_of(name, draw)
    seen = Counter(str(record["version"]) for record in records if record["version"])
    missing = [version for version in wanted if version not in seen]
    if not wanted or not records:
        return incomplete or _open(name, "no version was asked for")
    if missing and (incomplete or sum(seen.values()) < len(records)):
        return _open(name, f"{', '.join(missing)} answered none of {len(records)} calls, but some calls were lost")
    if missing:
        return _refuted(name, f"{', '.join(missing)} answered none of {len(records)} calls", ", ".join(wanted), _counts(seen))
    return incomplete or _held(name, f"{_counts(seen)} answered")


def alike(name: str, draw: Draw, versions: Iterable[str], *, least: int = 1) -> Claim:
    """Claim that `versions`, one pod each, answered alike: their counts differ by one for each of the draw's connections at most.

    That is round robin without chance: a connection stays with one of the proxy's worker threads, each worker goes round by
    itself (Envoy documentation, load balancing, weighted round robin), and a round that is cut short puts it one ahead.
    """
    records, incomplete = records_of(name, draw)
    slack = int(draw.get("concurrency") or 0)
    counts = {**dict.fromkeys(sorted(set(versions)), 0), **Counter(str(record["version"]) for record in records if record["version"])}
    strays = sorted(counts.keys() - set(versions))
    apart = max(counts.values(), default=0) - min(counts.values(), default=0)
    missing = max(_announced(draw), len(records)) - sum(counts.values())
    expected, got = f"at most {slack} apart on {slack} connections", _counts(counts)
    if strays or apart > slack + missing:
        return _refuted(name, f"{got}: {f'nobody asked for {strays[0]}' if strays else f'{apart} apart'}", expected, got)
    if missing or incomplete:
        return incomplete or _open(name, f"{missing} of {len(records)} calls were answered by no version")
    # With fewer rounds than this, a version that is left out would not show.
    if not slack or len(records) < max(least, len(counts) * (slack + 1)):
        return _open(name, f"{len(records)} calls on {slack} connections are too few, {max(least, len(counts) * (slack + 1))} are wanted")
    return _held(name, f"{got}: {apart} apart on {slack} connections")


def header_seen(name: str, draw: Draw, header: str, value: str, *, least: int = 1) -> Claim:
    """Claim that the function saw the request header `header` with exactly the one value `value` on every call."""
    key = header.lower()
    return _each(
        name, draw, least, right=lambda record: _seen(record, key) == [value], fact=f"seen with {key}: {value}",
        shown=lambda record: f"{key}: {', '.join(_seen(record, key)) or 'absent'}", reached=_reached,
    )


def answer_header(name: str, draw: Draw, header: str, value: str, *, least: int = 1) -> Claim:
    """Claim that every call was answered by a function, with the answer's header `header` of exactly the one value `value`."""
    key = header.lower()
    return _each(
        name, draw, least, right=lambda record: _answered_with(record, key) == [value], fact=f"answered with {key}: {value}",
        shown=lambda record: f"{key}: {', '.join(_answered_with(record, key)) or 'absent'}",
    )


def header_absent(name: str, draw: Draw, header: str, *, least: int = 1) -> Claim:
    """Claim that the function never saw the request header `header`, on calls whose headers it did report."""
    key = header.lower()
    return _each(
        name, draw, least, right=lambda record: bool(record["seen"]) and not _seen(record, key), fact=f"seen without {key}",
        shown=lambda record: f"{key}: {', '.join(_seen(record, key))}" if record["seen"] else "no headers reported", reached=_reached,
    )


def peer_identity(name: str, draw: Draw, spiffe: str, *, least: int = 1) -> Claim:
    """Claim that the function's proxy authenticated the caller as `spiffe` (a `spiffe://` URI) on every call.

    The proof is `X-Forwarded-Client-Cert` as the function saw it. Sidecars append, so only the last element speaks of
    the peer; whatever stands before it may have been sent by the caller.
    """
    return _each(
        name, draw, least, right=lambda record: peer_of(record) == spiffe, fact=f"from {spiffe}",
        shown=lambda record: peer_of(record) or "no peer identity", reached=_reached,
    )


def no_peer_identity(name: str, draw: Draw, *, least: int = 1) -> Claim:
    """Claim that the function was reached without any authenticated peer: the twin of `peer_identity` for plaintext."""
    return _each(
        name, draw, least, right=lambda record: bool(record["seen"]) and not peer_of(record), fact="without a peer identity",
        shown=lambda record: peer_of(record) or "no headers reported", reached=_reached,
    )


def refused(name: str, draw: Draw, *, control: Draw, status: int = 0, closed: Sequence[str] = CLOSED_ON_PURPOSE) -> Claim:  # noqa: PLR0911  # one return per thing that can be said
    """Claim that every call of `draw` was refused while the same target answered every call of `control`.

    `status` 0 means refused by closing the connection: the error must then contain one of the texts `closed`. Any other
    status must be the one of every call, and no version may have answered: a function that itself says 403 was reached.
    A time-out, an unknown host, or a control that was not answered leave the claim inconclusive.
    """
    records, incomplete = records_of(name, draw)
    controls, no_control = records_of(name, control)
    how = f"status {status}" if status else "a closed connection"
    reached = [record for record in records if record["version"] or 200 <= record["status"] < 400]
    if reached:
        return _refuted(name, f"{len(reached)} of {len(records)} calls reached the function: {shapes(reached)}", f"{how} on every call", shapes(reached))
    differently = [record for record in records if record["status"] != status and 0 < record["status"] < 500]
    if differently:
        return _refuted(name, f"{len(differently)} of {len(records)} calls were answered otherwise: {shapes(differently)}", f"{how} on every call", shapes(differently))
    unclear = [record for record in records if record["status"] != status or (status == 0 and not _contains(record["error"], closed))]
    if unclear:
        return _open(name, f"{len(unclear)} of {len(records)} calls failed without being refused: {shapes(unclear)}")
    if incomplete:
        return incomplete
    if no_control:
        return _open(name, f"nothing shows that the target is alive: of the control, {no_control.said}")
    dead = [record for record in controls if not 200 <= record["status"] < 400]
    if dead:
        return _open(name, f"{len(dead)} of {len(controls)} control calls were not answered, so the target may just be dead: {shapes(dead)}")
    return _held(name, f"all {len(records)} calls were refused by {how}, while the target answered {len(controls)} control calls")


def taken(name: str, draw: Draw, spiffe: str, *, control: Draw, least: int = 1) -> Claim:
    """Claim that the function took every call and saw it come from `spiffe` (a SPIFFE id, "" for none).

    Calls that were all closed on purpose, or refused with 503 by the caller's own proxy, while the target answered every call of
    `control`, were refused, not lost.
    """
    for status in (0, 503):
        closed = refused(name, draw, control=control, status=status)
        if closed.held:
            return _refuted(name, closed.said, "every call taken", "every call refused")
    return peer_identity(name, draw, spiffe, least=least) if spiffe else no_peer_identity(name, draw, least=least)


def all_refused(name: str, draws: Mapping[str, Draw], *, control: Draw, status: int = 0, closed: Sequence[str] = CLOSED_ON_PURPOSE) -> Claim:
    """Claim `refused` of each of several draws, named by what was tried; no draws at all leave it inconclusive."""
    claims = {tried: refused(name, draw, control=control, status=status, closed=closed) for tried, draw in draws.items()}
    wrong = {tried: claim for tried, claim in claims.items() if claim.held is False}
    unclear = {tried: claim for tried, claim in claims.items() if claim.held is None}
    if wrong:
        first = next(iter(wrong.values()))
        return _refuted(name, "; ".join(f"{tried}: {claim.said}" for tried, claim in wrong.items()), first.expected, "; ".join(f"{tried}: {claim.got}" for tried, claim in wrong.items()))
    if unclear:
        return _open(name, "; ".join(f"{tried}: {claim.said}" for tried, claim in unclear.items()))
    if not claims:
        return _open(name, "nothing was tried")
    return _held(name, "; ".join(f"{tried}: {claim.said}" for tried, claim in claims.items()))


def flagged(name: str, draw: Draw, status: int, flag: str, *, least: int = 1, by_proxy: bool = False) -> Claim:
    """Claim that every call got `status`, and that its proxy logged the response flag `flag` for it, in a draw of at least `least`.

    With `by_proxy` the answer must be the proxy's own, not a function's. A call without an answer, or without an entry in the
    proxy's log, leaves it inconclusive.
    """
    records, incomplete = records_of(name, draw, least=least)
    expected = f"status {status}, flag {flag}{' from the proxy itself' if by_proxy else ''}"
    other = [
        record for record in records
        if record["status"] not in (0, status) or (record["status"] and record["flags"] and flag not in _flags(record)) or (by_proxy and record["version"])
    ]
    unclear = [record for record in records if record["status"] == 0 or not record["flags"]]
    if other:
        return _refuted(name, f"{len(other)} of {len(records)} calls ended otherwise: {shapes(other)}", expected, shapes(other))
    if unclear:
        return _open(name, f"{len(unclear)} of {len(records)} calls have no answer or no entry in the proxy's log: {shapes(unclear)}")
    return incomplete or _held(name, f"all {len(records)} calls got {expected}")


def not_before(name: str, draw: Draw, bound_ms: float) -> Claim:
    """Claim that no answer came earlier than `bound_ms` milliseconds after its call began, one tick of Envoy's clock aside.

    A call without an answer leaves it inconclusive.
    """
    records, incomplete = records_of(name, draw)
    answered = [float(record["latency_ms"]) for record in records if record["status"] != 0]
    early = [latency for latency in answered if latency < bound_ms - TICK_MS]
    if early:
        return _refuted(name, f"{len(early)} of {len(records)} answers came early, the first after {min(early):.1f} ms", f"none before {bound_ms:g} ms", f"{min(early):.1f} ms")
    if len(answered) < len(records):
        return _open(name, f"{len(records) - len(answered)} of {len(records)} calls got no answer")
    return incomplete or _held(name, f"none of {len(records)} answers came before {bound_ms:g} ms, give or take a tick; the first after {min(answered):.1f} ms")


def reached(name: str, draw: Draw, counts: Mapping[str, Any], times: int | Callable[[Record], int]) -> Claim:
    """Claim that each call arrived at a function exactly `times` times, by the function's own count of request ids.

    `counts` is what `Greeter.counts` saves; `times` may depend on the call's record. The calls must carry ids of their own. A
    call without an answer, or that was lost on its way to the function, leaves it inconclusive unless it arrived too often.
    """
    records, incomplete = records_of(name, draw)
    known = counts.get("by_request_id") if isinstance(counts, Mapping) else None
    if not isinstance(known, Mapping):
        raise damaged(name, "a function's counts by request id", repr(counts)[:80])
    if not all(record["request_id"] for record in records):
        return _open(name, "some calls carry no request id to count them by")
    arrived = {join_key(str(request_id)): int(count) for request_id, count in known.items()}
    seen, wrong, lost = Counter[int](), Counter[str](), 0
    for record in records:
        wanted, got = times if isinstance(times, int) else times(record), arrived.get(join_key(str(record["request_id"])), 0)
        seen[got] += 1
        if got <= wanted and (record["status"] == 0 or (got < wanted and _flags(record) & ON_THE_WAY)):
            lost += 1
        elif got != wanted:
            wrong[f"{got} times instead of {wanted}"] += 1
    if wrong:
        expected = f"{times} times" if isinstance(times, int) else "as often as its answer says"
        return _refuted(name, f"{sum(wrong.values())} of {len(records)} calls arrived otherwise: {_counts(wrong)}", f"every call arrived {expected}", _counts(wrong))
    if lost:
        return _open(name, f"{lost} of {len(records)} calls were lost on the way to the function")
    if not arrived:
        return incomplete or _open(name, "the function counted nothing at all, so nothing shows that it counts")
    return incomplete or _held(name, f"of {len(records)} calls, {', '.join(f'{count} arrived {got} times' for got, count in sorted(seen.items()))}")


def incomplete(name: str, draw: Draw) -> Claim | None:
    """Return the inconclusive claim that is left of an empty or incomplete draw, None for a whole one; for claims made elsewhere."""
    return records_of(name, draw)[1]


def api_answered(name: str, status: int, wanted: int) -> Claim:
    """Claim that the API server answered a request with the status `wanted`; no answer, or a server's error, leaves it inconclusive."""
    said = f"the API server answered {status or 'nothing'}"
    if status != wanted and (status == 0 or status >= 500):  # HTTP's own bound
        return _open(name, said)
    return _held(name, said) if status == wanted else _refuted(name, said, str(wanted), str(status))


def labelled(draw: Draw, label: Callable[[Record], str]) -> Draw:
    """Return a draw whose records say `label` in place of their version, for `split` to test; without a label a call is lost."""
    records, _ = records_of("labelled", draw)
    named = ((record, label(record)) for record in records)
    return {**draw, "records": [{**record, "version": said, "status": record["status"] if said else 0} for record, said in named]}


def chosen(draw: Draw, choice: Callable[[Record], bool]) -> Draw:
    """Return the part of a draw whose records fit `choice`; of an incomplete draw an incomplete part."""
    records, _ = records_of("chosen", draw)
    fitting = [record for record in records if choice(record)]
    return {**draw, "records": fitting, "count": len(fitting) + max(0, _announced(draw) - len(records))}


def encrypted(name: str, wire: Mapping[str, Any], *, every_stream: bool = True) -> Claim:
    """Claim that captured traffic was TLS: the nonce sent inside is nowhere in the clear, and the streams are TLS throughout.

    `every_stream` False asks for one TLS stream only, for a capture that also holds the attempts of a plaintext caller.
    Bytes missing from the capture leave the claim inconclusive: the nonce may have been among them.
    """
    seen = _Wire.read(name, wire)
    if seen.leaked:
        return _refuted(name, f"the nonce of the request stands in the clear in {seen}", "TLS on the wire", "plaintext")
    if seen.empty:
        return _open(name, "nothing was captured")
    if not seen.tls_records or seen.tls_streams < (seen.streams if every_stream else 1):
        return _refuted(name, f"not all is TLS in {seen}", f"{seen.streams if every_stream else 'at least 1'} TLS streams", f"{seen.tls_streams} TLS streams")
    if seen.missing:
        return _open(name, f"{seen.missing} bytes are missing from the capture of {seen}")
    return _held(name, f"the nonce is nowhere in the clear in {seen}")


def plaintext(name: str, wire: Mapping[str, Any]) -> Claim:
    """Claim that captured traffic was in the clear: the control that shows the capture would have found the nonce."""
    seen = _Wire.read(name, wire)
    if seen.empty:
        return _open(name, "nothing was captured")
    if seen.leaked:
        return _held(name, f"the nonce of the request stands in the clear in {seen}")
    if seen.missing:
        return _open(name, f"{seen.missing} bytes are missing from the capture of {seen}")
    return _refuted(name, f"the nonce of the request is not in {seen}", "plaintext on the wire", "no nonce")


def connections(name: str, seen: Mapping[str, Any], expected: int, *, calls: int) -> Claim:
    """Claim that `calls` calls reached the function over exactly `expected` connections, by its own count; fewer calls settle nothing."""
    counts = seen["function"]
    said = f"{counts['total']} calls reached the function over {counts['connections']} connections"
    if counts["total"] != calls:
        return _open(name, f"{said}, {calls} calls were to")
    return Claim(name, counts["connections"] == expected, said, expected=f"{expected} connections", got=str(counts["connections"]))


def let_in(hello: Draw, below: Draw, other_paths: Mapping[str, Draw], other_hosts: Mapping[str, Draw], version: str, *, least: int) -> tuple[Claim, ...]:
    """Claim of a gateway that it serves one path of one host, and what lies below it, from the function `version`, and answers every other 404 itself."""
    return (
        only_version("function-served", hello, version, least=least),
        only_version("below-the-path-served", below, version, least=least),
        all_refused("other-paths-refused", other_paths, control=hello, status=404),
        all_refused("other-hosts-refused", other_hosts, control=hello, status=404),
    )


def joined(draws: Mapping[str, Draw]) -> Draw:
    """Return several draws as one, for a claim that must hold of them all; a call that one lacks is missing from the whole."""
    return {"count": sum(_announced(draw) for draw in draws.values()), "records": [record for draw in draws.values() for record in draw.get("records", [])]}


def peer_of(record: Record) -> str:
    """Return the SPIFFE URI of the nearest peer in a record's X-Forwarded-Client-Cert, or "" when there is none."""
    elements = _quoted_split(",".join(_seen(record, "x-forwarded-client-cert")), ",")
    uris = [pair.partition("=")[2].strip('"') for pair in _quoted_split(elements[-1], ";") if pair.partition("=")[0].strip().lower() == "uri"] if elements else []
    return uris[0] if len(uris) == 1 and uris[0].startswith("spiffe://") else ""


def _each(
    name: str, draw: Draw, least: int, *, right: Callable[[Record], bool], fact: str, shown: Callable[[Record], str],
    reached: Callable[[Record], bool] = lambda record: bool(record["version"]),
) -> Claim:
    """Claim a fact of every call that a function answered; a lost call leaves it inconclusive, one the proxy answered refutes it."""
    records, incomplete = records_of(name, draw, least=least)
    wrong = [record for record in records if reached(record) and not right(record)]
    if wrong:
        got = _counts(Counter(shown(record) for record in wrong))
        return _refuted(name, f"{len(wrong)} of {len(records)} calls were not {fact}: {got}", f"every call {fact}", got)
    unreached = [record for record in records if not reached(record)]
    by_mesh = [record for record in unreached if _by_mesh(record)]
    if by_mesh:
        return _refuted(name, f"{len(by_mesh)} of {len(records)} calls reached no function: {shapes(by_mesh)}", f"every call {fact}", shapes(by_mesh))
    if unreached:
        return _open(name, f"{len(unreached)} of {len(records)} calls were lost on the way: {shapes(unreached)}")
    return incomplete or _held(name, f"all {len(records)} calls were {fact}")


def damaged(name: str, expected: str, seen: str) -> UserError:
    """Return the error of evidence that a claim cannot read: somebody's broken file, never a verdict."""
    return UserError(f"evidence of claim {name}", expected=expected, seen=seen, hint="the evidence file is damaged or was saved by another version")


def records_of(name: str, draw: Draw, *, least: int = 1) -> tuple[list[Record], Claim | None]:
    """Return the records of a draw, and the inconclusive claim to fall back on when some or all of them are missing, or fewer than `least`."""
    records = draw.get("records", []) if isinstance(draw, Mapping) else None
    if not isinstance(records, Sequence) or isinstance(records, str) or not all(isinstance(record, Mapping) for record in records):
        raise damaged(name, "a draw with a list of records", type(records if records is not None else draw).__name__)
    complete: list[Record] = [{**_BLANK, **record} for record in records]
    if not all(isinstance(record["status"], int) and isinstance(record["seen"], Mapping) for record in complete):
        raise damaged(name, "whole numbers as status and a mapping as seen headers", "something else")
    if not complete:
        return [], _open(name, "the draw is empty")
    if len(complete) < _announced(draw):
        return complete, _open(name, f"the draw is incomplete: {len(complete)} of {_announced(draw)} calls were recorded")
    if len(complete) < least:
        return complete, _open(name, f"{len(complete)} calls are too few, {least} are wanted")
    if draw.get("saturated"):
        return complete, _open(name, f"the load generator was saturated: {draw['saturated']}")
    return complete, None


def _announced(draw: Draw) -> int:
    return int(draw.get("count") or 0)


_BLANK: Record = {"index": 0, "status": 0, "error": "", "version": "", "flags": "", "seen": {}, "headers": {}, "request_id": "", "latency_ms": 0.0}


@dataclass(frozen=True)
class _Wire:
    """The fields of a capture's evidence (workloads.wiretap.client.WireEvidence)."""

    segments: int
    payload: int
    tls_records: int
    leaked: bool
    streams: int
    tls_streams: int
    missing: int

    @classmethod
    def read(cls, name: str, wire: Mapping[str, Any]) -> Self:
        """Read a capture; an empty mapping is a capture of nothing."""
        if wire == {}:
            return cls(0, 0, 0, leaked=False, streams=0, tls_streams=0, missing=0)
        try:
            return cls(
                int(wire["segments"]), int(wire["payload_bytes"]), int(wire["tls_records"]), leaked=bool(wire["plaintext_nonce_found"]),
                streams=int(wire["streams"]), tls_streams=int(wire["tls_streams"]), missing=int(wire["missing_bytes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(name, "what a wiretap saves", repr(error)) from error

    @property
    def empty(self) -> bool:
        """Whether no payload was captured."""
        return not (self.segments and self.payload and self.streams)

    def __str__(self) -> str:
        """Say how much was captured."""
        return f"{self.payload} bytes of {self.segments} segments ({self.tls_streams} of {self.streams} streams are TLS, {self.tls_records} records)"


def _refuted_however_filled(served: Mapping[str, int], shares: Mapping[str, float], missing: int, alpha: float) -> bool:
    """Tell whether one leg alone is out of its band for every way of giving the missing calls to the legs.

    A leg's band at alpha over the number of legs bounds the false alarm of all of them together by alpha.
    """
    n = sum(served.values()) + missing
    legs = max(1, len(shares) if len(shares) > 2 else 1)
    bands = {leg: sampling.acceptance_band(n, share, alpha / legs) for leg, share in shares.items()}
    return any(served.get(leg, 0) + missing < band.start or served.get(leg, 0) >= band.stop for leg, band in bands.items())


def _flags(record: Record) -> set[str]:
    return {flag for flag in str(record["flags"]).split(",") if flag and flag != "-"}


def _seen(record: Record, header: str) -> list[str]:
    values = record["seen"].get(header, [])
    return [values] if isinstance(values, str) else [str(value) for value in values]


def _answered_with(record: Record, header: str) -> list[str]:
    values = record["headers"].get(header, [])
    return [values] if isinstance(values, str) else [str(value) for value in values]


def _by_mesh(record: Record) -> bool:
    """Tell whether the proxy itself answered a call that no function did: no route, or a verdict of its own such as 403."""
    return bool(_flags(record) & NOT_ROUTED) or 100 <= record["status"] < 500


def _reached(record: Record) -> bool:
    return bool(record["version"] or record["seen"])


def _contains(error: str, texts: Sequence[str]) -> bool:
    return any(text.lower() in str(error).lower() for text in texts)


def _quoted_split(text: str, separator: str) -> list[str]:
    """Split at separators outside double quotes; a backslash hides the next character."""
    parts, quoted, hidden = [""], False, False
    for character in text:
        if character == '"' and not hidden:
            quoted = not quoted
        if character == separator and not quoted and not hidden:
            parts.append("")
        else:
            parts[-1] += character
        hidden = character == "\\" and not hidden
    return [part for part in parts if part]


def shapes(records: Iterable[Record]) -> str:
    """Say what kinds of answers there were, most frequent first, never one line per call."""
    return _counts(Counter(" ".join(filter(None, (
        f"status {record['status']}", str(record["version"]) and f"by {record['version']}",
        str(record["flags"]) and f"flags {record['flags']}", str(record["error"])[:80],
    ))) for record in records))


def _counts(counter: Mapping[str, int], most: int = 4) -> str:
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    rest = f" and {len(ordered) - most} more kinds" if len(ordered) > most else ""
    return ", ".join(f"{count} x {what or '(none)'}" for what, count in ordered[:most]) + rest


def _held(name: str, said: str, statistic: sampling.Statistic | None = None) -> Claim:
    return Claim(name, held=True, said=said, statistic=statistic)


def _open(name: str, said: str, statistic: sampling.Statistic | None = None) -> Claim:
    return Claim(name, held=None, said=said, statistic=statistic)


def _refuted(name: str, said: str, expected: str, got: str, statistic: sampling.Statistic | None = None) -> Claim:
    return Claim(name, held=False, said=said, statistic=statistic, expected=expected, got=got)
