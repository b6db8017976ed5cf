"""The questions a check may ask of the Jaeger operator: what has become of a resource."""

from dataclasses import dataclass
from typing import Any

from clusters.components.jaeger.client import JaegerClient
from clusters.kube import Kube
from clusters.timeouts import Timeouts

JAEGER = "jaegertracing.io/v1/Jaeger"
AUTOSCALER = "autoscaling/v2/HorizontalPodAutoscaler"
OF_INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True)
class Instance:
    """What a Jaeger resource has become.

    `phase` and `version` are the operator's own words. `deployments` tells, by name, the component, the pods that are wanted, the image and
    the arguments of each; `autoscalers` and `services` are names.
    """

    phase: str
    version: str
    deployments: dict[str, dict[str, Any]]
    autoscalers: tuple[str, ...]
    services: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the instance as evidence keeps it."""
        return {**vars(self), "autoscalers": list(self.autoscalers), "services": list(self.services)}


@dataclass(frozen=True)
class JaegerOperatorClient:
    """The operator as a check sees it, through the API server only."""

    kube: Kube
    timeouts: Timeouts

    def instance(self, namespace: str, name: str) -> Instance:
        """Return what a resource has become by now; raises NotFound where there is none."""
        status = self.kube.get(JAEGER, name, namespace).get("status") or {}
        selector = f"{OF_INSTANCE}={name}"
        return Instance(
            str(status.get("phase", "")), str(status.get("version", "")),
            {one["metadata"]["name"]: _deployment(one) for one in self.kube.list("Deployment", namespace, selector)},
            tuple(sorted(one["metadata"]["name"] for one in self.kube.list(AUTOSCALER, namespace, selector))),
            tuple(sorted(one["metadata"]["name"] for one in self.kube.list("Service", namespace, selector))),
        )

    def jaeger(self, namespace: str, name: str) -> JaegerClient:
        """Return the client of what a resource has become, for asking it for traces."""
        return JaegerClient(self.kube, namespace, f"{OF_INSTANCE}={name},{COMPONENT} in (all-in-one,query)")


def _deployment(found: dict[str, Any]) -> dict[str, Any]:
    (container, *_) = found["spec"]["template"]["spec"]["containers"]
    return {
        "component": found["metadata"]["labels"].get(COMPONENT, ""), "replicas": found["spec"].get("replicas", 1),
        "image": container["image"], "arguments": container.get("args") or [],
    }
