"""The judges of the checks of metrics, on evidence made by hand: it holds, and each departure is found by the claim that is about it."""

import copy

import pytest

from suites.support import requirements

FOUND = {name: entry.judge for name, entry in requirements.discover().items() if name.startswith("metrics.")}


def record(index, status, request_id, started_ms=0.0):
    return {"index": index, "status": status, "error": "", "latency_ms": 5.0, "started_ms": started_ms, "version": "", "pod": "p", "request_id": request_id, "flags": ""}


def draw(count, status, prefix="r"):
    records = [record(number, status, f"{prefix}-{number:08d}-4000", 50.0 * number) for number in range(count)]
    return {"url": "u", "method": "GET", "count": count, "concurrency": 1, "began": "2026-01-02T03:04:05+00:00", "seconds": 6.0, "records": records}


def sample(value, at=1.0, **labels):
    return {"labels": labels, "value": value, "at": at}


BEGAN = 1767323045.0
INVOCATIONS, ERRORS = "serverless_function_invocations_total", "serverless_function_errors_total"


def target(service, health="up", error="", interval="30s", pod=""):
    return {"labels": {"service": service, "pod": pod or f"{service}-x"}, "health": health, "error": error, "interval": interval, "last": 1.0, "url": "", "pool": ""}


def service_monitor():
    made = {"first": {"200": 37, "500": 5}, "second": {"200": 53}, "unlabelled": {"200": 11, "500": 2}, "unported": {"200": 13, "500": 3}}
    before = {name: {"invocations": 10, "errors": 1, "by_request_id": {}} for name in made}
    after = {name: {"invocations": 10 + sum(one.values()), "errors": 1, "by_request_id": {}} for name, one in made.items()}
    samples = {INVOCATIONS: [sample(52, function="first"), sample(63, function="second")], ERRORS: [sample(6, function="first"), sample(1, function="second")]}
    metadata = {name: [{"type": "counter", "help": "", "unit": ""}] for name in (INVOCATIONS, ERRORS)}
    return {"made": made, "before": before, "after": after, "targets": [target("first"), target("second")], "samples": samples, "metadata": metadata}


def visibility():
    draws = {"answered": draw(120, 200), "failing": draw(12, 500, "f")}
    return {
        "draws": draws, "before": {"invocations": 5, "errors": 0}, "seen": [(BEGAN + 0.5 * step, 5 + min(132, 11 * step)) for step in range(20)],
        "samples": {INVOCATIONS: [sample(137, function="first")], ERRORS: [sample(12, function="first")]},
        "exemplars": [{"labels": {"request_id": f"r-{number:08d}-4000"}} for number in range(6)],
    }


def target_down():
    ups = [sample(0.0 if 5 <= second < 10 else 1.0, 100.0 + second, service="first") for second in range(15)]
    ups += [sample(1.0, 100.0 + second, service="second") for second in range(15)]
    return {
        "ups": ups, "refused_at": 104.5, "answered_at": 109.5, "while_down": [sample(3, function="second")],
        "targets": [target("first", "down", "server returned HTTP status 503 Service Unavailable"), target("second")],
    }


def mesh():
    def counters(total, two, five):
        pod = "counted-abc"
        return {"total": [sample(total, pod=pod)], "classes": [sample(two, pod=pod, response_code_class="2xx"), *([sample(five, pod=pod, response_code_class="5xx")] if five else [])]}

    return {
        "before": counters(3, 3, 0), "after": counters(51, 44, 7), "made": {"200": 41, "500": 7},
        "own": {"before": {"invocations": 3}, "after": {"invocations": 51}}, "targets": [target("", pod="counted-abc"), target("", pod="uncounted-abc")],
    }


def outage():
    missing = f'Prometheus ns/p: expected an answer to /api/v1/query, seen gone (last, 0.1 s ago: {INVOCATIONS}{{function="first"}} = 5); hint: it is a witness'
    return {
        "before": {"invocations": 5}, "draw": draw(120, 200), "last": [sample(5, function="first")], "missing": missing, "witness": "ns/p",
        "samples": [sample(125, function="first")],
    }


