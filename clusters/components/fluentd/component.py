"""The installer and the readiness of the nodes' own Fluentd."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clusters.components.fluentd.client import NAME, NAMESPACE, FluentdClient, configuration, configuration_key
from clusters.kube import Kube
from clusters.manifests import load_manifest
from clusters.provider import Cluster
from clusters.timeouts import Timeouts

MANIFEST = Path(__file__).parent / "manifests" / "fluentd.yaml"


@dataclass(frozen=True)
class Fluentd:
    """One collector a node, which fills the store with what containers of some of the run's namespaces write; beside the mesh.

    `image` returns what a node pulls for an image of the catalogue.
    """

    version: str
    image: Callable[[str], str]
    name: str = "fluentd"
    namespace: str = NAMESPACE
    requires: tuple[str, ...] = ("store",)

    def input_key(self) -> str:
        """Return a digest of the image, the manifest and the configuration."""
        return hashlib.sha256(json.dumps([self.image("fluentd"), MANIFEST.read_text(), configuration_key()]).encode()).hexdigest()[:16]

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:
        """Apply configuration and manifest; raises UserError where the API server refuses one."""
        del timeouts
        with Kube.from_kubeconfig(cluster.kubeconfig, cluster.context) as kube, log.open("w") as out:
            kube.apply([configuration()], self.namespace)
            for document in load_manifest(MANIFEST, namespace=self.namespace, image=self.image("fluentd"), configuration=configuration_key()):
                print(f"apply {document.target}", file=out, flush=True)
                kube.apply([document], self.namespace)

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Wait until the collector of every node reads."""
        FluentdClient(kube, timeouts, self.image("fluentd")).await_reading(self.namespace)

    def detect(self, kube: Kube) -> str | None:
        """Return the tag of the collectors' image, where somebody has installed them as we do."""
        for found in kube.list("DaemonSet", self.namespace, fields=f"metadata.name={NAME}"):
            image: str = found["spec"]["template"]["spec"]["containers"][0]["image"]
            return image.partition("@")[0].rpartition(":")[2]
        return None
