"""The mesh's view in numbers: what each proxy counts of the requests to its function, held against the requests and the function's own count."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.prometheus.client import PrometheusClient, Sample
from clusters.waiting import TimedOut, eventually
from suites.support import metrics
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.observed import observed
from workloads.observed.client import Observed

COUNTED, UNCOUNTED = "counted", "uncounted"
ANSWERED, FAILING = 41, 7
INTERVAL_S = 1.0
# Envoy's own counters of the cluster by which a sidecar leads to its function, which upstream's Envoy has as Istio's build does.
INBOUND = 'cluster_name=~"inbound.8080.*"'
TOTAL = f"envoy_cluster_upstream_rq_total{{{INBOUND}}}"
# Finding: Envoy's `upstream_rq_2xx` comes as `upstream_rq` with the class as a label, for so Istio's bootstrap cuts the names.
BY_CLASS = f'envoy_cluster_upstream_rq{{{INBOUND},response_code_class!=""}}'
# Finding: a sidecar keeps few of Envoy's counters unless it is told which, and those of the function's own cluster are not among them.
KEEP = {"sidecar.istio.io/statsInclusionRegexps": r"cluster\.inbound.*upstream_rq.*"}


def judge(evidence: Evidence) -> Verdict:
    """The proxy's counts are the requests made, of each class and in all, and the function's own; a proxy that was not told keeps none of them."""
    made, own = evidence["made"], evidence["own"]
    grown = own["after"]["invocations"] - own["before"]["invocations"]
    return Verdict.of(
        proxies("both-proxies-are-scraped", evidence["targets"]),
        as_made("calls-were-answered-as-declared", made),
        Claim("the-function-counts-as-many", grown == ANSWERED + FAILING, f"it counted {grown}", expected=str(ANSWERED + FAILING), got=str(grown)),
        delta("requests-are-those-that-were-made", evidence["before"]["total"], evidence["after"]["total"], ANSWERED + FAILING),
        delta("answers-are-those-that-were-made", classed(evidence["before"]["classes"], "2xx"), classed(evidence["after"]["classes"], "2xx"), ANSWERED),
        delta("failures-are-those-that-were-made", classed(evidence["before"]["classes"], "5xx"), classed(evidence["after"]["classes"], "5xx"), FAILING, first=True),
        untold("a-proxy-that-was-not-told-keeps-none", evidence["after"]["total"]),
    )


def proxies(name: str, targets: metrics.Targets) -> Claim:
    """Claim that the proxy of each of the two functions is a target that is up."""
    found = {each: sorted(one["health"] for one in targets if str(one["labels"].get("pod", "")).startswith(f"{each}-")) for each in (COUNTED, UNCOUNTED)}
    held = all(health == ["up"] for health in found.values())
    return Claim(name, held=held, said=f"targets {found}", expected="" if held else "one of each, up", got="" if held else str(found))


def as_made(name: str, made: Mapping[str, int]) -> Claim:
    """Claim that the calls were answered as they asked to be."""
    held = made == {"200": ANSWERED, "500": FAILING}
    return Claim(name, held=True if held else None, said=f"answers {made}")


def newest(samples: Sequence[Sample]) -> list[Sample]:
    """Return the newest sample of each series."""
    by_series = {tuple(sorted(one.labels.items())): one for one in sorted(samples, key=lambda one: one.at)}
    return list(by_series.values())


def classed(samples: metrics.Samples, code: str) -> list[Mapping[str, Any]]:
    """Return the samples of one class of status codes."""
    return [one for one in samples if one["labels"].get("response_code_class") == code]


def delta(name: str, before: metrics.Samples, after: metrics.Samples, expected: int, *, first: bool = False) -> Claim:
    """Claim that the counter of the counted function's proxy grew by exactly so much; one that begins with the `first` such answer began at none."""
    was, now = (sum(float(one["value"]) for one in samples if str(one["labels"].get("pod", "")).startswith(f"{COUNTED}-")) for samples in (before, after))
    if not after or (not before and not first):
        return Claim(name, held=False, said="the proxy has no such counter", expected=str(expected), got="no series")
    held = now - was == expected
    return Claim(name, held=held, said=f"{now - was:g} more", expected="" if held else str(expected), got="" if held else f"{now - was:g}")