EVIDENCE = {
    "metrics.service-monitor": service_monitor, "metrics.visibility": visibility, "metrics.target-down": target_down, "metrics.mesh": mesh,
    "metrics.scraper-outage": outage,
}


def test_every_check_of_the_area_is_here():
    assert EVIDENCE.keys() == FOUND.keys()


@pytest.mark.parametrize("requirement", sorted(EVIDENCE))
def test_what_is_to_be_seen_holds(requirement):
    verdict = FOUND[requirement](EVIDENCE[requirement]())

    assert verdict.outcome == "held", verdict.text()


@pytest.mark.parametrize(
    ("requirement", "change", "claim"),
    [
        ("metrics.service-monitor", lambda e: e["targets"].pop(), "every-function-is-scraped"),
        ("metrics.service-monitor", lambda e: e["targets"].append(target("unlabelled")), "nobody-else-is-scraped"),
        ("metrics.service-monitor", lambda e: e["targets"][0].update(interval="15s"), "scraped-as-often-as-declared"),
        ("metrics.service-monitor", lambda e: e["samples"][INVOCATIONS][0].update(value=53), "invocations-are-those-that-were-made"),
        ("metrics.service-monitor", lambda e: e["samples"][ERRORS].clear(), "failures-are-those-that-were-made"),
        ("metrics.service-monitor", lambda e: e["metadata"].update({ERRORS: [{"type": "gauge"}]}), "both-are-counters"),
        ("metrics.visibility", lambda e: e.update(seen=[(BEGAN + 100, 137)]), "counted-where-it-can-be-asked-for-in-time"),
        ("metrics.visibility", lambda e: e["samples"][INVOCATIONS][0].update(value=138), "invocations-are-those-that-were-made"),
        ("metrics.visibility", lambda e: e["exemplars"].append({"labels": {"request_id": "another"}}), "exemplars-lead-to-requests-that-were-made"),
        ("metrics.target-down", lambda e: e.update(refused_at=98.0), "down-is-seen-in-time"),
        ("metrics.target-down", lambda e: e["targets"][0].update(error="connection refused"), "the-reason-is-told"),
        ("metrics.target-down", lambda e: e["while_down"].append(sample(3, function="first")), "its-series-end-with-it"),
        ("metrics.target-down", lambda e: e["ups"][-1].update(value=0.0), "its-twin-stays-up"),
        ("metrics.mesh", lambda e: e["after"]["total"][0].update(value=52), "requests-are-those-that-were-made"),
        ("metrics.mesh", lambda e: e["after"]["classes"].pop(), "failures-are-those-that-were-made"),
        ("metrics.mesh", lambda e: e["after"]["total"].append(sample(3, pod="uncounted-abc")), "a-proxy-that-was-not-told-keeps-none"),
        ("metrics.mesh", lambda e: e["targets"].pop(), "both-proxies-are-scraped"),
        ("metrics.scraper-outage", lambda e: e["draw"]["records"][3].update(status=503), "calls-are-answered-while-it-is-gone"),
        ("metrics.scraper-outage", lambda e: e.update(missing="no result"), "its-silence-is-told-with-its-name"),
        ("metrics.scraper-outage", lambda e: e.update(last=[]), "it-said-something-before"),
        ("metrics.scraper-outage", lambda e: e["samples"][0].update(value=124), "counts-are-exact-when-it-is-back"),
    ],
)
def test_a_departure_is_found_by_the_claim_that_is_about_it(requirement, change, claim):
    evidence = copy.deepcopy(EVIDENCE[requirement]())

    change(evidence)

    assert claim in [one.name for one in FOUND[requirement](evidence).claims if one.held is False]


def test_answers_that_were_not_as_declared_are_no_mesh_s_fault():
    evidence = mesh()
    evidence["made"] = {"200": 48}

    assert FOUND["metrics.mesh"](evidence).outcome == "inconclusive"
