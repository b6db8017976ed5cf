"""The mesh's root: replaced under traffic, with both roots trusted in between."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from clusters.apiserver import ApiRefused
from clusters.bringup import Testbed
from clusters.components.istio.authority import MeshAuthority, Pod, key_pem, self_signed
from clusters.components.istio.client import SIDECAR, IstioClient
from clusters.kube import ExecFailed, Kube
from clusters.timeouts import Timeouts
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads import credentials
from workloads.caller import caller as caller_objects
from workloads.caller.client import Caller
from workloads.credentials import Credential, serial_of, short_lived
from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.records import Draw

CALLS = 5
# Of the steady traffic: a draw of a second and a half is what has to end before the check can.
RATE_PER_S, CALLS_AT_ONCE, MOST_DRAWS = 10, 15, 200
OLD, NEW = "old", "new"
# Who signs, and whether a certificate of either root is taken, at each stage.
STAGES = {
    "before": (OLD, {OLD: True, NEW: False}),
    "introduced": (OLD, {OLD: True, NEW: True}),
    "signing": (NEW, {OLD: True, NEW: True}),
    "retired": (NEW, {OLD: False, NEW: True}),
}


def judge(evidence: Evidence) -> Verdict:
    """No call of the members fails, each stage signs with and takes what it should, and a member that never renewed is left behind."""
    stages, member = evidence["stages"], evidence["member"]
    return Verdict.of(
        judges.no_failures("no-request-fails", judges.joined(evidence["traffic"])),
        *(claim for name, (signer, taken) in STAGES.items() for claim in _of_stage(name, stages.get(name, {}), signer, taken, member)),
        judges.every_status("never-renewed-is-answered-before", stages.get("before", {}).get("never-renewed", {}), 200, least=CALLS),
        # Finding: what has not renewed knows nothing of the new root, so whoever is to be reached throughout must renew (a restart does it)
        # between the introduction of a root and its first signature. By default that is up to twelve hours.
        judges.refused("never-renewed-is-cut-off", stages.get("signing", {}).get("never-renewed", {}), control=stages.get("signing", {}).get("members", {}), status=503),
    )


def _of_stage(name: str, stage: Mapping[str, Any], signer: str, taken: Mapping[str, bool], member: str) -> Iterator[Claim]:
    """Claim of a stage who signed both members' certificates, that they talk, and which root's certificates are taken beside them."""
    signers = stage.get("signers", {})
    if not signers:
        yield Claim(f"{name}-signed-by", None, "nobody looked at the certificates")
    else:
        yield Claim(f"{name}-signed-by", held=set(signers.values()) == {signer}, said=f"signed by the root: {signers}", expected=f"the {signer} root", got=str(signers))
    members = stage.get("members", {})
    yield judges.peer_identity(f"{name}-members-talk", members, member, least=CALLS)
    for root, wanted in taken.items():
        draw = stage.get(root, {})
        yield judges.taken(f"{name}-{root}-root", draw, member, control=members, least=CALLS) if wanted else judges.refused(f"{name}-{root}-root", draw, control=members)


@pytest.fixture(scope="module")
def members(world: World) -> dict[str, Pod]:
    """A caller and a function with certificates of a minute that are renewed every three seconds: they hear of a new root soon."""
    world.deploy({
        "patient-caller": short_lived(caller_objects("patient-caller"), ttl_s=60, grace_ratio=0.95),
        "patient-function": short_lived(greeter("patient-function", "v1"), ttl_s=60, grace_ratio=0.95),
    })
    return {name: Pod(world.namespace, world.pod(name)) for name in ("patient-caller", "patient-function")}


@pytest.fixture
def mesh_authority(testbed: Testbed, kube: Kube, istio: IstioClient, timeouts: Timeouts, members: dict[str, Pod]) -> Iterator[MeshAuthority]:
    """The mesh's authority, which takes another signer and other roots for a while; afterwards it signs with its own again, and every proxy knows its peers by that alone."""
    del members  # to be there before anything changes
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("the root of a mesh is changed on a cluster of ours only")
    authority = MeshAuthority(kube, timeouts)
    own = serial_of(Credential(*authority.own()).leaf)

    def own_alone() -> None:
        known = {f"{pod.namespace}/{pod.name}": istio.trusted_roots(pod.namespace, pod.name) for pod in _proxies(kube)}
        others = [name for name, roots in known.items() if roots != {own}]
        assert not others, f"{', '.join(others)} trust another root"

    def restored() -> None:
        authority.restore(_proxies(kube))
        # Certificates of seconds, which the other root has signed, are renewed first.
        eventually(own_alone, within=timeouts.propagation, every=0.5, ignoring=(ApiRefused, ExecFailed), subject="the own root is not back everywhere")

    # A run that was killed has left its own.
    restored()
    yield authority
    restored()


