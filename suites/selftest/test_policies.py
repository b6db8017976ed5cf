"""Self-tests of the judges of the routing policies: each holds on what a right mesh leaves behind, and on nothing less."""

import copy
import functools

import pytest

from suites.support import requirements

HOST = "mirrored-function.serverless.example.com"


@functools.cache
def judges():
    return {name: entry.judge for name, entry in requirements.discover().items()}


def call(index, status=200, version="standard", flags="", latency=5.0, group="a", **more):
    request_id = f"{group}{index:07}-0000-4000-8000-000000000000"
    return {
        "index": index, "status": status, "error": "", "version": version, "flags": flags, "latency_ms": latency, "request_id": request_id,
        "headers": {}, "seen": {}, **more,
    }


def draw(group, count, **more):
    return {"count": count, "records": [call(index, group=group, **more) for index in range(count)]}


def counts(*draws, times=1):
    """A function's counts of calls, each of which arrived `times` times, or as often as its pair says."""
    pairs = [one if isinstance(one, tuple) else (one, times) for one in draws]
    known = {record["request_id"]: arrived for one, arrived in pairs for record in one["records"] if arrived}
    return {"total": sum(known.values()), "by_path": {}, "by_request_id": known, "connections": 1}


def joined(*draws):
    records = [record for one in draws for record in one["records"]]
    return {"count": len(records), "records": [{**record, "index": index} for index, record in enumerate(records)]}


def timeout():
    slow = draw("a", 10, status=504, version="", flags="UT", latency=1001.0)
    return {"slow": slow, "quick": draw("b", 10), "control": draw("c", 10, latency=1503.0), "counts": counts(slow)}


def retry():
    failing, late, healthy, off = (draw(group, 10, status=status) for group, status in (("a", 503), ("b", 503), ("c", 200), ("d", 503)))
    recovering = {str(failures): draw(f"e{failures}", 10) for failures in (1, 2, 3)}
    failing["records"] = [{**record, "flags": "URX"} for record in failing["records"]]
    arrived = counts((failing, 4), (late, 4), healthy, off, *((one, int(failures) + 1) for failures, one in recovering.items()))
    return {"failing": failing, "recovering": recovering, "too-long": late, "healthy": healthy, "off": off, "counts": arrived}


def retry_on():
    retried = {case: draw(f"a{index}", 10, status=503) for index, case in enumerate(("/gateway-error 502", "/gateway-error 503", "/gateway-error 504", "/teapot 418"))}
    left = {case: draw(f"b{index}", 10, status=503) for index, case in enumerate(("/gateway-error 500", "/gateway-error 429", "/teapot 500", "/teapot 503"))}
    return {"retries": retried, "leaves": left, "counts": counts(*((one, 4) for one in retried.values()), *left.values())}


def per_try():
    slow, quick, control = draw("a", 10, status=504, version="", flags="UT,URX", latency=1530.0), draw("b", 10), draw("c", 10)
    return {"slow": slow, "quick": quick, "control": control, "counts": counts((slow, 3), quick, control)}


def retry_default():
    own, bare = draw("a", 10, status=503), draw("b", 10, status=503)
    dead = {"draw": draw("c", 10, status=503, version="", flags="UF,URX"), "counters": {"upstream_rq_retry": 20, "upstream_cx_connect_fail": 30}}
    off = {"draw": draw("d", 10, status=503, version="", flags="UF"), "counters": {"upstream_rq_retry": 0, "upstream_cx_connect_fail": 10}}
    return {"own": own, "bare": bare, "dead": dead, "dead-off": off, "counts": counts(own, bare)}


def retry_budget():
    free = draw("a", 40, status=503, flags="URX")
    bounded = joined(draw("b", 3, status=503, flags="URX"), draw("c", 37, status=503, flags="UO"))
    return {
        "unbounded": {"draw": free, "counts": counts(free, times=4), "counters": {"upstream_rq_retry": 120, "upstream_rq_retry_overflow": 0}},
        "bounded": {"draw": bounded, "counts": {**counts(bounded), "total": 49}, "counters": {"upstream_rq_retry": 9, "upstream_rq_retry_overflow": 37}},
    }


def fault_abort():
    served, aborted = draw("a", 5_310), draw("b", 590, status=418, version="")
    marked, control = draw("c", 100, status=503, version="", flags="FI"), draw("e", 100)
    return {"some": joined(served, aborted), "marked": marked, "unmarked": draw("d", 100), "control": control, "counts": counts(served, control)}


