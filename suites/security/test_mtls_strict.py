"""Mutual TLS: a STRICT PeerAuthentication takes requests with a mesh certificate only."""

import uuid

import pytest

from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.wiretap.client import Wiretap, analyse

# Whether a connection is taken is decided by the listener's configuration, not by chance; each call makes its own.
CALLS = 20
PORT = 8080


def judge(evidence: Evidence) -> Verdict:
    """STRICT: identity seen, plaintext refused, bytes encrypted. PERMISSIVE, the control: both taken, plaintext visible."""
    identity = evidence["identity"]
    strict, permissive = evidence["strict"], evidence["permissive"]
    return Verdict.of(
        judges.peer_identity("member-identity-seen", strict["member"], identity, least=CALLS),
        judges.refused("plaintext-refused", strict["plaintext"], control=strict["member"]),
        judges.encrypted("encrypted-on-the-wire", strict["wire"]),
        judges.peer_identity("control-member-identity-seen", permissive["member"], identity, least=CALLS),
        judges.no_peer_identity("control-plaintext-taken", permissive["plaintext"], least=CALLS),
        judges.plaintext("control-plaintext-visible", permissive["wire"]),
    )


@pytest.fixture(scope="module")
def function(world: World) -> str:
    """A function whose network namespace is shared with a capture; returns its address."""
    world.deploy({"tapped-function": greeter("tapped-function", "v1", wiretap=True)})
    return "http://tapped-function/api/users"


@requirement("security.mtls-strict", level="MUST", judge=judge)
def test_only_mesh_certificates_are_taken(
    function: str, caller: Caller, intruder: Caller, world: World, manifests: Manifests, decide: Decide,
) -> None:
    """Under STRICT a function sees its caller's SPIFFE identity, a plaintext caller is refused, and the bytes on the wire are TLS."""
    wiretap = Wiretap(world.kube, world.namespace, world.pod("tapped-function"))

    def observe(tapped: Caller) -> dict[str, object]:
        nonce, mark = uuid.uuid4().hex, wiretap.mark()
        member, plaintext = (
            client.draw(function, count=CALLS, headers=[("x-nonce", nonce)] if client is tapped else [], fresh_connections=True)
            for client in (caller, intruder)
        )
        wire = analyse(wiretap.since(mark), PORT, nonce.encode(), peer=world.address(tapped.pod))
        return {"member": member, "plaintext": plaintext, "wire": wire}

    manifests.apply("mtls_strict.control.yaml")
    permissive = observe(tapped=intruder)
    manifests.apply("mtls_strict.yaml")
    strict = observe(tapped=caller)

    decide(identity=f"spiffe://cluster.local/ns/{world.namespace}/sa/caller", permissive=permissive, strict=strict)
