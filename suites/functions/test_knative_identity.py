"""Whom a Knative function sees: the activator or the gateway, and its caller only past both, who therefore can hardly be named in a policy."""

from collections.abc import Iterator

from clusters.components.knative.client import local_host
from clusters.components.knative.manifests import GATEWAY_API
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.records import Draw

# A policy is right or wrong for every request alike.
CALLS = 10
DOMAIN = "cluster.local"
ACTIVATOR = f"{DOMAIN}/ns/knative-serving/sa/activator"
GATEWAY = f"{DOMAIN}/ns/istio-system/sa/istio-ingressgateway-service-account"
SPIFFE = "spiffe://"


# Finding: a call of a Knative function ends twice on its way, at the gateway (in plain text: its port for the cluster's own callers speaks no
# TLS, so it does not even know them) and, with spare capacity wanted, at the activator. STRICT holds at the function and says nothing of its
# callers: a policy that names them refuses them all, and one that lets the function be called at all lets everybody call it. The
# revision's private Service is a way round both, on which the caller's own certificate is seen; a policy that names the activator closes it.
# Finding: through net-istio a caller's own proxy takes the gateway's part. A policy can name the caller, and refuses it all the same as soon
# as Knative puts the activator into the path: at a scale from zero, or when capacity is short.
def judge(evidence: Evidence) -> Verdict:
    """Under a policy for the caller only the way round is open, and the way past gateway and activator; under those for the two, only theirs."""
    caller, activator = evidence["caller"], evidence["activator"]
    own = evidence["principal"]
    of_direct = called_by_the_gateway if evidence["ingress"] == GATEWAY_API.name else called_by_the_caller
    return Verdict.of(
        judges.refused("caller-s-own-name-is-no-use", caller["relayed"], control=caller["round-relayed"], status=403),
        judges.peer_identity("way-round-keeps-the-name", judges.joined({one: caller[one] for one in ("round-relayed", "round-direct")}), SPIFFE + own, least=2 * CALLS),
        judges.peer_identity("relayed-comes-from-the-activator", activator["relayed"], SPIFFE + ACTIVATOR, least=CALLS),
        judges.refused("gateway-s-function-refuses-the-activator", activator["direct"], control=activator["relayed"], status=403),
        judges.refused("way-round-closed", activator["round-relayed"], control=activator["relayed"], status=403),
        *of_direct(evidence),
    )


def called_by_the_gateway(evidence: Evidence) -> Iterator[Claim]:
    """Claim that past the activator there still is the gateway, whose name the function sees."""
    caller, gateway = evidence["caller"], evidence["gateway"]
    yield judges.refused("nor-without-the-activator", caller["direct"], control=caller["round-direct"], status=403)
    yield judges.peer_identity("direct-comes-from-the-gateway", gateway["direct"], SPIFFE + GATEWAY, least=CALLS)
    yield judges.refused("activator-s-function-refuses-the-gateway", gateway["relayed"], control=gateway["direct"], status=403)


def called_by_the_caller(evidence: Evidence) -> Iterator[Claim]:
    """Claim that past the activator there is nobody: the function sees its caller's own name, and the gateway's is no use."""
    caller, gateway = evidence["caller"], evidence["gateway"]
    yield judges.peer_identity("direct-comes-from-the-caller", caller["direct"], SPIFFE + evidence["principal"], least=CALLS)
    yield judges.refused("gateway-is-not-in-the-path", gateway["direct"], control=caller["direct"], status=403)


@requirement("functions.knative-caller-identity", level="MUST", judge=judge)
def test_a_function_sees_who_relayed_the_call(
    world: World, knative_ingress: str, standing: dict[str, str], caller: Caller, manifests: Manifests, decide: Decide,
) -> None:
    """A Knative function under STRICT sees the activator's identity; where the activator is not in the path it sees the gateway's through the Gateway API, and its caller's own through net-istio.

    A policy that names a caller who is not seen refuses it, unless it calls the revision's private Service, which a policy for the activator closes.
    """
    own = f"{DOMAIN}/ns/{world.namespace}/sa/caller"
    ways = {
        **{name: f"http://{local_host(name, world.namespace)}/" for name in standing},
        **{f"round-{name}": f"http://{revision}-private.{world.namespace}/" for name, revision in standing.items()},
    }

    def each(principal: str) -> dict[str, Draw]:
        manifests.apply("knative_identity.yaml", principal=principal)
        return {name: caller.draw(url, count=CALLS) for name, url in ways.items()}

    decide(ingress=knative_ingress, principal=own, caller=each(own), activator=each(ACTIVATOR), gateway=each(GATEWAY))
