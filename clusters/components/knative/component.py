"""The installer and the readiness of Knative Serving."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.apiserver import ApiRefused
from clusters.components.knative import manifests
from clusters.components.knative.manifests import IMAGES, NAMESPACE, SOURCES
from clusters.images.catalogue import gomod
from clusters.images.toolchain import module_sum
from clusters.kube import Kube
from clusters.manifests import load_upstream
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

DEPLOYMENTS = ("controller", "webhook", "autoscaler", "activator", "net-gateway-api-controller", "net-gateway-api-webhook")
GATEWAYS = ("knative-gateway", "knative-local-gateway")
# What leads to them: the one that the host reaches, and the one that callers inside the cluster are led to.
INGRESS_SERVICES = ("istio-ingressgateway", "knative-local-gateway")
INGRESS_NAMESPACE = "istio-system"
# A function that is never made: the API server asks both webhooks about it and forgets it.
_PROBE: dict[str, Any] = {
    "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "is-the-webhook-serving"},
    "spec": {"template": {"spec": {"containers": [{"image": "faasmesh.test/none:1"}]}}},
}


@dataclass(frozen=True)
class Knative:
    """Serving with its activator and autoscaler in the mesh, entered by Istio's own ingress gateway through the Gateway API.

    `image` returns what a node pulls for an image of the catalogue, `module` the folder of a Go module that a set locks: the manifests
    are read there when they are applied.
    """

    version: str
    image: Callable[[str], str]
    module: Callable[[str, str], Path]
    name: str = "knative"
    namespace: str = NAMESPACE
    requires: tuple[str, ...] = ("istio",)

    def input_key(self) -> str:
        """Return a digest of the modules, the images and what is made of them."""
        parts = [
            self.version, Path(manifests.__file__).read_text(),
            *(f"{module_sum(gomod(source.gomod), source.module)} {source.files}" for source in SOURCES),
            *(self.image(name) for name in IMAGES.values()),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:
        """Apply upstream's manifests.

        Webhooks that an unfinished installation has left would refuse what is to mend it, so they are taken away first.

        Raises:
            UserError: a module cannot be had, or the API server refused an object.

        """
        del timeouts
        bodies = manifests.prepared(self._upstream(), version=self.version, image=self.image)
        rest, webhooks = manifests.split(bodies)
        with Kube.from_kubeconfig(cluster.kubeconfig, cluster.context) as kube, log.open("w") as out:
            kube.delete(webhooks)
            for body in (*rest, *webhooks):
                print(f"apply {body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}", file=out, flush=True)
            kube.apply([*rest, *webhooks])

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Wait until a function could be served: its object is taken, its pods are scaled, and both gateways would lead to it."""
        for deployment in DEPLOYMENTS:
            kube.wait_deployment(self.namespace, deployment, within=timeouts.deployment_available)

        def webhooks_serve() -> None:
            kube.apply([_PROBE], self.namespace, dry_run=True)

        eventually(webhooks_serve, within=timeouts.webhook_serving, consecutive=2, ignoring=(ApiRefused,), subject="Knative's webhooks")
        for gateway in GATEWAYS:
            kube.await_condition(
                "gateway.networking.k8s.io/v1/Gateway", gateway, "Programmed", INGRESS_NAMESPACE, within=timeouts.deployment_available,
            )

        def gateways_have_pods() -> None:
            empty = [service for service in INGRESS_SERVICES if not _addresses(kube, service)]
            assert not empty, f"Service {', '.join(empty)} in {INGRESS_NAMESPACE} has no ready endpoint"

        eventually(gateways_have_pods, within=timeouts.deployment_available, subject="ways into Knative")

    def detect(self, kube: Kube) -> str | None:
        """Return the version that the controller's Deployment is labelled with, whoever installed it."""
        for deployment in kube.list("Deployment", self.namespace, "app.kubernetes.io/name=knative-serving,app.kubernetes.io/component=controller"):
            return str(deployment["metadata"]["labels"].get("app.kubernetes.io/version", "unknown"))
        return None

    def _upstream(self) -> Iterator[dict[str, Any]]:
        for source in SOURCES:
            root = self.module(source.gomod, source.module)
            for pattern in source.files:
                for file in sorted(root.glob(pattern)):
                    yield from (document.body for document in load_upstream(file))


def _addresses(kube: Kube, service: str) -> list[str]:
    slices = kube.list("discovery.k8s.io/v1/EndpointSlice", INGRESS_NAMESPACE, f"kubernetes.io/service-name={service}")
    return [
        address for one in slices for endpoint in one.get("endpoints") or () if (endpoint.get("conditions") or {}).get("ready")
        for address in endpoint["addresses"]
    ]
