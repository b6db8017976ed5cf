"""One request and everybody who claims to have seen it: who called, the function, both proxies, the tracer, the scraper."""

from collections.abc import Mapping
from typing import Any

import pytest

from clusters.components.jaeger.client import JaegerClient
from clusters.components.prometheus.client import PrometheusClient
from clusters.components.store.client import StoreClient
from suites.support import judges, witnesses
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from suites.support.witnesses import Watch, Witnesses, known_as
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.observed import observed
from workloads.observed.client import Observed
from workloads.records import Draw

REQUESTS = 6
FUNCTION = "witnessed"


def judge(evidence: Evidence) -> Verdict:
    """Every witness tells of every request, and they do not contradict one another."""
    told, answered = evidence["told"], evidence["answered"]
    requests = [known_as(record) for draw in answered for record in draw["records"]]
    joined = judges.joined({str(index): draw for index, draw in enumerate(answered)})
    return Verdict.of(
        judges.every_status("response", joined, 200, least=REQUESTS),
        *(witnesses.saw_all(witness, told[witness], requests) for witness in ("function-log", "access-log", "trace", "metric")),
        witnesses.agree("one-trace", told, {witness: lambda said: said["trace_id"] for witness in ("function-log", "trace", "metric")}, "trace id"),
        witnesses.agree("one-status", told, {witness: lambda said: said["status"] for witness in ("function-log", "access-log", "trace")}, "status"),
        counted("counter-grew-by-the-requests", evidence["counter"], len(requests)),
    )


def counted(name: str, counter: Mapping[str, Any], requests: int) -> Claim:
    """Claim that a counter grew by the number of requests, exactly."""
    before, after = counter["before"], counter["after"]
    if before["value"] is None or after["value"] is None:
        return Claim(name, held=False, said=f"the counter was not to be had: {before['missing'] or after['missing']}", expected=str(requests), got="no counter")
    grew = after["value"] - before["value"]
    return Claim(name, held=grew == requests, said=f"{requests} requests were made and it grew by {grew:g}", expected=str(requests), got=f"{grew:g}")


def made(caller: Caller, asked: Witnesses, watch: Watch) -> list[Draw]:
    """Make the requests one by one, each once the counter's example has told of the former: of what comes in between it would keep nothing.

    What the counter does not tell of, it would not tell of for the next one either: that was the last request.
    """
    draws = []
    for _ in range(REQUESTS):
        draw, request_id = asked.send(caller)
        draws.append(draw)
        if watch.expect(request_id)["metric"].result().missing:
            break
    return draws


@pytest.mark.usefixtures("fluentd", "our_witnesses", "otlp_collector")
@requirement("observability.five-witnesses", level="MUST", judge=judge)
def test_five_witnesses_tell_of_one_request(
    world: World, caller: Caller, jaeger: JaegerClient, prometheus: PrometheusClient, store: StoreClient, manifests: Manifests, decide: Decide,
) -> None:
    """One request's id leads to its answer, to the function's log line and to both proxies' access log lines in the store, to its trace, and to an exemplar of the function's counter."""
    world.deploy({FUNCTION: observed(FUNCTION)})
    manifests.apply("five_witnesses.yaml")
    prometheus.await_loaded(("ServiceMonitor",))
    asked = Witnesses(world.namespace, FUNCTION, jaeger, prometheus, store)
    function = Observed(world.kube, world.namespace, world.pod(FUNCTION))
    before = asked.counter(function.counts().invocations)
    watch = asked.watch()
    answered = made(caller, asked, watch)
    told = watch.finish()
    after = asked.counter(function.counts().invocations)

    decide(answered=answered, told=told, counter={"before": before, "after": after})
