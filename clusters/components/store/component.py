"""The installer and the readiness of the log store."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clusters.components.store.client import DEPLOYMENT, NAMESPACE, StoreClient
from clusters.kube import Kube
from clusters.manifests import load_manifest
from clusters.provider import Cluster
from clusters.timeouts import Timeouts

MANIFEST = Path(__file__).parent / "manifests" / "store.yaml"


@dataclass(frozen=True)
class Store:
    """One node of OpenSearch with its data on a volume, found as `elasticsearch.logging.svc.cluster.local:9200`; beside the mesh.

    `image` returns what a node pulls for an image of the catalogue.
    """

    version: str
    image: Callable[[str], str]
    name: str = "store"
    namespace: str = NAMESPACE
    requires: tuple[str, ...] = ()

    def input_key(self) -> str:
        """Return a digest of the image and the manifest."""
        return hashlib.sha256(json.dumps([self.image("store"), MANIFEST.read_text()]).encode()).hexdigest()[:16]

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:
        """Apply the manifest; raises UserError where the API server refuses it."""
        del timeouts
        with Kube.from_kubeconfig(cluster.kubeconfig, cluster.context) as kube, log.open("w") as out:
            kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": {"istio-injection": "disabled"}}}])
            for document in load_manifest(MANIFEST, namespace=self.namespace, image=self.image("store")):
                print(f"apply {document.target}", file=out, flush=True)
                kube.apply([document], self.namespace)

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Wait until it answers, tell it how log lines are to be kept, and have it forget those of former days."""
        kube.wait_deployment(self.namespace, DEPLOYMENT, within=timeouts.deployment_available)
        client = StoreClient(kube, timeouts)
        client.await_healthy()
        client.prepare()
        client.forget_former_days()

    def detect(self, kube: Kube) -> str | None:
        """Return the tag of the store's image, where somebody has installed it as we do."""
        for deployment in kube.list("Deployment", self.namespace, fields=f"metadata.name={DEPLOYMENT}"):
            image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            return image.partition("@")[0].rpartition(":")[2]
        return None
