"""Whoever is told of requests may be gone: requests are answered all the same, and what can be made up for is made up for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from clusters.components.jaeger.client import NAMESPACE as OF_JAEGER
from clusters.components.jaeger.client import SELECTOR, JaegerClient
from clusters.components.jaeger.component import await_answering
from clusters.components.prometheus.client import PrometheusClient
from clusters.components.prometheus.manifests import NAMESPACE as MONITORING
from clusters.components.store.client import StoreClient
from clusters.waiting import eventually
from suites.support import judges, witnesses
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from suites.support.witnesses import Witnesses
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.observed import observed
from workloads.observed.client import Observed

FUNCTION = "witnessed"
JAEGER = "jaeger"
PROMETHEUS = "monitoring.coreos.com/v1/Prometheus"
ALERTMANAGER = "monitoring.coreos.com/v1/Alertmanager"
# Jaeger's pod, and those that Prometheus's operator makes of its two resources.
PODS = ((OF_JAEGER, SELECTOR), (MONITORING, "app.kubernetes.io/name in (prometheus,alertmanager)"))
CALLS = 300
CONCURRENCY = 4
# Requests wait for no witness: the shortest time for which a proxy would wait for one is Envoy's second for a connection to a collector.
WAITED_MS = 1000.0
# Long enough to say that nobody answers, which is known at once.
GONE_WITHIN_S = 3.0
# Until a new store has what was kept for it, and the scraper, the tracer and the collectors' addresses are known again.
BACK_WITHIN_S = 40.0
# Each says who he is when he is missing.
NAMES = {"function-log": "log store", "access-log": "log store", "trace": "Jaeger", "metric": "Prometheus"}


def judge(evidence: Evidence) -> Verdict:
    """Calls are answered as before, the missing are named, and once they are back they tell again, of logs even what they missed."""
    before, meanwhile, missed, after = (evidence[name] for name in ("before", "meanwhile", "missed", "after"))
    return Verdict.of(
        judges.every_status("answered-before", before["draw"], 200, least=CALLS),
        judges.every_status("answered-while-they-are-away", meanwhile["draw"], 200, least=CALLS),
        at_once("no-call-waited-for-them", meanwhile["draw"]),
        *(named(f"{witness}-is-said-to-be-missing", meanwhile["told"][witness], NAMES[witness]) for witness in NAMES),
        *(witnesses.saw_all(f"{witness}-of-the-outage", missed[witness], [missed["request_id"]]) for witness in ("function-log", "access-log")),
        *(witnesses.saw_all(f"{witness}-before", before["told"][witness], [before["request_id"]]) for witness in NAMES),
        *(witnesses.saw_all(f"{witness}-afterwards", after["told"][witness], [after["request_id"]]) for witness in NAMES),
        counted("counter-has-the-outage-s-requests", after["counter"], after["answered"]),
    )


def at_once(name: str, draw: Mapping[str, Any]) -> Claim:
    """Claim that no call took as long as a proxy would wait for a witness."""
    records, incomplete = judges.records_of(name, draw)
    slowest = max((record["latency_ms"] for record in records), default=0.0)
    if slowest >= WAITED_MS:
        return Claim(name, held=False, said=f"the slowest of {len(records)} calls took {slowest:.0f} ms", expected=f"less than {WAITED_MS:.0f} ms", got=f"{slowest:.0f} ms")
    return incomplete or Claim(name, held=True, said=f"the slowest of {len(records)} calls took {slowest:.0f} ms")


def named(name: str, statements: list[Mapping[str, Any]], who: str) -> Claim:
    """Claim that a witness that is gone did not tell of a request, and that the message says who is gone."""
    told = [one for one in statements if not one["missing"]]
    if told:
        return Claim(name, held=False, said="it told of a request while it was away", expected=f"{who} missing", got=str(told[0]["told"]))
    said = statements[0]["missing"] if statements else "nobody was asked"
    return Claim(name, held=who in said, said=said, expected=f"a message that names {who}", got=said)


def counted(name: str, counter: Mapping[str, Any], answered: int) -> Claim:
    """Claim that the scraper's counter has come to what the function itself has answered: what nobody scraped is in the next scrape."""
    seen = counter["value"]
    return Claim(name, held=seen == answered, said=f"the function answered {answered} requests, its counter is {seen} {counter['missing']}".strip(), expected=str(answered), got=str(seen))


