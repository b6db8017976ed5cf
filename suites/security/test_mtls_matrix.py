"""Mutual TLS as a table: who is taken under which mode, by which scope of policy, and as whom the function sees it."""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from clusters.components.istio.authority import self_signed
from clusters.components.istio.client import IstioClient
from suites.support import judges, permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED, CLOSED, Case, Client, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.caller.tls import ClientTls
from workloads.credentials import Holder, await_end, issued
from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.greeter.client import Greeter
from workloads.records import Draw

CALLS = 5
HTTP_OK = 200
TRUST_DOMAIN = "cluster.local"
# Callers that present what they have by hand: a client beside the mesh that speaks TLS itself. The mesh certificate comes first of all:
# it is the only one that must not end before it is used.
BY_HAND = ("mesh-certificate", "mesh-certificate-without-alpn", "no-certificate", "ended-certificate", "foreign-certificate")
TRIED = (*BY_HAND, "member", "neighbour", "plaintext")
# Which callers each mode takes, of those that are tried; the others are closed on.
TAKEN = {
    "namespace-strict": (TRIED, {"mesh-certificate", "mesh-certificate-without-alpn", "member", "neighbour"}),
    # Finding: without one of the mesh's ALPN protocols a good certificate is of no use under PERMISSIVE, where it is under STRICT.
    "workload-permissive": (TRIED, {"mesh-certificate", "member", "neighbour", "plaintext"}),
    "port-strict": (TRIED, {"mesh-certificate", "mesh-certificate-without-alpn", "member", "neighbour"}),
    # The mesh's own clients come in plaintext, without an identity. TLS by hand is a claim of its own.
    "port-disabled": (("member-in-plaintext", "neighbour-in-plaintext", "plaintext"), {"member-in-plaintext", "neighbour-in-plaintext", "plaintext"}),
}
CASES = tuple(
    Case(f"{target}-from-{caller}", ALLOWED if caller in taken else CLOSED, caller=caller, target=target)
    for caller in (*TRIED, *TAKEN["port-disabled"][0][:2])
    for target, (tried, taken) in TAKEN.items() if caller in tried
)
# The alert that says why, to be found wherever TLS is spoken.
REASONS = {
    "no-certificate": "tls: certificate required",
    "ended-certificate": "tls: expired certificate",
    # Finding: the foreign authority bears the name of the mesh's (O=cluster.local), so its signature is tried, and found wrong.
    "foreign-certificate": "tls: error decrypting message",
}
# What Go says of a server that answers a handshake with HTTP's 400 in the clear.
NO_TLS = ("first record does not look like a TLS handshake",)


class Presenting(Caller):
    """A caller that presents something by hand: it calls the same address, by TLS."""

    def __init__(self, through: Caller, tls: ClientTls) -> None:
        self._through = through
        self._tls = tls

    def draw(self, url: str, **order: Any) -> Draw:
        """Make the draw over TLS on the port of the plain address."""
        scheme, _, host = url.partition("://")
        return self._through.draw(f"{scheme}s://{host}:80", tls=self._tls, **order)


def judge(evidence: Evidence) -> Verdict:
    """Each caller is taken or closed on as the mode of the narrowest policy says, and seen as who it is; TLS is never spoken halfway."""
    trial, identities = evidence["trial"], evidence["identities"]
    draws = trial["draws"]
    return Verdict.of(
        *permissions.claims(CASES, trial),
        *(
            judges.taken(f"{case.target}-sees-{case.caller}", draws.get(case.name, {}), identities.get(case.caller, ""), control=_answered(draws, but=case))
            for case in CASES if case.expected.reaches
        ),
        *(_refused_because(caller, alert, draws) for caller, alert in REASONS.items()),
        judges.refused("port-disabled-speaks-no-tls", evidence["tls_to_plaintext"], control=draws.get("port-disabled-from-plaintext", {}), closed=NO_TLS),
        judges.refused("client-in-plaintext-refused", evidence["told_plaintext"], control=evidence["told_mutual"], status=503),
        judges.every_status("client-by-mutual-tls-answered", evidence["told_mutual"], HTTP_OK, least=CALLS),
        judges.peer_identity("client-by-mutual-tls-seen", evidence["told_mutual"], identities["member"], least=CALLS),
    )


