"""The installer and the readiness of Prometheus's operator and of the instances that it makes for everybody."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clusters.components.prometheus import manifests
from clusters.components.prometheus.client import AlertmanagerClient, PrometheusClient
from clusters.components.prometheus.manifests import NAMESPACE, SHARED, SOURCE
from clusters.images.catalogue import gomod
from clusters.images.toolchain import module_sum
from clusters.kube import Kube
from clusters.manifests import load_upstream
from clusters.provider import Cluster
from clusters.timeouts import Timeouts

OPERATOR = "prometheus-operator"


@dataclass(frozen=True)
class Prometheus:
    """The operator, a Prometheus and an Alertmanager, outside the mesh: whoever watches it must not depend on it.

    `image` returns what a node pulls for an image of the catalogue, `module` the folder of a Go module that a set locks: the manifests
    are read there when they are applied.
    """

    version: str
    image: Callable[[str], str]
    module: Callable[[str, str], Path]
    name: str = "prometheus"
    namespace: str = NAMESPACE
    requires: tuple[str, ...] = ()

    def input_key(self) -> str:
        """Return a digest of the module, the images and what is made of them."""
        parts = [
            self.version, Path(manifests.__file__).read_text(), manifests.INSTANCE.read_text(),
            module_sum(gomod(SOURCE.gomod), SOURCE.module), *(self.image(name) for name in manifests.IMAGES),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:  # noqa: ARG002  # as every component has it
        """Apply the operator's manifests and ours; nothing has to be there before.

        Raises:
            UserError: the module cannot be had, or the API server refused an object.

        """
        bodies = [*manifests.prepared(self._upstream(), version=self.version, image=self.image), *manifests.shared(image=self.image)]
        with Kube.from_kubeconfig(cluster.kubeconfig, cluster.context) as kube, log.open("w") as out:
            for body in bodies:
                print(f"apply {body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}", file=out, flush=True)
            kube.apply(bodies, self.namespace)

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Wait until the operator has made both instances, and both answer, of which one knows the other."""
        kube.wait_deployment(self.namespace, OPERATOR, within=timeouts.deployment_available)
        AlertmanagerClient(kube, timeouts, self.namespace, SHARED).await_ready()
        PrometheusClient(kube, timeouts, self.namespace, SHARED).await_ready(alertmanagers=1)

    def detect(self, kube: Kube) -> str | None:
        """Return the version that the operator's Deployment is labelled with, in whichever namespace somebody installed it."""
        for deployment in kube.list("Deployment", None, f"app.kubernetes.io/name={OPERATOR}"):
            return str(deployment["metadata"]["labels"].get("app.kubernetes.io/version", "unknown"))
        return None

    def _upstream(self) -> Iterator[manifests.Body]:
        root = self.module(SOURCE.gomod, SOURCE.module)
        for pattern in SOURCE.files:
            for file in sorted(root.glob(pattern)):
                yield from (document.body for document in load_upstream(file))
