"""The installer and the readiness of Istio."""

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clusters.components.istio.authority import MeshAuthority
from clusters.errors import UserError
from clusters.kube import Kube
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

CONTROL_PLANE = Path(__file__).parent / "manifests" / "control_plane.yaml"


@dataclass(frozen=True)
class Istio:
    """One istiod and one ingress gateway in `istio-system`; mutual TLS stays permissive for the suites to tighten.

    The charts are the ones that the pinned istioctl embeds. istiod signs with a root that was plugged in, and takes another while it runs.
    """

    version: str
    istioctl: Callable[[], Path]
    name: str = "istio"
    namespace: str = "istio-system"
    requires: tuple[str, ...] = ()

    def input_key(self) -> str:
        """Return a digest of the version and the operator manifest."""
        return hashlib.sha256(self.version.encode() + CONTROL_PLANE.read_bytes()).hexdigest()[:16]

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:
        """Plug in a root, then run `istioctl install`, which applies the custom resources before their first object and waits for both Deployments.

        Raises:
            UserError: istioctl failed; its output is in `log`.

        """
        kube = Kube.from_kubeconfig(cluster.kubeconfig, cluster.context)
        kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}])
        MeshAuthority(kube, timeouts).establish()
        command = [
            str(self.istioctl()), "install", "--skip-confirmation", f"--filename={CONTROL_PLANE}", f"--set=tag={self.version}",
            f"--kubeconfig={cluster.kubeconfig}", f"--context={cluster.context}", f"--readiness-timeout={timeouts.istio_ready:.0f}s",
        ]
        with log.open("wb") as out:
            done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            told = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise UserError(
                f"istioctl install {self.version}", expected="exit code 0",
                seen=f"exit code {done.returncode}: {told[-1] if told else 'nothing was printed'}", hint=f"read {log}",
            )

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Wait for injection, on which every suite depends and which lags behind a ready istiod."""
        for deployment in ("istiod", "istio-ingressgateway"):
            kube.wait_deployment(self.namespace, deployment, within=timeouts.deployment_available)

        def webhook_has_a_bundle() -> None:
            configuration = kube.get("MutatingWebhookConfiguration", "istio-sidecar-injector")
            bare = [hook["name"] for hook in configuration["webhooks"] if not hook["clientConfig"].get("caBundle")]
            assert not bare, f"webhooks {', '.join(bare)} have no CA bundle yet"

        eventually(webhook_has_a_bundle, within=timeouts.webhook_serving, subject="sidecar injection")

    def detect(self, kube: Kube) -> str | None:
        """Return the tag of the istiod image that runs, whoever installed it."""
        for deployment in kube.list("Deployment", self.namespace, "app=istiod"):
            image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            return image.rpartition(":")[2]
        return None
