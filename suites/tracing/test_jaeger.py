"""The reference's Jaeger resource, applied through the operator, and what it really becomes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.jaeger_operator.client import JAEGER, Instance, JaegerOperatorClient
from clusters.waiting import Unsettled, eventually
from suites.support import tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import W3C, Chain
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

NAME = "serverless-jaeger"
REQUESTS = 10
MAX_TRACES = "--memory.max-traces=100000"


# Finding: memory cannot be shared by several pods, so the operator makes an all-in-one of it whatever the strategy is. It says so nowhere but
# in its log at debug level: the resource's status is Running. It writes what it did over what was asked for (strategy `allinone`, in a spelling
# that its own documentation has not), and leaves the rest, so that three collectors at most are declared of which there is none. Whoever keeps
# the resource in a repository sees it differ from then on.
def judge(evidence: Evidence) -> Verdict:
    """One pod that is everything, which keeps as many traces as were declared and in which those of the mesh are found."""
    instance, spec = evidence["instance"], evidence["spec"]
    components = {name: (one["component"], one["replicas"]) for name, one in instance["deployments"].items()}
    said = ", ".join(f"{name}: {count} x {component}" for name, (component, count) in sorted(components.items())) or "nothing"
    collectors = sorted(name for name, (component, _) in components.items() if component == "collector")
    return Verdict.of(
        Claim("all-in-one-in-place-of-production", components == {NAME: ("all-in-one", 1)}, f"it became {said}", expected=f"{NAME}: 1 x all-in-one", got=said),
        none_of("no-collector-to-scale", [*collectors, *instance["autoscalers"]]),
        keeps("keeps-as-many-traces-as-declared", instance),
        rewritten("the-resource-is-rewritten", spec, instance["phase"]),
        tracing.each_whole("traces-of-the-mesh-are-in-it", evidence["sent"], evidence["sighting"], tracing.hops_of(evidence["services"]), least=REQUESTS),
    )


def none_of(name: str, found: list[str]) -> Claim:
    """Claim that there is neither a collector of its own nor an autoscaler, whatever `collector.maxReplicas` says."""
    said = f"there is {', '.join(found) or 'neither a collector nor an autoscaler'}"
    return Claim(name, not found, said, expected="neither a collector nor an autoscaler", got=", ".join(found))


def keeps(name: str, instance: Mapping[str, Any]) -> Claim:
    """Claim that what it became is told the declared number of traces."""
    told = [one for deployment in instance["deployments"].values() for one in deployment["arguments"] if "max-traces" in one]
    return Claim(name, told == [MAX_TRACES], f"it is told {', '.join(told) or 'no number of traces'}", expected=MAX_TRACES, got=str(told))


def rewritten(name: str, spec: Mapping[str, Any], phase: str) -> Claim:
    """Claim that the strategy was written over, and that the rest is as it was asked for and said to run."""
    seen = spec.get("strategy"), spec.get("collector", {}).get("maxReplicas"), spec.get("storage", {}).get("type"), phase
    said = "the resource says strategy {}, collector.maxReplicas {}, storage {}, phase {}".format(*seen)
    return Claim(name, seen == ("allinone", 3, "memory", "Running"), said, expected="allinone, 3, memory, Running", got=", ".join(map(str, seen)))


def become(operator: JaegerOperatorClient, namespace: str) -> Instance:
    """Return what the resource has become once that runs, or after a bounded wait what is there of it."""
    def made() -> Instance:
        found = operator.instance(namespace, NAME)
        assert found.deployments, "it has become nothing yet"
        assert found.phase, "the operator has not said what phase it is in"
        return found

    with suppress(Unsettled):
        found = eventually(made, within=operator.timeouts.deployment_available, subject=f"Jaeger {namespace}/{NAME} not taken up by the operator")
        for name in found.deployments:
            operator.kube.wait_deployment(namespace, name, operator.timeouts.deployment_available)
    return operator.instance(namespace, NAME)


@pytest.mark.usefixtures("otlp_collector")
@requirement("tracing.jaeger", level="MUST", judge=judge)
def test_the_reference_s_jaeger(
    functions: Chain, caller: Caller, jaeger_operator: JaegerOperatorClient, world: World, manifests: Manifests, decide: Decide,
) -> None:
    """A Jaeger of strategy production, three collectors at most and 100 000 traces in memory becomes one all-in-one pod without a collector to scale, and the mesh's traces are found in it."""
    manifests.apply("jaeger.yaml")
    instance = become(jaeger_operator, world.namespace)
    manifests.apply("jaeger.collector.yaml")
    sent = tracing.send(caller, functions.url, REQUESTS, propagation=W3C, sampled="1")
    sighting = tracing.sighted(jaeger_operator.jaeger(world.namespace, NAME), sent, spans=6)
    spec = world.kube.get(JAEGER, NAME, world.namespace)["spec"]

    decide(services=functions.services, instance=instance, spec=spec, sent=sent, sighting=sighting)
