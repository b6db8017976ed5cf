"""A Prometheus that is lost half-way: the functions do not notice, and nobody takes its silence for having nothing to say."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from clusters.components.prometheus.client import PrometheusClient
from clusters.components.prometheus.witness import WitnessMissing
from clusters.waiting import TimedOut, eventually
from suites.support import judges, metrics
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.observed.client import Observed

FUNCTION = "first"
CALLS, RATE = 120, 20.0
INTERVAL_S = 1.0
QUERY = f'serverless_function_invocations_total{{function="{FUNCTION}"}}'


def judge(evidence: Evidence) -> Verdict:
    """Every call was answered, the loss was told by name with what was said last, and afterwards the count is that of all calls."""
    expected = {FUNCTION: evidence["before"]["invocations"] + CALLS}
    return Verdict.of(
        judges.every_status("calls-are-answered-while-it-is-gone", evidence["draw"], 200, least=CALLS),
        said_before("it-said-something-before", evidence["last"]),
        named("its-silence-is-told-with-its-name", evidence["missing"], evidence["witness"]),
        metrics.counted("counts-are-exact-when-it-is-back", evidence["samples"], expected),
    )


def said_before(name: str, last: metrics.Samples) -> Claim:
    """Claim that it answered with a count before it was lost."""
    return Claim(name, held=bool(last), said=f"{len(last)} series", expected="" if last else "the function's", got="" if last else "none")


def named(name: str, missing: str, witness: str) -> Claim:
    """Claim that the message names the witness, what it was asked and what it said last."""
    parts = (f"Prometheus {witness}", "expected an answer to /api/v1/query", f"s ago: {QUERY} = ")
    lacking = [part for part in parts if part not in missing]
    if lacking:
        return Claim(name, held=False, said=missing or "it was never missing", expected=f"all of {parts}", got=f"without {lacking}")
    return Claim(name, held=True, said=missing)


@requirement("metrics.scraper-outage", level="MUST", judge=judge)
def test_a_lost_prometheus_is_told_and_harms_nobody(
    functions: Mapping[str, Observed], caller: Caller, scraper: PrometheusClient, manifests: Manifests, decide: Decide,
) -> None:
    """While Prometheus is gone every request is answered and a question to it is refused by its name and its last words, and once it is back the count is that of all requests."""
    manifests.apply("scraper_outage.yaml")
    scraper.await_loaded(["ServiceMonitor"])
    before = functions[FUNCTION].counts()
    with suppress(TimedOut):
        eventually(lambda: _some(scraper), within=10 * INTERVAL_S, every=0.2, subject="nothing was scraped")
    last = scraper.instant(QUERY)
    with ThreadPoolExecutor(1) as pool:
        drawn = pool.submit(caller.draw, f"http://{FUNCTION}.{caller.namespace}/", count=CALLS, concurrency=4, rate_per_s=RATE, keep_headers=[], keep_seen=[])
        scraper.kube.delete_one("Pod", scraper.pod, scraper.namespace, grace_s=0)
        missing = eventually(lambda: _missing(scraper), within=INTERVAL_S * 10, every=0.05, subject="the killed Prometheus still answers")
        draw = drawn.result()
    called = time.time()
    scraper.await_ready()
    with suppress(TimedOut):
        eventually(lambda: _some(scraper, since=called), within=15 * INTERVAL_S, every=0.2, subject="nothing was scraped again")

    samples = [one for one in scraper.instant(f"{QUERY}[1m]") if one.at >= called]
    decide(before=before, draw=draw, last=last, missing=missing, witness=f"{scraper.namespace}/{scraper.pod}", samples=samples)


def _some(scraper: PrometheusClient, *, since: float = 0.0) -> None:
    assert any(one.at >= since for one in scraper.instant(f"{QUERY}[1m]")), "the function was not scraped"


def _missing(scraper: PrometheusClient) -> str:
    try:
        found = scraper.instant(QUERY)
    except WitnessMissing as missing:
        return str(missing)
    raise AssertionError(f"it answered with {len(found)} series")
