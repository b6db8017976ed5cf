"""Load balancing: a DestinationRule says which of a function's pods takes the next request."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from suites.support import judges, sampling
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.records import Draw
from workloads.zones import ZONES

# One pod a zone. Without outlier detection Istio gives zones no precedence, so to the algorithms the three are alike.
PODS = ZONES
SLOW = PODS[1]

# A connection stays with one of the proxy's worker threads, and each worker goes round by itself, from a random start (Envoy
# documentation, "Supported load balancers", weighted round robin): on one connection the order is exact from the first call.
TURNS = 60
CONNECTIONS = 4
# What the control may do by chance: RANDOM leaves a pod out (3 * (2/3)^60 = 8e-11), or keeps to turns (3^-58).
ROTATION_ALPHA = 1e-10

# Least request draws two pods at random, the same one twice included, and takes the one with fewer requests under way, the
# first on a tie (Envoy, weighted least request, all weights equal, P2C). A pod that is busier than one of the others and no
# less busy than the rest is therefore taken with a probability of 2/9 at most, whatever came before; busier than both, 1/9.
# The slow pod is the busiest nearly always, for all but a few of the callers wait for it: a ninth of the calls at 400 ms keeps
# more than a third of 16 callers waiting wherever the proxies manage 120 calls a second. On a machine so starved that they do not,
# the pods are not unlike each other, and the judge leaves the claim open instead.
SLOW_SHARE = 2 / 9
CALLERS = 16
DELAY = "400ms"
BUSIER = 2
LESS_ALPHA = 1e-7
LESS_SHIFT = 0.11
# An algorithm that gives the slow pod its third is noticed with 99.99 % (sample_size: 1 283).
UNDER_LOAD = 1_300
# The control's answer is a count, not a share: a third of these, give or take a call a connection.
UNDER_LOAD_CONTROL = 150

# The hash of the key, not chance, chooses the pod; chance is in the pods' addresses, which make up the ring. Istio asks for at
# least 1 024 points on it (cluster_traffic_policy.go, ApplyRingHashLoadBalancer), 342 a pod: a pod's part of the ring is
# Beta(342, 684), below a quarter with a probability under 1e-8. Shares are uneven (sigma 1.5 points), so nothing is claimed
# of them but that every pod has keys.
KEYS = tuple(f"user-{number}" for number in range(64))
CONTROL_KEYS = KEYS[:8]
CALLS_A_KEY = 8
WITHOUT_KEY = 100
# That a pod has so small a part, or none of the keys, or none of the calls without a key: 3 * (1e-8 + 0.75^64 + 0.75^100) = 6e-8.
HASH_ALPHA = 1e-7
COOKIE = "session"
RETURNING = 12


def judge_round_robin(evidence: Evidence) -> Verdict:
    """Each connection is given the pods in turn, and all together share alike; under RANDOM there are no turns."""
    return Verdict.of(
        in_turn("every-connection-in-turn", evidence["one-by-one"], least=TURNS),
        judges.alike("together-alike", evidence["together"], PODS, least=TURNS),
        not_in_turn("control-random-has-no-turns", evidence["random"], least=TURNS),
        judges.versions_seen("control-random-reaches-every-pod", evidence["random"], PODS),
    )


@requirement("routing.load-balancing-round-robin", level="MUST", judge=judge_round_robin, alpha=ROTATION_ALPHA)
def test_pods_take_turns(zoned_function: str, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """Under ROUND_ROBIN any three successive calls of a connection go to three pods, and counts differ by one a connection at most."""
    manifests.apply("load_balancing.yaml")

    one_by_one = [caller.draw(f"{zoned_function}/round-robin", count=TURNS) for _ in range(CONNECTIONS)]
    decide(
        together=caller.draw(f"{zoned_function}/round-robin", count=TURNS, concurrency=CONNECTIONS),
        random=caller.draw(f"{zoned_function}/random", count=TURNS),
        **{"one-by-one": one_by_one},
    )


def judge_least_request(evidence: Evidence) -> Verdict:
    """The slow pod gets less than its third under LEAST_REQUEST, and exactly its third under ROUND_ROBIN."""
    least_request, round_robin = evidence["least-request"], evidence["round-robin"]
    return Verdict.of(
        judges.no_failures("every-call-answered", least_request, excused=judges.UPSTREAM_GONE),
        seldom("slow-pod-gets-less", least_request, SLOW, share=SLOW_SHARE, shift=LESS_SHIFT, alpha=LESS_ALPHA),
        judges.versions_seen("slow-pod-is-still-used", least_request, PODS),
        judges.alike("control-slow-pod-keeps-its-third", round_robin, PODS, least=UNDER_LOAD_CONTROL),
    )


@requirement("routing.load-balancing-least-request", level="MUST", judge=judge_least_request, alpha=LESS_ALPHA, detects=LESS_SHIFT)
def test_a_slow_pod_gets_less(zoned_function: str, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """Under LEAST_REQUEST a pod that is slower than the others gets at most 2/9 of the calls, and under ROUND_ROBIN its third."""
    manifests.apply("load_balancing.yaml")

    draw = partial(
        caller.draw, concurrency=CALLERS, headers=[("x-greeter-delay", DELAY), ("x-greeter-only", SLOW)], keep_headers=(), keep_seen=(),
    )
    decide(**{
        "least-request": draw(f"{zoned_function}/least-request", count=UNDER_LOAD),
        "round-robin": draw(f"{zoned_function}/round-robin", count=UNDER_LOAD_CONTROL),
    })


def judge_by_header(evidence: Evidence) -> Verdict:
    """A key has one pod and the pods have all keys; without a key, or without the policy, nothing is kept together."""
    keys = evidence["keys"]
    return Verdict.of(
        kept("key-keeps-its-pod", keys, least=CALLS_A_KEY),
        covered("keys-reach-every-pod", keys),
        judges.versions_seen("without-key-every-pod", evidence["without-key"], PODS),
        scattered("control-round-robin-scatters-a-key", evidence["round-robin"]),
    )


@requirement("routing.load-balancing-consistent-hash", level="MUST", judge=judge_by_header, alpha=HASH_ALPHA)
def test_a_key_keeps_its_pod(zoned_function: str, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """Under a consistent hash of a header all calls with one value go to one pod, on every connection, and many values reach every pod.

    Finding: a call without the header is not refused and not pinned; Envoy gives it a random place on the ring.
    """
    manifests.apply("load_balancing.yaml")

    draw = partial(caller.draw, concurrency=CONNECTIONS, keep_headers=(), keep_seen=())
    decide(
        keys={key: draw(f"{zoned_function}/by-header", count=CALLS_A_KEY, headers=[("x-user", key)]) for key in KEYS},
        **{
            "without-key": draw(f"{zoned_function}/by-header", count=WITHOUT_KEY),
            "round-robin": {key: draw(f"{zoned_function}/round-robin", count=CALLS_A_KEY, headers=[("x-user", key)]) for key in CONTROL_KEYS},
        },
    )


def judge_by_cookie(evidence: Evidence) -> Verdict:
    """A call without a cookie is given one, and whoever brings it back gets the pod that answered first."""
    new, returning = evidence["new"], evidence["returning"]
    return Verdict.of(
        given_a_cookie("new-user-is-given-a-cookie", new),
        judges.versions_seen("new-users-reach-every-pod", new, PODS),
        kept("returning-user-keeps-the-pod", returning, least=CALLS_A_KEY, first={cookie_of(record): record["version"] for record in new["records"]}),
        scattered("control-round-robin-scatters-a-user", evidence["round-robin"]),
    )


@requirement("routing.load-balancing-consistent-hash-cookie", level="MUST", judge=judge_by_cookie, alpha=HASH_ALPHA)
def test_a_session_keeps_its_pod(zoned_function: str, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """Under a consistent hash of a cookie with a time to live the proxy sets the cookie, and whoever returns it stays with the first pod.

    Finding: Envoy makes the cookie's value of the connection's addresses, so clients that share a connection (those behind
    another proxy) are given one value and one pod; a new client here is a new connection.
    """
    manifests.apply("load_balancing.yaml")

    new = caller.draw(f"{zoned_function}/by-cookie", count=len(KEYS), fresh_connections=True, keep_seen=())
    draw = partial(caller.draw, count=CALLS_A_KEY, concurrency=CONNECTIONS, keep_headers=(), keep_seen=())
    decide(
        new=new,
        returning={cookie: draw(f"{zoned_function}/by-cookie", headers=[("cookie", cookie)]) for cookie in cookies(new)[:RETURNING]},
        **{"round-robin": {cookie: draw(f"{zoned_function}/round-robin", headers=[("cookie", cookie)]) for cookie in cookies(new)[:RETURNING]}},
    )


def cookies(draw: Draw) -> list[str]:
    """Return the cookies that the answers of a draw set, as a client sends them back; an answer without one gives "session="."""
    return [cookie_of(record) for record in draw.to_json()["records"]]


def cookie_of(record: Mapping[str, Any]) -> str:
    """Return the cookie of our name that an answer sets, name and value, with an empty value where it sets none."""
    pairs = [line.split(";")[0].strip() for line in record["headers"].get("set-cookie", [])]
    return next((pair for pair in pairs if pair.startswith(f"{COOKIE}=")), f"{COOKIE}=")


# The judges of this file. A call that no pod answered says nothing about the choice among them.


def in_turn(name: str, draws: Sequence[Mapping[str, Any]], *, least: int) -> Claim:
    """Claim that on every connection any len(PODS) successive calls went to as many pods; each draw makes one call at a time."""
    runs = [run for draw in draws for run in _runs(draw)]
    repeated = [window for run in runs for window in _windows(run) if set(window) != set(PODS)]
    windows = sum(len(_windows(run)) for run in runs)
    if repeated:
        got = ", ".join(repeated[0])
        return Claim(name, held=False, said=f"{len(repeated)} of {windows} windows of {len(PODS)} calls are no turn, as {got}", expected="each pod once", got=got)
    if not draws or any(_lost(draw) or len(draw["records"]) < least for draw in draws):
        return Claim(name, held=None, said=f"calls are missing: {[_told(draw) for draw in draws]}, {least} each are wanted")
    return Claim(name, held=True, said=f"each of {windows} windows of {len(PODS)} calls went to {len(PODS)} pods, on {len(runs)} connections")


def not_in_turn(name: str, draw: Mapping[str, Any], *, least: int) -> Claim:
    """Claim that pods were not taken in turn: the control that shows that `in_turn` can see it."""
    windows = [window for run in _runs(draw) for window in _windows(run)]
    repeated = [window for window in windows if set(window) != set(PODS)]
    if _lost(draw) or len(draw["records"]) < least:
        return Claim(name, held=None, said=f"calls are missing: {_told(draw)}, {least} are wanted")
    if repeated:
        return Claim(name, held=True, said=f"{len(repeated)} of {len(windows)} windows of {len(PODS)} calls are no turn")
    return Claim(name, held=False, said=f"each of {len(windows)} windows of {len(PODS)} calls went to {len(PODS)} pods", expected="a pod twice among three calls", got="turns")


def seldom(name: str, draw: Mapping[str, Any], version: str, *, share: float, shift: float, alpha: float) -> Claim:
    """Claim that `version` answers at most `share` of the calls, by an exact one-sided test that notices `shift` more.

    The bound is that of the busiest pod. Where its calls took less than BUSIER times as long in all as those of another one,
    it was not, and what would refute the claim leaves it open.
    """
    counts, lost = _counts(draw), _lost(draw)
    if not counts:
        return Claim(name, held=None, said=f"no call was answered: {_told(draw)}")
    statistic = sampling.at_most(version, counts[version], sum(counts.values()) + lost, share, alpha)
    said = f"{version} answered {counts[version]} of {statistic.n} calls ({counts[version] / statistic.n:.1%}), at most {share:.1%} was declared"
    busy = Counter[str]()
    for record in draw["records"]:
        busy[str(record["version"])] += record["latency_ms"]
    if statistic.rejected and busy[version] < BUSIER * max(busy[pod] for pod in PODS if pod != version):
        return Claim(name, held=None, said=f"{said}, but the pods were busy for {_listed({pod: round(ms) for pod, ms in busy.items()})} ms", statistic=statistic)
    if statistic.rejected:
        return Claim(name, held=False, said=f"{said} (p = {statistic.p_value:.2g})", statistic=statistic, expected=statistic.expected, got=statistic.seen)
    noticed = statistic.smallest_detectable_shift
    if lost or noticed is None or noticed > shift:
        return Claim(name, held=None, said=f"{said}; {lost} lost, a shift of {shift:.3g} is to be noticed, the draw notices {noticed}", statistic=statistic)
    return Claim(name, held=True, said=f"{said} (p = {statistic.p_value:.2g})", statistic=statistic)


def kept(name: str, draws: Mapping[str, Mapping[str, Any]], *, least: int, first: Mapping[str, str] | None = None) -> Claim:
    """Claim that all calls with one key were answered by one pod, and by the pod that `first` names for it where that is given."""
    pods = {key: set(_counts(draw)) | ({first.get(key, "")} - {""} if first is not None else set()) for key, draw in draws.items()}
    moved = {key: sorted(seen) for key, seen in pods.items() if len(seen) > 1}
    if moved:
        key, seen = next(iter(moved.items()))
        return Claim(name, held=False, said=f"{len(moved)} of {len(draws)} keys were at several pods, as {key} at {', '.join(seen)}", expected="one pod a key", got=f"{len(seen)} pods for {key}")
    if not draws or any(_lost(draw) or len(draw["records"]) < least for draw in draws.values()) or (first is not None and not draws.keys() <= first.keys()):
        return Claim(name, held=None, said=f"calls are missing: {[_told(draw) for draw in draws.values()]}, {least} each are wanted")
    return Claim(name, held=True, said=f"each of {len(draws)} keys was at one pod, for {sum(len(draw['records']) for draw in draws.values())} calls")


def covered(name: str, draws: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Claim that every pod answered some key."""
    keys = Counter(pod for draw in draws.values() for pod in _counts(draw))
    missing = [pod for pod in PODS if not keys[pod]]
    if missing and (not draws or any(_lost(draw) for draw in draws.values())):
        return Claim(name, held=None, said=f"calls are missing: {[_told(draw) for draw in draws.values()]}")
    if missing:
        return Claim(name, held=False, said=f"no key of {len(draws)} is at {', '.join(missing)}", expected=f"keys at {', '.join(PODS)}", got=_listed(keys))
    return Claim(name, held=True, said=f"keys a pod: {_listed(keys)}")


