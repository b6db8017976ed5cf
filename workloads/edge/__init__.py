"""edge: an ingress gateway of the namespace's own, in front of one function."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.components.istio.client import IstioClient
from clusters.manifests import load_manifest
from clusters.waiting import eventually
from workloads.fixtures import World

MANIFESTS = Path(__file__).parent / "manifests.yaml"
BARRIER = Path(__file__).parent / "barrier.yaml"
_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  # a type's name


@dataclass(frozen=True)
class Edge:
    """The gateway's pod and the function that it leads to."""

    world: World
    istio: IstioClient
    function: str

    @property
    def pod(self) -> str:
        """The gateway's pod."""
        return str(next(pod for pod in self.world.kube.pods(self.world.namespace, "app=edge") if not pod["metadata"].get("deletionTimestamp"))["metadata"]["name"])

    def await_up(self) -> None:
        """Return once its pod is available; raises what `Kube.wait_deployment` raises."""
        self.world.kube.wait_deployment(self.world.namespace, "edge", self.world.timeouts.deployment_available)

    def await_configured(self) -> None:
        """Return once the gateway serves everything that istiod knows now.

        istiod pushes routes last, so a gateway that holds a route of a fresh name holds the listeners that were pushed with it; a
        listener that is still warming up is not serving yet.

        Raises:
            TimedOut: it did not come; the message says what the gateway holds.

        """
        marker = f"barrier-{uuid.uuid4().hex[:12]}"
        namespace, pod = self.world.namespace, self.pod
        self.world.kube.apply(load_manifest(BARRIER, marker=marker, function=self.function), namespace)

        def held() -> None:
            routes = self.istio.routes_dump(namespace, pod)
            assert marker in routes, f"the gateway's routes lack {marker}"
            listeners = json.loads(self.istio.proxy_admin(namespace, pod, "config_dump?resource=dynamic_listeners"))
            warming = [one["name"] for one in listeners.get("configs", []) if "warming_state" in one or "error_state" in one]
            assert not warming, f"listeners not in service: {', '.join(warming)}"

        eventually(held, within=self.istio.timeouts.propagation, every=0.1, subject=f"configuration not at gateway {namespace}/{pod}")


def edge(world: World, istio: IstioClient, *, function: str, secrets: Mapping[str, str]) -> Edge:
    """Ask for a gateway in front of the Service `function` and return at once: it starts beside other pods. It has generic secrets that its filters read from `/etc/edge/<name>.yaml`.

    The secrets lie in a Kubernetes Secret that is mounted into the gateway's pod, in the form in which Envoy reads one from a file
    (Envoy documentation, secret discovery service, path_config_source), so that no configuration of the mesh holds their values.
    """
    files = {f"{name}.yaml": json.dumps({"resources": [{"@type": _SECRET, "name": name, "generic_secret": {"secret": {"inline_string": value}}}]})
             for name, value in secrets.items()}
    secret: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "edge"}, "stringData": files}
    world.kube.apply([secret, *(document.body for document in load_manifest(MANIFESTS))], world.namespace)
    return Edge(world, istio, function)