@contextmanager
def away(world: World, jaeger: JaegerClient, prometheus: PrometheusClient, store: StoreClient) -> Iterator[None]:
    """Take tracer, scraper, Alertmanager and log store away for a block, at once and without their leave, and have all of them back when it ends."""
    kube, timeouts = world.kube, world.timeouts
    operated = [(kind, prometheus.name) for kind in (PROMETHEUS, ALERTMANAGER)]

    def of_each(replicas: int) -> None:
        kube.scale(jaeger.namespace, JAEGER, replicas)
        for kind, name in operated:
            kube.merge(kind, name, {"spec": {"replicas": replicas}}, prometheus.namespace)

    def none_left() -> None:
        left = [pod["metadata"]["name"] for namespace, selector in PODS for pod in kube.pods(namespace, selector)]
        for namespace, selector in PODS:
            for pod in kube.pods(namespace, selector):
                kube.delete_one("Pod", pod["metadata"]["name"], namespace, grace_s=0)
        assert not left, f"pod {', '.join(left)}"

    try:
        of_each(0)
        with store.away():
            eventually(none_left, within=timeouts.deployment_available, subject="a witness is still there")
            yield
            of_each(1)
    finally:
        of_each(1)
        kube.wait_deployment(jaeger.namespace, JAEGER, within=timeouts.deployment_available)
        await_answering(jaeger, timeouts)
        prometheus.await_ready(alertmanagers=1)


@pytest.mark.slow
@pytest.mark.usefixtures("fluentd", "our_witnesses", "otlp_collector")
@requirement("observability.outage", level="MUST", judge=judge, alone=True)
def test_requests_do_not_depend_on_their_witnesses(
    world: World, caller: Caller, jaeger: JaegerClient, prometheus: PrometheusClient, store: StoreClient, manifests: Manifests, decide: Decide,
) -> None:
    """With tracer, scraper and log store gone, every request is answered and none waits; the message names the missing, and once they are back both logs and counter have what was missed.

    Slow because the store starts twice as slowly as everything else together. Finding: spans of the outage are lost, Envoy keeps none; so are the examples of counters.
    """
    world.deploy({FUNCTION: observed(FUNCTION)})
    manifests.apply("outage.yaml")
    prometheus.await_loaded(("ServiceMonitor",))
    asked = Witnesses(world.namespace, FUNCTION, jaeger, prometheus, store)
    function = Observed(world.kube, world.namespace, world.pod(FUNCTION))

    def seen(within: float = witnesses.WITHIN_S) -> dict[str, Any]:
        draw = caller.draw(f"http://{FUNCTION}/", count=CALLS, concurrency=CONCURRENCY, keep_headers=(), keep_seen=())
        watch = asked.watch(within)
        _, request_id = asked.send(caller)
        watch.expect(request_id)
        return {"draw": draw, "request_id": request_id, "told": watch.finish()}

    before = seen()
    with away(world, jaeger, prometheus, store):
        meanwhile = seen(GONE_WITHIN_S)
    after = seen(BACK_WITHIN_S)
    late = asked.watch(BACK_WITHIN_S)
    late.expect(meanwhile["request_id"], of=("function-log", "access-log"))

    answered = function.counts().invocations
    decide(
        before=before, meanwhile=meanwhile, missed={"request_id": meanwhile["request_id"], **late.finish()},
        after={**after, "answered": answered, "counter": asked.counter(answered)},
    )
