"""What a signature of the mesh's own authority is worth: not before a certificate's time, and not for another trust domain."""

from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from clusters.bringup import Testbed
from clusters.components.istio.authority import MeshAuthority
from clusters.kube import Kube
from clusters.timeouts import Timeouts
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.caller.tls import ClientTls
from workloads.credentials import Credential, issued
from workloads.fixtures import World
from workloads.greeter import greeter

CALLS = 3
MEMBER = "spiffe://cluster.local/ns/somewhere/sa/somebody"
STRANGER = "spiffe://another.domain/ns/somewhere/sa/somebody"
# Finding: Istio's CA dates its certificates two minutes back (security.certificates-rotation measures it). To a callee whose clock is five
# minutes late, one of now begins in three, and is refused until then with the same alert as one that has ended.
LATE_S, BACKDATED_S = 300, 120


def judge(evidence: Evidence) -> Verdict:
    """Signed by the same key: a certificate in its time is taken, one before its time and one of another trust domain are not."""
    draws = evidence["draws"]
    control = draws["in-its-time"]
    return Verdict.of(
        judges.taken("in-its-time-taken", control, MEMBER, control=draws["dated-back"], least=CALLS),
        judges.taken("dated-back-taken", draws["dated-back"], MEMBER, control=control, least=CALLS),
        judges.refused("before-its-time-refused", draws["before-its-time"], control=control, closed=("tls: expired certificate",)),
        # Finding: in the handshake already, before any policy is asked: sidecars take no other trust domain than their own and its aliases.
        judges.refused("another-trust-domain-refused", draws["another-trust-domain"], control=control, closed=("tls: unknown certificate",)),
    )


@pytest.fixture
def presented(testbed: Testbed, kube: Kube, timeouts: Timeouts) -> Mapping[str, ClientTls]:
    """Credentials that the mesh's own key has signed, which only the owner of a cluster can have made."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("the key of a mesh's authority is its owner's")
    own = Credential(*MeshAuthority(kube, timeouts).own())
    key = load_pem_private_key(own.key_pem.encode(), None)
    made = {
        "in-its-time": issued(MEMBER, own.leaf, key),
        # What a callee two minutes late, and one five minutes late, sees of a certificate that was issued just now.
        "dated-back": issued(MEMBER, own.leaf, key, starts_in_s=-1),
        "before-its-time": issued(MEMBER, own.leaf, key, starts_in_s=LATE_S - BACKDATED_S),
        "another-trust-domain": issued(STRANGER, own.leaf, key),
    }
    return {name: one.tls() for name, one in made.items()}


@requirement("security.certificates-signed", level="MUST", judge=judge)
def test_a_signature_alone_is_not_enough(
    presented: Mapping[str, ClientTls], intruder: Caller, world: World, manifests: Manifests, decide: Decide,
) -> None:
    """A certificate signed by the mesh's own authority is refused before its time and when it is of another trust domain."""
    world.deploy({"open-function": greeter("open-function", "v1")})
    manifests.apply("certificates_signed.yaml")

    decide(draws={name: intruder.draw(f"https://open-function.{world.namespace}:80/", count=CALLS, fresh_connections=True, tls=tls).to_json() for name, tls in presented.items()})