def _answered(draws: Mapping[str, judges.Draw], but: Case) -> judges.Draw:
    """Return the draws of a case's target that were answered throughout, as one, but not the case's own."""
    return judges.joined({
        case.name: draws[case.name] for case in CASES
        if case.target == but.target and case.name in draws and case != but and all(record["status"] == HTTP_OK for record in draws[case.name]["records"])
    })


def _refused_because(caller: str, alert: str, draws: Mapping[str, judges.Draw]) -> Claim:
    mine = {name: draw for name, draw in draws.items() if name.endswith(f"-from-{caller}")}
    return judges.all_refused(f"{caller}-is-told-why", mine, control=draws.get("port-strict-from-mesh-certificate", {}), closed=(alert,))


@pytest.fixture(scope="module")
def targets(world: World) -> dict[str, Target]:
    """Two functions: one under the namespace's policy alone, one with a policy of its own and three ports that it serves alike."""
    world.deploy({
        "open-function": greeter("open-function", "v1"),
        "ported-function": greeter("ported-function", "v1", env={"PORT": "8080,8081,8082"}),
    })
    strict, ported = (Greeter(world.kube, world.namespace, world.pod(name)) for name in ("open-function", "ported-function"))
    hosts = {"namespace-strict": ("open-function", strict), "workload-permissive": ("ported-function", ported), "port-strict": ("port-strict", ported), "port-disabled": ("port-disabled", ported)}
    return {name: Target(f"http://{host}.{world.namespace}", function) for name, (host, function) in hosts.items()}


@requirement("security.mtls-matrix", level="MUST", judge=judge)
def test_the_narrowest_mode_decides_who_is_taken(
    targets: dict[str, Target], caller: Caller, intruder: Caller, holder: Holder,
    istio: IstioClient, world: World, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """Who is taken without, with a good, an ended and a foreign certificate follows from the mode of the port, else the workload's, else the namespace's."""
    identities = {"member": f"spiffe://{TRUST_DOMAIN}/ns/{world.namespace}/sa/caller"} | dict.fromkeys(
        ("neighbour", "mesh-certificate", "mesh-certificate-without-alpn"), f"spiffe://{TRUST_DOMAIN}/ns/{holder.caller.namespace}/sa/holder",
    )
    foreign = issued(identities["neighbour"], *self_signed(TRUST_DOMAIN, lasts=timedelta(hours=1)))
    manifests.apply("mtls_matrix.yaml")
    istio.await_propagation(holder.caller.namespace, [holder.caller.pod], ["Service"], time.monotonic())
    for target in targets.values():
        intruder.await_service(target.url, within=istio.timeouts.propagation)
    await_end(holder.first)

    good = holder.credential()
    presented = {
        "mesh-certificate": good.tls(), "mesh-certificate-without-alpn": ClientTls(good.chain_pem, good.key_pem, alpn=()), "no-certificate": ClientTls(),
        "ended-certificate": holder.first.tls(), "foreign-certificate": foreign.tls(),
    }
    by_hand = {name: Client(Presenting(intruder, tls), identities.get(name, "")) for name, tls in presented.items()}
    clients = {
        **by_hand, "member": Client(caller, identities["member"]), "neighbour": Client(holder.caller, identities["neighbour"]),
        "member-in-plaintext": Client(caller), "neighbour-in-plaintext": Client(holder.caller), "plaintext": Client(intruder),
    }
    tls_to_plaintext = by_hand["mesh-certificate"].caller.draw(targets["port-disabled"].url, count=CALLS)
    trial = permissions.try_all(CASES, clients, targets, istio, audited=audited, keep_seen=("host", "x-forwarded-client-cert"))
    told_plaintext, told_mutual = (caller.draw(f"http://{host}/", count=CALLS) for host in ("asked-in-plaintext", "asked-by-mutual-tls"))

    decide(
        trial=trial, identities=identities, certificates={"good": good.to_json(), "ended": holder.first.to_json(), "foreign": foreign.to_json()},
        tls_to_plaintext=tls_to_plaintext, told_plaintext=told_plaintext, told_mutual=told_mutual,
    )
