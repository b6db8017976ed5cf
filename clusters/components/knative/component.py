"""The installer and the readiness of Knative Serving."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from clusters.apiserver import ApiRefused
from clusters.components.knative import manifests
from clusters.components.knative.manifests import GATEWAY_API, INGRESSES, NAMESPACE, Ingress
from clusters.errors import UserError
from clusters.images.catalogue import gomod
from clusters.images.toolchain import module_sum
from clusters.kube import Kube, NotFound
from clusters.manifests import load_upstream
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from clusters.waiting import TimedOut, eventually

DEPLOYMENTS = ("controller", "webhook", "autoscaler", "activator")
# What leads to them: the one that the host reaches, and the one that callers inside the cluster are led to.
INGRESS_SERVICES = ("istio-ingressgateway", "knative-local-gateway")
INGRESS_NAMESPACE = "istio-system"
# A function that is never made: the API server asks both webhooks about it and forgets it.
_PROBE: dict[str, Any] = {
    "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "is-the-webhook-serving"},
    "spec": {"template": {"spec": {"containers": [{"image": "faasmesh.test/none:1"}]}}},
}
# What Knative asks an ingress for, one for each function; whoever programs it has to take it back.
_WISH = "networking.internal.knative.dev/v1alpha1/Ingress"


@dataclass(frozen=True)
class Knative:
    """Serving with its activator and autoscaler in the mesh, entered by Istio's own ingress gateway, which `ingress` programs.

    `image` returns what a node pulls for an image of the catalogue, `module` the folder of a Go module that a set locks: the manifests
    are read there when they are applied.
    """

    version: str
    image: Callable[[str], str]
    module: Callable[[str, str], Path]
    ingress: Ingress = GATEWAY_API
    name: str = "knative"
    namespace: str = NAMESPACE
    requires: tuple[str, ...] = ("istio",)

    def input_key(self) -> str:
        """Return a digest of the modules, the images and what is made of them."""
        parts = [
            self.version, self.ingress.name, Path(manifests.__file__).read_text(),
            *(f"{module_sum(gomod(source.gomod), source.module)} {source.files}" for source in manifests.sources(self.ingress)),
            *(self.image(name) for name in manifests.images(self.ingress).values()),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:
        """Apply upstream's manifests, in place of those of another ingress where a kept cluster has it.

        Webhooks that an unfinished installation has left would refuse what is to mend it, so they are taken away first.

        Raises:
            UserError: a module cannot be had, the API server refused an object, or there are functions of the ingress that is to go.

        """
        bodies = manifests.prepared(self._upstream(manifests.sources(self.ingress)), self.ingress, version=self.version, image=self.image)
        rest, webhooks = manifests.split(bodies)
        with Kube.from_kubeconfig(cluster.kubeconfig, cluster.context) as kube, log.open("w") as out:
            self._displace(kube, bodies, timeouts, out)
            kube.delete(webhooks)
            for body in (*rest, *webhooks):
                print(f"apply {body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}", file=out, flush=True)
            kube.apply([*rest, *webhooks])

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Wait until a function could be served: its object is taken, its pods are scaled, and both gateways would lead to it."""
        for deployment in (*DEPLOYMENTS, *self.ingress.deployments):
            kube.wait_deployment(self.namespace, deployment, within=timeouts.deployment_available)

        def webhooks_serve() -> None:
            kube.apply([_PROBE], self.namespace, dry_run=True)

        eventually(webhooks_serve, within=timeouts.webhook_serving, consecutive=2, ignoring=(ApiRefused,), subject="Knative's webhooks")
        for gateway in self.ingress.gateways:
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

    def _displace(self, kube: Kube, bodies: Sequence[manifests.Body], timeouts: Timeouts, out: TextIO) -> None:
        """Take away the objects of other ingresses: two would program one gateway for one function.

        What the other one programmed for a function has to go first, while it is there to do it.
        """
        others = [one for one in INGRESSES.values() if one != self.ingress and any(_there(kube, self.namespace, name) for name in one.deployments)]
        if others:
            _await_no_functions(kube, timeouts)
        for other in others:
            theirs = manifests.displaced(self._upstream(other.sources), bodies)
            for body in reversed(theirs):
                print(f"delete {body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}", file=out, flush=True)
            kube.delete(theirs, within=timeouts.namespace_gone)

    def _upstream(self, sources: Iterable[manifests.Source]) -> Iterator[manifests.Body]:
        for source in sources:
            root = self.module(source.gomod, source.module)
            for pattern in source.files:
                for file in sorted(root.glob(pattern)):
                    yield from (document.body for document in load_upstream(file))


def _there(kube: Kube, namespace: str, deployment: str) -> bool:
    try:
        kube.get("Deployment", deployment, namespace)
    except NotFound:
        return False
    return True


def _await_no_functions(kube: Kube, timeouts: Timeouts) -> None:
    def none_left() -> None:
        left = [f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in kube.list(_WISH)]
        assert not left, f"function {', '.join(left)}"

    # The namespaces of a run that was killed are on their way out when the next one begins.
    try:
        eventually(none_left, within=timeouts.namespace_gone, every=1.0)
    except TimedOut as error:
        raise UserError(
            "--knative-ingress", expected="the ingress that the kept cluster has, or a cluster without functions", seen=error.last,
            hint="delete the cluster (python -m clusters down), or choose the other ingress",
        ) from None


def _addresses(kube: Kube, service: str) -> list[str]:
    slices = kube.list("discovery.k8s.io/v1/EndpointSlice", INGRESS_NAMESPACE, f"kubernetes.io/service-name={service}")
    return [
        address for one in slices for endpoint in one.get("endpoints") or () if (endpoint.get("conditions") or {}).get("ready")
        for address in endpoint["addresses"]
    ]