def scattered(name: str, draws: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Claim that the calls with each key were answered by several pods: the control that shows that `kept` can see it."""
    stuck = {key: draw for key, draw in draws.items() if len(_counts(draw)) < 2}
    if any(not _lost(draw) and len(draw["records"]) >= len(PODS) for draw in stuck.values()):
        return Claim(name, held=False, said=f"{len(stuck)} of {len(draws)} keys stayed at one pod, as {next(iter(stuck))}", expected="several pods a key", got="one")
    if not draws or stuck or any(_lost(draw) for draw in draws.values()):
        return Claim(name, held=None, said=f"calls are missing: {[_told(draw) for draw in draws.values()]}")
    return Claim(name, held=True, said=f"each of {len(draws)} keys was at several pods")


def given_a_cookie(name: str, draw: Mapping[str, Any]) -> Claim:
    """Claim that every answer set our cookie, each to a value of its own."""
    answered = [record for record in draw["records"] if record["version"]]
    values = Counter(cookie_of(record) for record in answered)
    without, shared = values[f"{COOKIE}="], [value for value, times in values.items() if times > 1]
    if without or shared:
        got = f"{without} without, {len(shared)} values used twice"
        return Claim(name, held=False, said=f"of {len(answered)} answers, {got}", expected=f"set-cookie: {COOKIE} with a value of its own", got=got)
    if not answered or _lost(draw):
        return Claim(name, held=None, said=f"calls are missing: {_told(draw)}")
    return Claim(name, held=True, said=f"each of {len(answered)} answers set {COOKIE} to a value of its own")


def _counts(draw: Mapping[str, Any]) -> Counter[str]:
    return Counter(str(record["version"]) for record in draw["records"] if record["version"])


def _lost(draw: Mapping[str, Any]) -> int:
    """Return how many of the calls asked for were answered by no pod."""
    return int(draw["count"]) - sum(_counts(draw).values())


def _runs(draw: Mapping[str, Any]) -> list[list[str]]:
    """Return the pods of successive calls, a list a connection; a lost call ends a run, for it may have had a turn."""
    runs: list[list[str]] = [[]]
    ordered = sorted(draw["records"], key=lambda record: int(record["index"]))
    for before, record in pairwise([{"connection": None}, *ordered]):
        if not record["version"] or record["connection"] != before["connection"]:
            runs.append([])
        if record["version"]:
            runs[-1].append(str(record["version"]))
    return [run for run in runs if run]


def _windows(run: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(run[at : at + len(PODS)]) for at in range(len(run) - len(PODS) + 1)]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{pod} {count}" for pod, count in sorted(counts.items()))


def _told(draw: Mapping[str, Any]) -> str:
    return f"{sum(_counts(draw).values())} of {draw['count']} answered"
