"""How long after a request its metric can be asked for, that each request is counted once, and that an exemplar leads back to it."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any

from clusters.components.prometheus.client import PrometheusClient
from clusters.waiting import TimedOut, eventually
from suites.support import judges, metrics
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.observed.client import Observed
from workloads.records import Draw

FUNCTION = "first"
CALLS, FAILING, RATE = 120, 12, 20.0
INTERVAL_S = 1.0
# A scrape may begin just before a call is counted, and the next one be late by as much as a busy machine takes for it.
VISIBLE_WITHIN_S = 3.0
# A scrape keeps the newest example of a series alone: one of every second of the calls, and not of the first and the last.
EXEMPLARS = 4
LOOK_EVERY_S = 0.05
INVOCATIONS, ERRORS = "serverless_function_invocations_total", "serverless_function_errors_total"


def judge(evidence: Evidence) -> Verdict:
    """Every call was seen counted in time, none twice, and the examples that were kept are of them."""
    draws = evidence["draws"]
    ended = [at for draw in draws.values() for at in ends(draw)]
    waits = metrics.visible_after([(at, value) for at, value in evidence["seen"]], ended, base=evidence["before"]["invocations"])
    ids = [record["request_id"] for draw in draws.values() for record in draw["records"]]
    return Verdict.of(
        judges.every_status("answered", draws["answered"], 200, least=CALLS),
        judges.every_status("failing", draws["failing"], 500, least=FAILING),
        metrics.visible("counted-where-it-can-be-asked-for-in-time", waits, within=VISIBLE_WITHIN_S),
        metrics.counted("invocations-are-those-that-were-made", evidence["samples"][INVOCATIONS], {FUNCTION: evidence["before"]["invocations"] + CALLS + FAILING}),
        metrics.counted("failures-are-those-that-were-made", evidence["samples"][ERRORS], {FUNCTION: evidence["before"]["errors"] + FAILING}),
        metrics.led_to("exemplars-lead-to-requests-that-were-made", evidence["exemplars"], ids, least=EXEMPLARS),
    )


def ends(draw: Mapping[str, Any]) -> list[float]:
    """Return when each call of a draw was answered (seconds since 1970)."""
    began = datetime.fromisoformat(draw["began"]).timestamp()
    return [began + (record["started_ms"] + record["latency_ms"]) / 1000 for record in draw["records"]]


@requirement("metrics.visibility", level="MUST", judge=judge)
def test_a_request_is_counted_once_and_soon(
    functions: Mapping[str, Observed], caller: Caller, scraper: PrometheusClient, manifests: Manifests, decide: Decide,
) -> None:
    """Each request is counted exactly once, where it can be asked for within three scrapes, and every exemplar carries the id of a request that was made."""
    manifests.apply("visibility.yaml")
    loaded = scraper.await_loaded(["ServiceMonitor"])
    function = functions[FUNCTION]
    before, began = function.counts(), time.time()
    _await_scrape(scraper, began)
    quiet = Caller(scraper.kube, caller.namespace, caller.pod)  # without a log: some fail on purpose
    url = f"http://{FUNCTION}.{caller.namespace}/"

    def draw(count: int, rate: float, *headers: tuple[str, str]) -> Draw:
        return quiet.draw(url, count=count, concurrency=4, rate_per_s=rate, headers=headers, keep_headers=[], keep_seen=[])

    query, seen = f'{INVOCATIONS}{{function="{FUNCTION}"}}', []
    with ThreadPoolExecutor(2) as pool:
        drawn = {
            "answered": pool.submit(draw, CALLS, RATE), "failing": pool.submit(draw, FAILING, RATE * FAILING / CALLS, ("x-observed-status", f"{FUNCTION}=500")),
        }

        def all_seen() -> None:
            seen.extend((time.time(), sample.value) for sample in scraper.instant(query))
            assert all(one.done() for one in drawn.values()), "calls are being made"
            assert seen, "it has no series"
            assert seen[-1][1] >= before.invocations + CALLS + FAILING, f"{seen[-1][1]:g} seen"

        with suppress(TimedOut):
            eventually(all_seen, within=CALLS / RATE + 3 * VISIBLE_WITHIN_S, every=LOOK_EVERY_S, subject="calls not counted")
    draws = {name: one.result() for name, one in drawn.items()}
    decide(
        before=before, draws=draws, loaded_s=loaded.seconds, seen=changes(seen),
        samples={metric: scraper.instant(f'{metric}{{function="{FUNCTION}"}}') for metric in (INVOCATIONS, ERRORS)},
        exemplars=scraper.exemplars(query, since=began, until=time.time()),
    )


def changes(seen: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the looks at which a value was another than at the look before."""
    return [look for place, look in enumerate(seen) if place == 0 or look[1] != seen[place - 1][1]]


def _await_scrape(scraper: PrometheusClient, since: float) -> None:
    """Return once the function was scraped after a time: what is drawn then is scraped at its interval."""
    def scraped() -> None:
        assert any(one.last > since for one in scraper.targets() if one.labels.get("service") == FUNCTION), f"{FUNCTION} not scraped"

    eventually(scraped, within=15 * INTERVAL_S, every=0.1, subject=f"{FUNCTION} is no target")