def fault_delay():
    some = joined(draw("a", 1_200, flags="-"), draw("b", 300, flags="DI", latency=401.0))
    return {
        "some": some, "marked": draw("c", 80, flags="DI", latency=401.0), "unmarked": draw("d", 80, flags="-"), "control": draw("e", 80, flags="-"),
        "counts": counts(some),
    }


def mirror():
    everything = draw("a", 200)
    # As in workloads.records: what tracing writes into an id is left out.
    hosts = {record["request_id"][:14] + record["request_id"][15:]: f"{HOST}-shadow" for record in everything["records"]}
    return {"all": everything, "control": draw("b", 200), "function": counts(everything), "mirror": counts(everything), "hosts": hosts}


def mirror_percentage():
    copied, alone = draw("a", 720), draw("b", 1_680)
    return {"some": joined(copied, alone), "mirror": counts(copied), "function": counts(copied, alone)}


def mirror_isolated():
    failing, hanging = draw("a", 20), draw("b", 20)
    return {"failing": failing, "hanging": hanging, "mirror": counts(failing, hanging)}


def rate_limit():
    let, refused = draw("a", 20, version="backup"), draw("b", 30, status=429, version="", headers={"x-limited-by": ["limited-function"]})
    return {
        "limited": joined(let, refused), "premium": draw("c", 50), "unnamed": draw("d", 50), "afterwards": draw("e", 10, status=429),
        "elsewhere": draw("f", 50), "control": draw("g", 50), "counts": counts(let),
    }


