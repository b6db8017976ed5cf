"""A function of OpenFaaS in a STRICT mesh with a policy: who reaches it, as whom, and by which way."""

from collections.abc import Callable

from clusters.components.openfaas.client import PRINCIPAL, OpenFaasClient, function_url, local_url
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor.client import as_told

NAME = "guarded"
CALLS = 5


# Finding: whoever calls by way of the gateway is the gateway to the function, also a caller without any identity: OpenFaaS asks for a password
# where functions are deployed, and nobody where they are called. A policy for the gateway's own pods has to say who may call at all.
def judge(evidence: Evidence) -> Verdict:
    """The gateway's calls arrive as the gateway's, for whomever it makes them; calls past it are refused, with a certificate and without."""
    gateway = evidence["gateway"]
    return Verdict.of(
        judges.peer_identity("the-gateway-is-let-in", gateway, PRINCIPAL, least=CALLS),
        judges.peer_identity("who-asks-the-gateway-is-not-seen", evidence["beside"], PRINCIPAL, least=CALLS),
        judges.refused("another-identity-is-refused", evidence["past"], control=gateway, status=403),
        judges.refused("plaintext-is-refused", evidence["plaintext"], control=gateway),
    )


@requirement("functions.openfaas-mesh", level="MUST", judge=judge)
def test_only_the_gateway_reaches_a_function(
    world: World, faas: OpenFaasClient, served: Callable[..., None], caller: Caller, intruder: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """In a STRICT namespace a policy that names the gateway's account lets only calls of OpenFaaS's gateway reach a function, by mutual TLS; calls past it are refused.

    The function answers with what it saw of the request, the caller's certificate among it.
    """
    manifests.apply("openfaas_mesh.yaml", image=processor_image)
    served(NAME)
    (pod,) = faas.pods(world.namespace, NAME)
    url = function_url(NAME, world.namespace)

    decide(
        gateway=as_told(caller.draw(url, count=CALLS, keep_body=True), NAME),
        beside=as_told(intruder.draw(url, count=CALLS, keep_body=True), NAME),
        past=as_told(caller.draw(local_url(NAME, world.namespace), count=CALLS, keep_body=True, fresh_connections=True), NAME),
        plaintext=as_told(intruder.draw(f"http://{pod['status']['podIP']}:8080/", count=CALLS, keep_body=True, fresh_connections=True), NAME),
    )
