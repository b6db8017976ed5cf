"""The installer and the readiness of the Jaeger operator."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from clusters.apiserver import ApiRefused
from clusters.components.istio.authority import key_pem
from clusters.components.jaeger_operator import manifests
from clusters.components.jaeger_operator.client import JAEGER
from clusters.components.jaeger_operator.manifests import LABEL, MODULE, NAMESPACE, OPERATOR, SECRET, WEBHOOK_HOST
from clusters.images.catalogue import gomod
from clusters.images.toolchain import module_sum
from clusters.kube import Kube
from clusters.manifests import load_upstream
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

GOMOD = "jaeger-operator"
LASTS = timedelta(days=3650)
# A kept cluster older than this would end its days in the middle of a run.
AT_LEAST = timedelta(days=30)
# A Jaeger that is never made: the API server asks both webhooks about it and forgets it.
_PROBE: dict[str, Any] = {"apiVersion": JAEGER.rpartition("/")[0], "kind": "Jaeger", "metadata": {"name": "is-the-webhook-serving"}, "spec": {"strategy": "allInOne"}}


@dataclass(frozen=True)
class JaegerOperator:
    """One operator for all namespaces, beside the mesh as everything that it installs.

    `image` returns what a node pulls for an image of the catalogue, `module` the folder of a Go module that a set locks: the manifests
    are read there when they are applied. Its webhooks know themselves by a certificate that is made here.
    """

    version: str
    image: Callable[[str], str]
    module: Callable[[str, str], Path]
    name: str = "jaeger-operator"
    namespace: str = NAMESPACE
    requires: tuple[str, ...] = ("istio",)

    def input_key(self) -> str:
        """Return a digest of the module, the images and what is made of them."""
        parts = [
            Path(manifests.__file__).read_text(), module_sum(gomod(GOMOD), MODULE),
            *(self.image(name) for name in ("jaeger-operator", "jaeger-all-in-one")),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:
        """Apply upstream's manifests, and the certificate that they leave to somebody else.

        Webhooks that an unfinished installation has left would refuse what is to mend it, so they are taken away first.

        Raises:
            UserError: the module or an image cannot be had, or the API server refused an object.

        """
        del timeouts  # nothing is awaited here
        with Kube.from_kubeconfig(cluster.kubeconfig, cluster.context) as kube, log.open("w") as out:
            kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}])
            bodies = manifests.prepared(
                self._upstream(), operator=self.image("jaeger-operator"), all_in_one=self.image("jaeger-all-in-one"), authority=_certificate(kube),
            )
            rest, webhooks = manifests.split(bodies)
            kube.delete(webhooks)
            for body in (*rest, *webhooks):
                print(f"apply {body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}", file=out, flush=True)
            kube.apply([*rest, *webhooks])

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Wait until a Jaeger would be taken: the operator runs, and its webhooks are believed."""
        kube.wait_deployment(self.namespace, OPERATOR, within=timeouts.deployment_available)

        def webhooks_serve() -> None:
            kube.apply([_PROBE], self.namespace, dry_run=True)

        eventually(webhooks_serve, within=timeouts.webhook_serving, consecutive=2, ignoring=(ApiRefused,), subject="the Jaeger operator's webhooks")

    def detect(self, kube: Kube) -> str | None:
        """Return the tag of the operator's image, in whichever namespace somebody installed it."""
        for deployment in kube.list("Deployment", None, ",".join(f"{name}={value}" for name, value in LABEL.items())):
            image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            return image.partition("@")[0].rpartition(":")[2]
        return None

    def _upstream(self) -> Iterator[manifests.Body]:
        root = self.module(GOMOD, MODULE)
        for pattern in manifests.FILES:
            for file in sorted(root.glob(pattern)):
                yield from (document.body for document in load_upstream(file))


def _certificate(kube: Kube) -> bytes:
    """Return the certificate (PEM) that the webhooks show, from the cluster where it has a lasting one, else new and stored there."""
    for secret in kube.list("Secret", NAMESPACE, fields=f"metadata.name={SECRET}"):
        pem = base64.b64decode(secret["data"]["tls.crt"])
        if x509.load_pem_x509_certificate(pem).not_valid_after_utc > datetime.now(UTC) + AT_LEAST:
            return pem
    pem, key = serving_certificate(WEBHOOK_HOST)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "type": "kubernetes.io/tls", "stringData": {"tls.crt": pem.decode(), "tls.key": key}}
    kube.apply([secret], NAMESPACE)
    return pem


def serving_certificate(host: str) -> tuple[bytes, str]:
    """Return a certificate (PEM) for one host, which is known by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + LASTS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), key_pem(key)