RIGHT = {
    "routing.timeout": timeout, "routing.retry": retry, "routing.retry-on": retry_on, "routing.retry-per-try-timeout": per_try,
    "routing.retry-default": retry_default, "routing.retry-budget": retry_budget, "routing.fault-abort": fault_abort,
    "routing.fault-delay": fault_delay, "routing.mirror": mirror, "routing.mirror-percentage": mirror_percentage,
    "routing.mirror-isolated": mirror_isolated, "routing.rate-limit": rate_limit,
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_mesh_holds(name):
    verdict = judges()[name](RIGHT[name]())

    assert verdict.outcome == "held", verdict.text()


def draws_in(evidence, path=()):
    if isinstance(evidence, dict) and "records" in evidence:
        yield path
    elif isinstance(evidence, dict):
        for key, value in evidence.items():
            yield from draws_in(value, (*path, key))


def changed(name, path, change):
    """The right evidence of a requirement with one place of it changed."""
    evidence = copy.deepcopy(RIGHT[name]())
    place = evidence
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = change(place[path[-1]])
    return evidence


EVERY_DRAW = [(name, path) for name, made in RIGHT.items() for path in draws_in(made())]


@pytest.mark.parametrize(("name", "path"), EVERY_DRAW, ids=lambda each: each if isinstance(each, str) else "-".join(each))
@pytest.mark.parametrize("change", [
    lambda _: {"count": 0, "records": []},
    lambda drawn: {**drawn, "records": []},
    lambda drawn: {**drawn, "count": drawn["count"] + 1},
    lambda drawn: {**drawn, "records": [{**drawn["records"][0], "status": 0, "version": "", "flags": ""}, *drawn["records"][1:]]},
], ids=["empty", "lost", "incomplete", "a call without an answer"])
def test_nothing_holds_without_each_of_its_calls(name, path, change):
    assert judges()[name](changed(name, path, change)).outcome != "held"


def less(key, by=1):
    return lambda told: {**told, key: told[key] - by}


def with_first(**more):
    return lambda drawn: {**drawn, "records": [{**drawn["records"][0], **more}, *drawn["records"][1:]]}


def arrived(by):
    """One of the calls arrived that much more often."""
    return lambda told: {**told, "by_request_id": told["by_request_id"] | {(key := next(iter(told["by_request_id"]))): told["by_request_id"][key] + by}}


WRONG = [
    ("routing.timeout", ("slow",), with_first(flags="-"), "slow-is-ended"),
    ("routing.timeout", ("slow",), with_first(latency_ms=980.0), "not-before-the-timeout"),
    ("routing.timeout", ("counts",), arrived(1), "slow-reached-once"),
    ("routing.timeout", ("quick",), with_first(status=504), "quick-is-answered"),
    ("routing.timeout", ("control",), with_first(status=504), "control-waits"),
    ("routing.retry", ("failing",), with_first(flags="-"), "failing-is-told"),
    ("routing.retry", ("counts",), arrived(-1), "failing-sent-four-times"),
    ("routing.retry", ("recovering", "3"), with_first(status=503), "recovers-after-3"),
    ("routing.retry", ("too-long",), with_first(status=200), "one-failure-too-many"),
    ("routing.retry", ("off",), with_first(status=200), "control-fails"),
    ("routing.retry-on", ("counts",), arrived(-3), "gateway-error-retries-502"),
    ("routing.retry-per-try-timeout", ("slow",), with_first(latency_ms=1480.0), "every-try-gets-its-time"),
    ("routing.retry-per-try-timeout", ("counts",), arrived(1), "every-try-sent"),
    ("routing.retry-default", ("counts",), arrived(2), "own-503-sent-once"),
    ("routing.retry-default", ("dead", "counters"), less("upstream_rq_retry"), "refused-connection-tried-three-times"),
    ("routing.retry-default", ("dead-off", "counters"), less("upstream_cx_connect_fail"), "control-tried-once"),
    ("routing.retry-budget", ("unbounded", "counters"), less("upstream_rq_retry_overflow", -1), "unbounded-never-overflows"),
    ("routing.retry-budget", ("bounded", "counters"), less("upstream_rq_retry_overflow"), "bounded-overflows"),
    ("routing.retry-budget", ("bounded", "counts"), less("total"), "bounded-every-try-accounted-for"),
    ("routing.fault-abort", ("some",), lambda _: joined(draw("a", 5_490), draw("b", 410, status=418, version="")), "a-tenth-is-aborted"),
    ("routing.fault-abort", ("some",), with_first(status=503, version="", flags="FI"), "a-tenth-is-aborted"),
    ("routing.fault-abort", ("counts",), arrived(1), "only-the-others-arrive"),
    ("routing.fault-abort", ("marked",), with_first(status=200, flags="-"), "marked-are-aborted"),
    ("routing.fault-delay", ("some",), lambda _: joined(draw("a", 1_320, flags="-"), draw("b", 180, flags="DI", latency=401.0)), "a-fifth-is-delayed"),
    ("routing.fault-delay", ("marked",), with_first(flags="-"), "marked-are-delayed"),
    ("routing.fault-delay", ("marked",), with_first(latency_ms=380.0), "marked-are-delayed-for-their-time"),
    ("routing.fault-delay", ("control",), with_first(flags="DI"), "control-is-not-delayed"),
    ("routing.mirror", ("mirror",), arrived(-1), "mirror-gets-each-once"),
    ("routing.mirror", ("all",), with_first(version="backup"), "function-answers"),
    ("routing.mirror", ("hosts",), lambda seen: {**seen, next(iter(seen)): HOST}, "mirror-sees-the-host"),
    ("routing.mirror-percentage", ("mirror",), lambda _: counts(draw("a", 550)), "three-in-ten-are-mirrored"),
    ("routing.mirror-isolated", ("hanging",), with_first(status=504), "hanging-mirror-slows-nobody"),
    ("routing.mirror-isolated", ("failing",), with_first(status=500), "failing-mirror-fails-nobody"),
    ("routing.rate-limit", ("limited",), with_first(status=429), "exactly-twenty-are-let-through"),
    ("routing.rate-limit", ("limited",), with_first(status=403), "exactly-twenty-are-let-through"),
    ("routing.rate-limit", ("limited",), lambda drawn: {**drawn, "records": [*drawn["records"][:-1], {**drawn["records"][-1], "headers": {}}]}, "refused-by-the-function-s-proxy"),
    ("routing.rate-limit", ("counts",), arrived(1), "only-those-arrive"),
    ("routing.rate-limit", ("afterwards",), with_first(status=200), "still-refused-afterwards"),
    ("routing.rate-limit", ("premium",), with_first(status=429), "premium-is-not-limited"),
]


@pytest.mark.parametrize(("name", "path", "change", "claim"), WRONG, ids=[f"{name} {claim} {index}" for index, (name, _, _, claim) in enumerate(WRONG)])
def test_a_wrong_mesh_is_refuted(name, path, change, claim):
    verdict = judges()[name](changed(name, path, change))

    assert claim in {each.name for each in verdict.failed_claims}, verdict.text()
