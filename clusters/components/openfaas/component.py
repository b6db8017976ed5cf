"""The installer and the readiness of OpenFaaS."""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clusters.apiserver import NotFound
from clusters.components.openfaas import manifests
from clusters.components.openfaas.manifests import CREDENTIALS, DEPLOYMENTS, FIRST, GATEWAY, GOMOD, IMAGES, MODULE, NAMESPACE
from clusters.images.catalogue import gomod
from clusters.images.toolchain import module_sum
from clusters.kube import Kube
from clusters.manifests import load_manifest, load_upstream
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

MESH = Path(__file__).parent / "manifests" / "mesh.yaml"
USER = "admin"


@dataclass(frozen=True)
class OpenFaas:
    """Gateway, operator, queue and worker in the mesh, basic auth on; functions in any namespace, STRICT in the default one.

    `image` returns what a node pulls for an image of the catalogue, `module` the folder of a Go module that a set locks: the manifests
    are read there when they are applied.
    """

    version: str
    image: Callable[[str], str]
    module: Callable[[str, str], Path]
    name: str = "openfaas"
    namespace: str = NAMESPACE
    requires: tuple[str, ...] = ("istio",)

    def input_key(self) -> str:
        """Return a digest of the module, the images and what is made of them."""
        parts = [
            self.version, Path(manifests.__file__).read_text(), MESH.read_text(), f"{module_sum(gomod(GOMOD), MODULE)} {manifests.FILES}",
            *(self.image(name) for name in IMAGES.values()),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:
        """Apply upstream's manifests, the queue first: gateway and worker give up where it does not answer.

        Raises:
            UserError: the module cannot be had, or the API server refused an object.

        """
        bodies = manifests.prepared(self._upstream(), image=self.image)
        first, late = manifests.split(bodies)
        mesh = [document.body for document in load_manifest(MESH)]
        with Kube.from_kubeconfig(cluster.kubeconfig, cluster.context) as kube, log.open("w") as out:
            for body in (*first, *mesh, *late):
                print(f"apply {body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}", file=out, flush=True)
            namespaces = [body for body in first if body["kind"] == "Namespace"]
            kube.apply(namespaces)
            if not _has_credentials(kube):
                kube.apply([_credentials()])
            kube.apply([*first, *mesh])
            for deployment in FIRST:
                kube.wait_deployment(NAMESPACE, deployment, within=timeouts.deployment_available)
            kube.apply(late)

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Wait until a function could be deployed and called: the gateway is ready when the operator beside it answers."""
        for deployment in DEPLOYMENTS:
            kube.wait_deployment(self.namespace, deployment, within=timeouts.deployment_available)

        def gateway_has_a_pod() -> None:
            slices = kube.list("discovery.k8s.io/v1/EndpointSlice", self.namespace, f"kubernetes.io/service-name={GATEWAY}")
            ready = [one for each in slices for one in each.get("endpoints") or () if (one.get("conditions") or {}).get("ready")]
            assert ready, f"Service {GATEWAY} in {self.namespace} has no ready endpoint"

        eventually(gateway_has_a_pod, within=timeouts.deployment_available, subject="way to OpenFaaS's gateway")

    def detect(self, kube: Kube) -> str | None:
        """Return the tag of the gateway's image, whoever installed it."""
        for deployment in kube.list("Deployment", self.namespace, "app=openfaas,component=gateway"):
            containers = deployment["spec"]["template"]["spec"]["containers"]
            image = next((str(one["image"]) for one in containers if one["name"] == GATEWAY), "")
            _, colon, tag = image.partition("@")[0].rpartition(":")
            return tag if colon else "unknown"
        return None

    def _upstream(self) -> Iterator[manifests.Body]:
        root = self.module(GOMOD, MODULE)
        for pattern in manifests.FILES:
            for file in sorted(root.glob(pattern)):
                yield from (document.body for document in load_upstream(file))


def _has_credentials(kube: Kube) -> bool:
    try:
        kube.get("Secret", CREDENTIALS, NAMESPACE)
    except NotFound:
        return False
    return True


def _credentials() -> manifests.Body:
    """Return the Secret that gateway, plugin and clients read; the password is of this cluster and of nobody's configuration."""
    data = {"basic-auth-user": USER, "basic-auth-password": secrets.token_urlsafe(24)}
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": CREDENTIALS, "namespace": NAMESPACE},
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }
