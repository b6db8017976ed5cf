"""A target that cannot be scraped: seen as down, with the reason, and seen again when it is back."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

import pytest

from clusters.components.prometheus.client import PrometheusClient
from clusters.waiting import TimedOut, eventually
from suites.support import metrics
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.observed.client import Observed

DOWN, TWIN = "first", "second"
INTERVAL_S = 1.0
# A scrape that is under way may still be answered, and the next one be late.
SEEN_WITHIN_S = 2 * INTERVAL_S + 2.0
# How long it is watched in each state, in scrapes.
SCRAPES = 3
INVOCATIONS = "serverless_function_invocations_total"


def judge(evidence: Evidence) -> Verdict:
    """Down after the refusal with its reason, up again after the return, and the twin up throughout."""
    ups, refused_at, answered_at = evidence["ups"], evidence["refused_at"], evidence["answered_at"]
    own = [one for one in ups if one["labels"].get("service") == DOWN]
    return Verdict.of(
        metrics.steady("up-before", [one for one in own if one["at"] < refused_at], 1.0, least=SCRAPES),
        metrics.turned("down-is-seen-in-time", [one for one in own if one["at"] < answered_at], 0.0, since=refused_at, within=SEEN_WITHIN_S),
        metrics.turned("its-return-is-seen-in-time", own, 1.0, since=answered_at, within=SEEN_WITHIN_S),
        reason("the-reason-is-told", evidence["targets"]),
        gone("its-series-end-with-it", evidence["while_down"]),
        metrics.steady("its-twin-stays-up", [one for one in ups if one["labels"].get("service") == TWIN], 1.0, least=2 * SCRAPES),
    )


def reason(name: str, targets: metrics.Targets) -> Claim:
    """Claim that the target says while it is down that it was answered 503."""
    found = [one for one in targets if one["labels"].get("service") == DOWN]
    told = ", ".join(f"{one['health']}: {one['error']}" for one in found) or "no target"
    held = bool(found) and all(one["health"] == "down" and "503" in one["error"] for one in found)
    return Claim(name, held=held, said=told, expected="" if held else "down, with the 503 that it was answered", got="" if held else told)


def gone(name: str, samples: metrics.Samples) -> Claim:
    """Claim that a query finds no value of the target while it is down, but its twin's.

    Finding: a scrape that fails ends every series of its target at once. A sum over functions forgets the one that cannot be asked, and
    with it its failures: an alert on their share ends when a function is so broken that it answers no scrape.
    """
    there = sorted({str(one["labels"].get("function")) for one in samples})
    return Claim(name, held=there == [TWIN], said=f"series of {', '.join(there) or 'nobody'}", expected="" if there == [TWIN] else TWIN, got="" if there == [TWIN] else ", ".join(there) or "none")


@pytest.fixture
def refusing(functions: Mapping[str, Observed]) -> Iterator[Observed]:
    """The function that is to refuse scrapes; it answers them again when the check ends."""
    yield functions[DOWN]
    functions[DOWN].refuse_scrapes(refused=False)


@requirement("metrics.target-down", level="MUST", judge=judge)
def test_a_target_that_goes_down_is_seen(refusing: Observed, scraper: PrometheusClient, manifests: Manifests, decide: Decide) -> None:
    """A function that refuses to be scraped is down within two scrapes, with the reason, and up again as soon; its twin is up throughout."""
    manifests.apply("target_down.yaml")
    scraper.await_loaded(["ServiceMonitor"])
    began = time.time()
    _watch(scraper, 1.0, began)
    refused_at = time.time()
    refusing.refuse_scrapes(refused=True)
    _watch(scraper, 0.0, refused_at)
    targets, while_down = scraper.targets(), scraper.instant(INVOCATIONS)
    answered_at = time.time()
    refusing.refuse_scrapes(refused=False)
    _watch(scraper, 1.0, answered_at)

    ups = scraper.instant(f"up[{round(time.time() - began + 1)}s]")
    decide(began=began, refused_at=refused_at, answered_at=answered_at, ups=[one for one in ups if one.at >= began], targets=targets, while_down=while_down)


def _watch(scraper: PrometheusClient, value: float, since: float) -> None:
    """Return once the target was seen so at some scrapes, or after a bounded wait."""
    def seen() -> None:
        found = [one.value for one in scraper.instant(f'up{{service="{DOWN}"}}[{round(time.time() - since + 1)}s]') if one.at >= since]
        assert found.count(value) >= SCRAPES, f"up was {found}"

    with suppress(TimedOut):
        eventually(seen, within=SEEN_WITHIN_S + SCRAPES * INTERVAL_S + 5, every=0.2, subject=f"up is not {value:g}")