# Every member renews three times, and the mesh comes back in two steps.
@pytest.mark.slow
@requirement("security.certificates-root", level="MUST", judge=judge, alone=True)
def test_the_root_is_replaced_under_traffic(
    members: dict[str, Pod], caller: Caller, intruder: Caller, mesh_authority: MeshAuthority,
    kube: Kube, world: World, manifests: Manifests, decide: Decide,
) -> None:
    """The mesh's root is replaced without a failed request while both are trusted in between, and the old one's certificates are refused at the end."""
    host, member = f"patient-function.{world.namespace}", f"spiffe://cluster.local/ns/{world.namespace}/sa/patient-caller"
    renewing = Caller(kube, world.namespace, members["patient-caller"].name)
    roots = {OLD: Credential(*mesh_authority.own()), NEW: _another()}
    by_hand = {root: credentials.issued(member, *_signer(one)).tls() for root, one in roots.items()}
    manifests.apply("certificates_root.yaml")
    plan = kube.get("ConfigMap", "stages-of-a-root", world.namespace)["data"]

    def observed(signer: str, trusted: str) -> dict[str, Any]:
        return {
            "signers": _renewed(mesh_authority, members, roots, signer, trusted), "members": renewing.draw(f"http://{host}/", count=CALLS), "never-renewed": caller.draw(f"http://{host}/", count=CALLS),
            **{root: intruder.draw(f"https://{host}:80/", count=CALLS, fresh_connections=True, tls=tls) for root, tls in by_hand.items()},
        }

    def entered(stage: str) -> dict[str, Any]:
        signer, trusted = plan[stage].split()
        mesh_authority.plug_in(roots[signer].chain_pem, roots[signer].key_pem, "".join(roots[root].chain_pem for root in trusted.split("+")))
        return observed(signer, trusted)

    with _steadily(renewing, f"http://{host}/") as traffic:
        stages = {"before": observed(OLD, OLD), **{stage: entered(stage) for stage in ("introduced", "signing", "retired")}}

    decide(member=member, plan=dict(plan), stages=stages, traffic={str(number): draw for number, draw in enumerate(traffic)})


@contextmanager
def _steadily(client: Caller, url: str) -> Iterator[list[Draw]]:
    """Have a client call while the block lasts, one draw after the other; the list is complete when the block has ended."""
    ended, drawn = threading.Event(), list[Draw]()

    def calling() -> None:
        for _ in range(MOST_DRAWS):
            if ended.is_set():
                return
            drawn.append(client.draw(url, count=CALLS_AT_ONCE, rate_per_s=RATE_PER_S, keep_headers=[], keep_seen=[]))

    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(calling)
        try:
            yield drawn
        finally:
            ended.set()
            under_way.result()


def _renewed(authority: MeshAuthority, members: Mapping[str, Pod], roots: Mapping[str, Credential], signer: str, trusted: str) -> dict[str, str]:
    """Return which root signed each member's certificate once that is `signer`, and each trusts just the roots of `trusted`; or who did in the end.

    Finding: a member that was not given the new root before istiod itself is known by it cannot renew at all.
    """
    names = {one.leaf.subject: root for root, one in roots.items()}
    signers: dict[str, str] = {}

    def renewed() -> None:
        # The kubelet looks after changed files once a minute; asked too early, it has not heard of the change itself.
        authority.synced()
        held = {name: credentials.held_by(authority.kube, pod.namespace, pod.name) for name, pod in members.items()}
        signers.update({name: names.get(one.leaf.issuer, "another") for name, one in held.items()})
        known = {name: {names.get(each.subject, "another") for each in x509.load_pem_x509_certificates(one.roots_pem.encode())} for name, one in held.items()}
        assert set(signers.values()) == {signer}, f"signed by {signers}, not by {signer}"
        assert all(each == set(trusted.split("+")) for each in known.values()), f"they trust {known}, not {trusted}"

    with suppress(TimedOut):
        eventually(renewed, within=authority.timeouts.propagation, every=1, ignoring=(ExecFailed,), subject="members not renewed")
    return signers


def _proxies(kube: Kube) -> list[Pod]:
    """Return every pod with a proxy that is running: on a cluster of ours that is the mesh."""
    return [
        Pod(str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"])) for pod in kube.list("Pod")
        if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Running"
        and any(one["name"] == SIDECAR for one in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])))
    ]


def _another() -> Credential:
    """Return a root of ours, by another name: where two roots have one name, Envoy tries the first only."""
    root, key = self_signed("faasmesh's next root", lasts=timedelta(hours=1))
    return Credential(root.public_bytes(Encoding.PEM).decode(), key_pem(key))


def _signer(root: Credential) -> tuple[x509.Certificate, Any]:
    """Return what signs with a root."""
    return root.leaf, load_pem_private_key(root.key_pem.encode(), None)