def untold(name: str, samples: metrics.Samples) -> Claim:
    """Claim that the proxy that was not told has no such counter."""
    found = [one for one in samples if str(one["labels"].get("pod", "")).startswith(f"{UNCOUNTED}-")]
    return Claim(name, held=not found, said=f"{len(found)} series of it", expected="none" if found else "", got=str(len(found)) if found else "")


@pytest.fixture(scope="module")
def counted(world: World) -> Mapping[str, Observed]:
    """A function whose proxy is told to keep the counters, and one whose proxy is not."""
    world.deploy({COUNTED: _aside(observed(COUNTED, annotations=KEEP)), UNCOUNTED: _aside(observed(UNCOUNTED))})
    return {name: Observed(world.kube, world.namespace, world.pod(name)) for name in (COUNTED, UNCOUNTED)}


@requirement("metrics.mesh", level="MUST", judge=judge)
def test_a_proxy_counts_what_was_made(
    counted: Mapping[str, Observed], caller: Caller, scraper: PrometheusClient, manifests: Manifests, decide: Decide,
) -> None:
    """What a function's proxy counts of requests and of each class of answers is what was made, and what the function counts itself."""
    manifests.apply("mesh_metrics.yaml")
    scraper.await_loaded(["PodMonitor"])
    quiet = Caller(scraper.kube, caller.namespace, caller.pod)  # without a log: some fail on purpose
    url = f"http://{COUNTED}.{caller.namespace}/"
    # The counters begin with the first request; the twin is called too, or it had nothing to count.
    for name in (COUNTED, UNCOUNTED):
        quiet.draw(f"http://{name}.{caller.namespace}/", count=3, keep_headers=[], keep_seen=[])
    before, own = _scraped(scraper), counted[COUNTED].counts()
    draws = [
        quiet.draw(url, count=ANSWERED, concurrency=4, keep_headers=[], keep_seen=[]),
        quiet.draw(url, count=FAILING, headers=[("x-observed-status", f"{COUNTED}=500")], keep_headers=[], keep_seen=[]),
    ]
    after = _scraped(scraper)

    decide(
        before=before, after=after, own={"before": own, "after": counted[COUNTED].counts()}, targets=scraper.targets(),
        made={str(status): count for draw in draws for status, count in draw.statuses().items()},
    )


def _aside(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the label from a function's Service by which the other checks of the area would find it."""
    for one in objects:
        if one["kind"] == "Service":
            one["metadata"]["labels"].clear()
    return objects


def _scraped(scraper: PrometheusClient) -> dict[str, list[Sample]]:
    """Return the counters as a scrape from now on has them, or what there is after a bounded wait.

    Finding: a monitor that is taken away ends its series a scrape or two later, and so those of another one that has the same targets by
    then: what is asked for at such a moment is not there. The samples themselves are.
    """
    since, found = time.time(), {}

    def again() -> None:
        for name, query in (("total", TOTAL), ("classes", BY_CLASS)):
            found[name] = [one for one in scraper.instant(f"{query}[{round(time.time() - since + 2)}s]") if one.at >= since]
        late = [one.url for one in scraper.targets() if one.last < since]
        assert not late, f"{', '.join(late)} not scraped again"
        assert found["total"], f"{len(scraper.targets())} targets, and none of them has the counter"
        assert found["classes"], "no answer was counted"

    with suppress(TimedOut):
        eventually(again, within=12 * INTERVAL_S, every=0.2, subject="proxies not scraped")
    return {name: newest(samples) for name, samples in found.items()}
