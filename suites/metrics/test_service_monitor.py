"""The reference's ServiceMonitor: who is scraped by it, how often, and what the counters say."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.prometheus.client import PrometheusClient
from clusters.waiting import TimedOut, eventually
from suites.support import metrics
from suites.support.manifests import Manifests
from suites.support.metrics import FOUND, UNLABELLED, UNPORTED
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.observed.client import Observed

INTERVAL = "30s"
INTERVAL_S = 30.0
# What the discovery of targets and the scrape itself may take beside it on a busy machine.
LATE_S = 6.0
# How often each function is called, and how often it fails beside that; no two alike, so that none is taken for another.
ANSWERED = {"first": 37, "second": 53, UNLABELLED: 11, UNPORTED: 13}
FAILING = {"first": 5, "second": 0, UNLABELLED: 2, UNPORTED: 3}
INVOCATIONS, ERRORS = "serverless_function_invocations_total", "serverless_function_errors_total"


def judge(evidence: Evidence) -> Verdict:
    """Both functions are scraped every 30 s and nobody else is; what was scraped is what was made, of each kind."""
    before, after, made = evidence["before"], evidence["after"], evidence["made"]
    invocations = {name: before[name]["invocations"] + sum(made[name].values()) for name in FOUND}
    errors = {name: before[name]["errors"] + made[name].get("500", 0) for name in FOUND}
    return Verdict.of(
        metrics.scraped("every-function-is-scraped", evidence["targets"], FOUND),
        metrics.unscraped("nobody-else-is-scraped", evidence["targets"], (UNLABELLED, UNPORTED)),
        metrics.every("scraped-as-often-as-declared", evidence["targets"], INTERVAL),
        as_made("calls-were-answered-as-declared", made),
        own("functions-counted-what-was-made", after, {name: before[name]["invocations"] + sum(made[name].values()) for name in made}),
        metrics.counted("invocations-are-those-that-were-made", evidence["samples"][INVOCATIONS], invocations),
        metrics.counted("failures-are-those-that-were-made", evidence["samples"][ERRORS], errors),
        typed("both-are-counters", evidence["metadata"]),
    )


def as_made(name: str, made: Mapping[str, Mapping[str, int]]) -> Claim:
    """Claim that the callers were answered as they asked to be."""
    expected = {each: {status: count for status, count in (("200", ANSWERED[each]), ("500", FAILING[each])) if count} for each in ANSWERED}
    if made != expected:
        return Claim(name, held=None, said=f"answers were {made}, to be {expected}")
    return Claim(name, held=True, said=f"{sum(sum(one.values()) for one in made.values())} calls of {len(made)} functions were answered as declared")


def own(name: str, after: Mapping[str, Mapping[str, Any]], expected: Mapping[str, int]) -> Claim:
    """Claim that each function's own count, asked for beside its metrics, is the expected one: the metrics are held against calls, not against themselves."""
    wrong = {each: after[each]["invocations"] for each, wanted in expected.items() if after[each]["invocations"] != wanted}
    if wrong:
        each, got = next(iter(wrong.items()))
        return Claim(name, held=None, said=f"{each} counted {got} itself, {expected[each]} calls were made")
    return Claim(name, held=True, said=", ".join(f"{each} {wanted}" for each, wanted in sorted(expected.items())))


def typed(name: str, metadata: Mapping[str, list[Mapping[str, str]]]) -> Claim:
    """Claim that targets say of both metrics that they are counters.

    Finding: what a counter is said to be is kept under its name in OpenMetrics, without `_total`, since scrapes are answered in that.
    """
    types = {metric: sorted({one["type"] for one in told}) for metric, told in metadata.items()}
    if any(seen != ["counter"] for seen in types.values()):
        return Claim(name, held=False, said=f"they are {types}", expected="counter", got=str(types))
    return Claim(name, held=True, said=f"{', '.join(types)} are counters")


def call(caller: Caller, namespace: str) -> dict[str, dict[str, int]]:
    """Call every function as declared; return the statuses of each."""
    made: dict[str, dict[str, int]] = {}
    for name, count in ANSWERED.items():
        url, kept = f"http://{name}.{namespace}/", {"keep_headers": [], "keep_seen": []}
        draws = [caller.draw(url, count=count, concurrency=4, **kept)]
        if FAILING[name]:
            draws.append(caller.draw(url, count=FAILING[name], headers=[("x-observed-status", f"{name}=500")], **kept))
        made[name] = {str(status): calls for draw in draws for status, calls in draw.statuses().items()}
    return made


# Half a minute until the last of the targets is scraped: they take turns over the interval.
@pytest.mark.slow
@requirement("metrics.service-monitor", level="MUST", judge=judge)
def test_every_function_is_scraped_and_counts_what_was_made(
    functions: Mapping[str, Observed], caller: Caller, scraper: PrometheusClient, manifests: Manifests, decide: Decide,
) -> None:
    """The reference's ServiceMonitor finds every function with its label and port and no other, scrapes each every 30 s, and each counter is the number of requests made."""
    before = {name: one.counts() for name, one in functions.items()}
    quiet = Caller(scraper.kube, caller.namespace, caller.pod)  # without a log: some fail on purpose
    made = call(quiet, caller.namespace)
    called = time.time()
    manifests.apply("service_monitor.yaml")
    loaded = scraper.await_loaded(["ServiceMonitor"])

    def scraped() -> None:
        waiting = [one.url for one in scraper.targets() if one.last < called]
        assert not waiting, f"{', '.join(waiting)} not scraped since"
        assert all(any(one.labels.get("service") == name for one in scraper.targets()) for name in FOUND), "a function has no target"

    with suppress(TimedOut):
        eventually(scraped, within=INTERVAL_S + LATE_S, subject="functions not scraped")
    decide(
        before={name: one.to_json() for name, one in before.items()}, made=made, after={name: one.counts() for name, one in functions.items()},
        targets=scraper.targets(), metadata={metric: scraper.metadata(metric.removesuffix("_total")) for metric in (INVOCATIONS, ERRORS)}, loaded_s=loaded.seconds,
        samples={metric: [one for one in scraper.instant(f"{metric}[{2 * INTERVAL_S:.0f}s]") if one.at >= called] for metric in (INVOCATIONS, ERRORS)},
    )
