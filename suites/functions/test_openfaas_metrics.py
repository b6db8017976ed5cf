"""Metrics of OpenFaaS's functions: what the watchdog counts at 8081, who can scrape it in a STRICT mesh, and where the mesh leads a scraper."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from clusters.components.openfaas.client import OpenFaasClient, function_url
from clusters.waiting import NeverReached, TimedOut
from suites.support import faas as claims
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor import METRICS_PORT
from workloads.image_processor.client import requests_of, without
from workloads.records import Draw

NAMES = ("counted", "scraped")
POSTS, GETS = 7, 4
WANTED = {"200 post": POSTS, "200 get": GETS}
# Where a sidecar's agent hands out its own metrics, the proxy's and the function's together.
MERGED_PORT, MERGED_PATH = "15020", "/stats/prometheus"
ANNOTATIONS = {"prometheus.io/scrape": "true", "prometheus.io/port": MERGED_PORT, "prometheus.io/path": MERGED_PATH}


# Finding: in a STRICT mesh a scraper without an identity does not reach 8081 as the reference declares it. It is led elsewhere: Istio's injector
# reads `prometheus.io.scrape` and `.port` (dots or a slash are one to it, as to Prometheus), takes them away, and writes its own: the agent's port,
# where the function's metrics are among the proxy's. Whoever scrapes by the reference's port has to exclude it from the sidecar.
def judge(evidence: Evidence) -> Verdict:
    """8081 is closed to a scraper and open where it is excluded; there, and where the mesh merges them, is what was called, no more and no less."""
    scrapes, answered = evidence["scrapes"], evidence["answered"]
    return Verdict.of(
        judges.refused("the-port-is-closed-to-a-scraper", scrapes["counted"], control=scrapes["scraped"]),
        claims.counted("counted-where-the-port-is-excluded", evidence["counts"]["scraped"], WANTED, answered=answered["scraped"]),
        claims.counted("counted-where-the-mesh-merges-them", evidence["counts"]["merged"], WANTED, answered=answered["counted"]),
        led("annotations-lead-to-the-mesh-s-port", evidence["annotations"]),
    )


def led(name: str, annotations: Mapping[str, str]) -> Claim:
    """Claim that the pod has Istio's annotations in place of the reference's."""
    got = ", ".join(f"{key}={value}" for key, value in sorted(annotations.items())) or "none"
    return Claim(name, held=dict(annotations) == ANNOTATIONS, said=f"the pod has {got}", expected=str(ANNOTATIONS), got=got)


@requirement("functions.openfaas-metrics", level="MUST", judge=judge)
def test_a_function_s_metrics_are_what_was_called(
    world: World, faas: OpenFaasClient, served: Callable[..., None], caller: Caller, intruder: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """The watchdog's metrics count each call of a function by status and method; in a STRICT mesh a scraper reaches them where Istio merges them with its own, and at 8081 where that port is excluded."""
    manifests.apply("openfaas_metrics.yaml", image=processor_image)
    with suppress(TimedOut, NeverReached):
        served(*NAMES)
    pods = {name: faas.pods(world.namespace, name)[0] for name in NAMES}
    own = {name: f"http://{pod['status']['podIP']}:{METRICS_PORT}/metrics" for name, pod in pods.items()}
    urls = {"counted": own["counted"], "scraped": own["scraped"], "merged": f"http://{pods['counted']['status']['podIP']}:{MERGED_PORT}{MERGED_PATH}"}

    def scrape() -> dict[str, Draw]:
        return {name: intruder.draw(url, keep_body=True, fresh_connections=True) for name, url in urls.items()}

    before = scrape()
    answered = dict.fromkeys(NAMES, 0)
    for name in NAMES:
        for method, count in (("POST", POSTS), ("GET", GETS)):
            answered[name] += sum(record.status == 200 for record in caller.draw(function_url(name, world.namespace), method=method, count=count).records)
    after = scrape()

    decide(
        answered=answered, scrapes={name: without_bodies(draw) for name, draw in after.items()}, counts={name: risen(before[name], after[name]) for name in urls},
        annotations={key: value for key, value in pods["counted"]["metadata"]["annotations"].items() if key.startswith(("prometheus.io", "prometheus-io"))},
    )


def risen(before: Draw, after: Draw) -> dict[str, Any]:
    """Return what was counted between two scrapes; the calls of whoever waited for the function are in the first."""
    first, second = (requests_of(draw.records[0].content().decode("utf-8", "replace")) for draw in (before, after))
    return without(second, first)


def without_bodies(draw: Draw) -> dict[str, Any]:
    """Return a draw whose answers are not kept: they are the proxy's metrics, of which a few lines are counted."""
    return {**draw.to_json(), "records": [{**record.to_json(), "body": ""} for record in draw.records]}
