"""The operator's own interface, beside OpenFaaS's gateway: who is answered there, what it can do in a STRICT mesh, and how it is closed."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from clusters.bringup import Testbed
from clusters.components.openfaas.client import OpenFaasClient, function_url
from clusters.components.openfaas.manifests import GATEWAY, NAMESPACE, PROVIDER_PORT
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

NAME = "provided"
CALLS = 5
FORBIDDEN = 403
CLOSED_WITHIN_S = 30.0


# Finding: the operator listens on its pod's address and asks for no password: whoever has an address in the cluster deploys, scales and deletes
# functions past the gateway's basic auth. And it calls a function by its pod's address, which is no host of the mesh: in plain text, so a
# STRICT namespace refuses it. That is what every call would come to without `direct_functions` (clusters/components/openfaas/manifests.py).
def judge(evidence: Evidence) -> Verdict:
    """Open to anybody before, closed to everybody afterwards, and useless for functions of a STRICT namespace; the gateway is as it was."""
    before, after = evidence["before"], evidence["after"]
    return Verdict.of(
        judges.every_status("open-to-anybody", before["list"], 200, least=CALLS),
        judges.every_status("by-pod-address-functions-are-not-reached", before["function"], 503, least=CALLS),
        judges.every_status("by-the-gateway-they-are", before["gateway"], 200, least=CALLS),
        judges.refused("closed-by-the-policy", after["list"], control=before["list"], status=FORBIDDEN),
        judges.every_status("the-gateway-is-answered-all-the-same", after["gateway"], 200, least=CALLS),
    )


@pytest.fixture
def faas_of_ours(testbed: Testbed, faas: OpenFaasClient) -> OpenFaasClient:
    """OpenFaaS on a cluster of ours: on somebody else's its namespace is not ours to write to."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("OpenFaaS's namespace on an existing cluster is not ours to write policies to")
    return faas


@requirement("functions.openfaas-provider", level="MUST", judge=judge, alone=True)
def test_the_operator_is_asked_by_the_gateway_only(
    world: World, faas_of_ours: OpenFaasClient, served: Callable[..., None], intruder: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """The operator's interface answers anybody without a password and reaches no function of a STRICT namespace; a policy closes it, and the gateway goes on."""
    manifests.apply("openfaas_provider.before.yaml", image=processor_image)
    served(NAME)
    (pod,) = faas_of_ours.own_pods(GATEWAY)
    operator = f"http://{faas_of_ours.kube.get('Pod', pod, NAMESPACE)['status']['podIP']}:{PROVIDER_PORT}"
    urls = {
        "list": f"{operator}/system/functions?namespace={world.namespace}", "function": f"{operator}/function/{NAME}.{world.namespace}",
        "gateway": function_url(NAME, world.namespace),
    }

    def draws() -> dict[str, object]:
        return {name: intruder.draw(url, count=CALLS, fresh_connections=True) for name, url in urls.items()}

    def closed() -> None:
        status = intruder.draw(urls["list"], fresh_connections=True).records[0].status
        assert status == FORBIDDEN, f"answered {status}"

    before = draws()
    manifests.apply("openfaas_provider.yaml")
    # A policy of another namespace is not waited for; what is not closed is for the verdict to tell.
    with suppress(TimedOut):
        eventually(closed, within=CLOSED_WITHIN_S, every=0.2, consecutive=3)

    decide(before=before, after=draws())
