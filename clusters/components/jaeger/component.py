"""The installer and the readiness of Jaeger 2."""

import hashlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clusters.components.jaeger.client import NAMESPACE, JaegerClient, JaegerUnreachable, NoSuchTrace, zipkin_span
from clusters.kube import Kube
from clusters.manifests import load_manifest
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

MANIFEST = Path(__file__).parent / "manifests" / "jaeger.yaml"
# The newest that are kept. A trace of a few spans takes some 20 KB, so that all of them fit into the pod's memory.
MAX_TRACES = 10_000


@dataclass(frozen=True)
class Jaeger:
    """One Jaeger beside the mesh, in Istio's namespace, where the reference looks for it: `zipkin.istio-system:9411`.

    `image` returns what a node pulls for an image of the catalogue.
    """

    version: str
    image: Callable[[str], str]
    name: str = "jaeger"
    namespace: str = NAMESPACE
    requires: tuple[str, ...] = ("istio",)

    def input_key(self) -> str:
        """Return a digest of the manifest and of what is filled into it."""
        return hashlib.sha256(MANIFEST.read_bytes() + f"{self.image('jaeger')} {MAX_TRACES}".encode()).hexdigest()[:16]

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:
        """Apply the manifest.

        Raises:
            UserError: the image cannot be had, or the API server refused an object.

        """
        del timeouts  # nothing is awaited here
        bodies = load_manifest(MANIFEST, image=self.image("jaeger"), max_traces=str(MAX_TRACES))
        with Kube.from_kubeconfig(cluster.kubeconfig, cluster.context) as kube:
            kube.apply(bodies, self.namespace)
        log.write_text("".join(f"apply {body.target}\n" for body in bodies))

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Wait until a span that is sent can be read back."""
        kube.wait_deployment(self.namespace, self.name, within=timeouts.deployment_available)
        await_answering(JaegerClient(kube), timeouts)

    def detect(self, kube: Kube) -> str | None:
        """Return the tag of the image that runs under the name by which upstream's own examples install it, whoever did."""
        for deployment in kube.list("Deployment", self.namespace, "app=jaeger"):
            image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            return image.partition("@")[0].rpartition(":")[2]
        return None


def await_answering(jaeger: JaegerClient, timeouts: Timeouts) -> None:
    """Return once a Jaeger keeps what it is sent; raises TimedOut."""
    trace_id = uuid.uuid4().hex

    def kept() -> None:
        jaeger.send([zipkin_span(trace_id, service="faasmesh", name="is-jaeger-serving", started_us=int(time.time() * 1e6))])
        jaeger.trace(trace_id)

    eventually(kept, within=timeouts.deployment_available, ignoring=(JaegerUnreachable, NoSuchTrace), subject=f"{jaeger.where} not answering")
