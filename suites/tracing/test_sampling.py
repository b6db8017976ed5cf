"""The reference's tracing, word for word: everything is sampled, and Zipkin's spans go to an address in Istio's namespace."""

from collections.abc import Mapping

from clusters.components.jaeger.client import JaegerClient
from suites.support import tracing
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.tracing import B3
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller import caller as caller_objects
from workloads.caller.client import Caller
from workloads.fixtures import World

REQUESTS = 20
NAMES = ("reference-first", "reference-second", "reference-third")
CALLER = "reference-caller"
PROXY_CONFIG = "proxy.istio.io/config"


def judge(evidence: Evidence) -> Verdict:
    """Each request is one trace, from its caller to the last function, in order, and with the status of its answers."""
    sent, sighting = evidence["sent"], evidence["sighting"]
    hops = tracing.hops_of(evidence["services"])
    return Verdict.of(
        tracing.each_whole("each-request-is-one-whole-trace", sent, sighting, hops, least=REQUESTS),
        tracing.parents_first("parents-before-children", sighting),
        tracing.status_told("both-sides-tell-the-status", sighting, hops),
    )


def deployed(world: World, annotations: Mapping[str, str]) -> Caller:
    """Deploy a chain and its caller with these annotations, anew where they have others, and return the caller.

    Their proxies drain for a second as those of all our pods do, which what they are annotated with does not say.
    """
    annotations = {**annotations, PROXY_CONFIG: f"{annotations[PROXY_CONFIG].rstrip()}\ndrainDuration: 1s\n"}
    functions = {**tracing.chain_of(NAMES, annotations), CALLER: caller_objects(CALLER)}
    functions[CALLER][-1]["spec"]["template"]["metadata"].setdefault("annotations", {}).update(annotations)
    world.redeploy(functions)
    return Caller(world.kube, world.namespace, world.pod(CALLER))


@requirement("tracing.sampling", level="MUST", judge=judge)
def test_the_reference_s_own_form(jaeger: JaegerClient, world: World, manifests: Manifests, decide: Decide) -> None:
    """With `sampling: 100` and Zipkin at `zipkin.istio-system:9411` in their pods' annotations, every request of a chain of three functions is one whole trace under the id that it came with.

    The requests bring no decision: that they are sampled is the proxies' own.
    """
    manifests.apply("sampling.yaml")
    template = world.kube.get("v1/PodTemplate", "reference", world.namespace)["template"]
    caller = deployed(world, template["metadata"]["annotations"])
    sent = tracing.send(caller, f"http://{NAMES[0]}/", REQUESTS, propagation=B3)

    decide(services=tracing.service_names((CALLER, *NAMES), world.namespace), sent=sent, sighting=tracing.sighted(jaeger, sent, spans=6))
