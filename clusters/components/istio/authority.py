"""The mesh's certificate authority, on a cluster of ours: which key istiod signs with, and which roots it hands out."""

import base64
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from clusters.apiserver import NotFound
from clusters.components.istio.client import CONTROL_PLANE, SIDECAR
from clusters.kube import ExecFailed, Kube
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

# The Secret that istiod makes when it signs with a root of its own, and the one that makes it sign with somebody's.
OWN = "istio-ca-secret"
PLUGGED_IN = "cacerts"
# The ConfigMap by which istiod gives every namespace the roots that it is known by. Finding: only the leader of several istiods writes it,
# and a new one may take a quarter of a minute to become the leader.
PUBLISHED = "istio-ca-root-cert"
# Where a sidecar's agent reads the roots by which it knows istiod.
MOUNTED_ROOTS = "/var/run/secrets/istio/root-cert.pem"
PODS_AT_ONCE = 4
SYNCED = "faasmesh.dev/synced-at"


@dataclass(frozen=True)
class Pod:
    """A pod with a proxy, whose agent must know istiod again whenever the roots change."""

    namespace: str
    name: str


@dataclass(frozen=True)
class MeshAuthority:
    """Changes what istiod signs with, as upstream describes it for plugged-in certificates: the Secret `cacerts`, whose files istiod watches.

    A root may only be added to or taken from those that are in force (ISTIO_MULTIROOT_MESH; Istio, pilot/pkg/bootstrap/istio_ca.go,
    handleEvent). The kubelet brings changed Secrets and ConfigMaps into a pod within a minute or so, or at once when the pod's annotations
    change; that is what `synced` is for.
    """

    kube: Kube
    timeouts: Timeouts

    def own(self) -> tuple[str, str]:
        """Return certificate and key (PEM) that istiod made for itself. Keys stay out of evidence and messages."""
        data = self.kube.get("Secret", OWN, CONTROL_PLANE)["data"]
        return _decoded(data, "ca-cert.pem"), _decoded(data, "ca-key.pem")

    def plug_in(self, certificate_pem: str, key_pem: str, roots_pem: str) -> None:
        """Give istiod this signer and these roots for its next start."""
        files = {"ca-cert.pem": certificate_pem, "ca-key.pem": key_pem, "cert-chain.pem": certificate_pem, "root-cert.pem": roots_pem}
        self.kube.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": PLUGGED_IN}, "stringData": files}], CONTROL_PLANE)

    def start_anew(self, *, several_roots: bool) -> None:
        """Replace istiod's pod by one that takes a change of roots, or by one that does not, and wait for it."""
        environment = {"env": [{"name": "ISTIO_MULTIROOT_MESH", "value": "true"}]} if several_roots else {}
        self.kube.apply([{
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "istiod"},
            "spec": {"template": {"metadata": {"annotations": {SYNCED: str(time.time())}}, "spec": {"containers": [{"name": "discovery", **environment}]}}},
        }], CONTROL_PLANE)
        self.kube.wait_deployment(CONTROL_PLANE, "istiod", self.timeouts.deployment_available)

    def synced(self, pods: Iterable[Pod] = ()) -> None:
        """Have the kubelet look after the files of these pods now, or of istiod's when none are named."""
        for pod in tuple(pods) or self._istiods():
            said = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod.name, "annotations": {SYNCED: str(time.time())}}}
            self.kube.apply([said], pod.namespace)

    def await_known(self, pods: Sequence[Pod], roots_pem: str) -> None:
        """Return once these pods' agents would know an istiod of any of the roots; TimedOut names the namespace or the pod that lacks one."""
        wanted = _certificates(roots_pem)
        for namespace in sorted({pod.namespace for pod in pods}):
            eventually(
                partial(self._assert_published, namespace, wanted), within=self.timeouts.propagation, every=1, ignoring=(NotFound,),
                subject=f"roots not published in {namespace}",
            )
        with ThreadPoolExecutor(PODS_AT_ONCE) as pool:
            list(pool.map(partial(self._await_mounted, wanted), pods))

    def restore(self, pods: Sequence[Pod]) -> None:
        """Bring back what istiod made for itself.

        First beside what is in force, so that no agent is ever without a root by which it knows istiod; then istiod starts anew, without
        the Secret.
        """
        try:
            self._add_own(pods)
        finally:
            self.kube.delete_one("Secret", PLUGGED_IN, CONTROL_PLANE)
            self.start_anew(several_roots=False)

    def _add_own(self, pods: Sequence[Pod]) -> None:
        """Have istiod sign with its own and trust what is in force besides, and wait until these pods' agents would know it."""
        if not self.plugged_in():
            return
        certificate, key = self.own()
        roots = _decoded(self.kube.get("Secret", PLUGGED_IN, CONTROL_PLANE)["data"], "root-cert.pem")
        self.plug_in(certificate, key, roots if certificate in roots else certificate + roots)
        self.await_known(pods, certificate)

    def plugged_in(self) -> bool:
        """Tell whether somebody's certificates are plugged in, as by a run that was killed."""
        return any(secret["metadata"]["name"] == PLUGGED_IN for secret in self.kube.list("Secret", CONTROL_PLANE))

    def _istiods(self) -> tuple[Pod, ...]:
        found = self.kube.pods(CONTROL_PLANE, "app=istiod")
        return tuple(Pod(CONTROL_PLANE, str(pod["metadata"]["name"])) for pod in found if "deletionTimestamp" not in pod["metadata"])

    def _assert_published(self, namespace: str, wanted: set[str]) -> None:
        self.synced()
        published = _certificates(self.kube.get("ConfigMap", PUBLISHED, namespace)["data"]["root-cert.pem"])
        assert wanted <= published, f"{len(wanted - published)} of {len(wanted)} roots are missing"

    def _await_mounted(self, wanted: set[str], pod: Pod) -> None:
        def mounted() -> None:
            # Asked each time: a kubelet that has not yet heard of the change itself would look again only a minute later.
            self.synced([pod])
            known = _certificates(self.kube.exec(pod.name, pod.namespace, SIDECAR, ["cat", MOUNTED_ROOTS]))
            # Counted, for a certificate more or less says nothing to a reader.
            assert not wanted - known, f"{len(wanted - known)} of {len(wanted)} roots are missing"

        eventually(mounted, within=self.timeouts.propagation, every=1, ignoring=(ExecFailed,), subject=f"roots not in pod {pod.namespace}/{pod.name}")


def _certificates(pem: str) -> set[str]:
    """Return the certificates of a PEM file, each without line breaks."""
    return {"".join(part.partition("-----END CERTIFICATE-----")[0].split()) for part in pem.split("-----BEGIN CERTIFICATE-----")[1:]}


def _decoded(data: Mapping[str, str], name: str) -> str:
    return base64.b64decode(data[name]).decode()
