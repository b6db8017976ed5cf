"""The mesh's certificate authority, on a cluster of ours: which key istiod signs with, and which roots it hands out."""

import base64
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from clusters.apiserver import NotFound
from clusters.components.istio.client import CONTROL_PLANE, SIDECAR
from clusters.kube import ExecFailed, Kube
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

# The Secret in which an istiod without anybody's certificates keeps a root of its own, and the one that makes it sign with somebody's. The
# testbed's root is in both: the first says what to come back to when the second was changed.
OWN = "istio-ca-secret"
PLUGGED_IN = "cacerts"
ORGANIZATION = "cluster.local"
# As Istio's own (pilot/pkg/bootstrap/istio_ca.go, CITADEL_SELF_SIGNED_CA_CERT_TTL).
LASTS = timedelta(days=3650)
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

    def establish(self) -> None:
        """Give a mesh that is about to be installed a root of its own, plugged in as upstream advises for production.

        Finding: istiod takes a change of what it was given only when it was given something as it started, so it is given this from the first.
        """
        if not self._has(OWN):
            certificate, key = self_signed(ORGANIZATION, lasts=LASTS)
            files = {"ca-cert.pem": certificate.public_bytes(Encoding.PEM).decode(), "ca-key.pem": key_pem(key)}
            self.kube.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": OWN}, "type": "istio.io/ca-root", "stringData": files}], CONTROL_PLANE)
        if not self._has(PLUGGED_IN):
            certificate_pem, own_key = self.own()
            self.plug_in(certificate_pem, own_key, certificate_pem)

    def own(self) -> tuple[str, str]:
        """Return certificate and key (PEM) of the mesh's own root. Keys stay out of evidence and messages."""
        data = self.kube.get("Secret", OWN, CONTROL_PLANE)["data"]
        return _decoded(data, "ca-cert.pem"), _decoded(data, "ca-key.pem")

    def plug_in(self, certificate_pem: str, key_pem: str, roots_pem: str) -> None:
        """Give istiod this signer and these roots; it takes them when it sees its files change."""
        files = {"ca-cert.pem": certificate_pem, "ca-key.pem": key_pem, "cert-chain.pem": certificate_pem, "root-cert.pem": roots_pem}
        self.kube.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": PLUGGED_IN}, "stringData": files}], CONTROL_PLANE)

    def synced(self, pods: Iterable[Pod] = ()) -> None:
        """Have the kubelet look after the files of these pods now, or of istiod's when none are named."""
        for pod in tuple(pods) or self._istiods():
            said = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod.name, "annotations": {SYNCED: str(time.time())}}}
            self.kube.apply([said], pod.namespace)

    def restore(self, pods: Sequence[Pod]) -> None:
        """Bring back the mesh's own root alone, where it is not: first beside what is in force, so that no agent is ever without a root by which it knows istiod.

        Raises:
            TimedOut: a namespace or one of these pods was not given the own root, which istiod signs with by then; or another one is still published.

        """
        certificate, key = self.own()
        roots = self._plugged_in("root-cert.pem")
        if (self._plugged_in("ca-cert.pem"), roots) == (certificate, certificate):
            return
        self.plug_in(certificate, key, roots if certificate in roots else certificate + roots)
        wanted = _certificates(certificate)
        for namespace in sorted({pod.namespace for pod in pods}):
            self._eventually_published(partial(self._assert_published, namespace, wanted), namespace)
        with ThreadPoolExecutor(PODS_AT_ONCE) as pool:
            list(pool.map(partial(self._await_mounted, wanted), pods))
        self.plug_in(certificate, key, certificate)
        self._eventually_published(partial(self._assert_published_alone, CONTROL_PLANE, wanted), CONTROL_PLANE)

    def _istiods(self) -> tuple[Pod, ...]:
        found = self.kube.pods(CONTROL_PLANE, "app=istiod")
        return tuple(Pod(CONTROL_PLANE, str(pod["metadata"]["name"])) for pod in found if "deletionTimestamp" not in pod["metadata"])

    def _has(self, secret: str) -> bool:
        return any(one["metadata"]["name"] == secret for one in self.kube.list("Secret", CONTROL_PLANE))

    def _plugged_in(self, file: str) -> str:
        return _decoded(self.kube.get("Secret", PLUGGED_IN, CONTROL_PLANE)["data"], file)

    def _eventually_published(self, published: Callable[[], None], namespace: str) -> None:
        eventually(published, within=self.timeouts.propagation, every=1, ignoring=(NotFound,), subject=f"roots not published in {namespace}")

    def _assert_published(self, namespace: str, wanted: set[str]) -> None:
        missing = wanted - self._published(namespace)
        assert not missing, f"{len(missing)} of {len(wanted)} roots are missing"

    def _assert_published_alone(self, namespace: str, wanted: set[str]) -> None:
        published = self._published(namespace)
        assert published == wanted, f"{len(wanted - published)} of {len(wanted)} roots are missing, {len(published - wanted)} others are there"

    def _published(self, namespace: str) -> set[str]:
        self.synced()
        return _certificates(self.kube.get("ConfigMap", PUBLISHED, namespace)["data"]["root-cert.pem"])

    def _await_mounted(self, wanted: set[str], pod: Pod) -> None:
        def mounted() -> None:
            # Asked each time: a kubelet that has not yet heard of the change itself would look again only a minute later.
            self.synced([pod])
            known = _certificates(self.kube.exec(pod.name, pod.namespace, SIDECAR, ["cat", MOUNTED_ROOTS]))
            # Counted, for a certificate more or less says nothing to a reader.
            assert not wanted - known, f"{len(wanted - known)} of {len(wanted)} roots are missing"

        eventually(mounted, within=self.timeouts.propagation, every=1, ignoring=(ExecFailed,), subject=f"roots not in pod {pod.namespace}/{pod.name}")


def self_signed(organization: str, *, lasts: timedelta) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate authority by that name, valid from an hour ago; Istio's own is called by its trust domain."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + lasts)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
            key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        ), critical=True)
    )
    return built.sign(key, SHA256()), key


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a key in the form that Istio reads."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def _certificates(pem: str) -> set[str]:
    """Return the certificates of a PEM file, each without line breaks."""
    return {"".join(part.partition("-----END CERTIFICATE-----")[0].split()) for part in pem.split("-----BEGIN CERTIFICATE-----")[1:]}


def _decoded(data: Mapping[str, str], name: str) -> str:
    return base64.b64decode(data[name]).decode()
