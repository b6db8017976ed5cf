"""The questions a check may ask of Knative: is a function ready, which revisions has it, how many pods does it want and have."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from clusters.apiserver import ApiRefused
from clusters.components.knative.manifests import INGRESSES, ISTIO, NAMESPACE
from clusters.kube import Kube, Resources
from clusters.timeouts import Timeouts

SERVICE = "serving.knative.dev/v1/Service"
REVISION = "serving.knative.dev/v1/Revision"
POD_AUTOSCALER = "autoscaling.internal.knative.dev/v1alpha1/PodAutoscaler"
SERVERLESS_SERVICE = "networking.internal.knative.dev/v1alpha1/ServerlessService"
OF_SERVICE = "serving.knative.dev/service"
OF_REVISION = "serving.knative.dev/revision"
# What a function's pod is asked for by the ingress on its way, and the port on which the mesh calls it.
ACTIVATOR = "activator"
AUTOSCALER = "autoscaler"


@dataclass(frozen=True)
class Condition:
    """What a controller says of one aspect; `status` is True, False or Unknown, the other two may be empty."""

    status: str
    reason: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the condition as evidence keeps it."""
        return dict(vars(self))


NOT_SAID = Condition("Unknown", "", "")


@dataclass(frozen=True)
class Function:
    """A Knative Service as it reports itself.

    `current` tells whether its controller has seen the newest specification; `traffic` are its targets in order: revision, percent,
    tag, address of the tag (empty where there is none), and whether it follows the latest ready revision.
    """

    name: str
    current: bool
    url: str
    latest_created: str
    latest_ready: str
    conditions: Mapping[str, Condition]
    traffic: tuple[Mapping[str, Any], ...]

    @property
    def ready(self) -> Condition:
        """The condition that sums up the others."""
        return self.conditions.get("Ready", NOT_SAID)

    @property
    def host(self) -> str:
        """The host of its address, by which the ingress gateway knows it; empty before it has one.

        A function for the cluster's own callers alone has the address that they use.
        """
        return urlsplit(self.url).hostname or ""

    def tagged(self, tag: str) -> str:
        """Return the host by which the ingress gateway knows the revision that bears a tag; empty where none does."""
        return next((urlsplit(one["url"]).hostname or "" for one in self.traffic if tag and one["tag"] == tag), "")

    def to_json(self) -> dict[str, Any]:
        """Return the function as evidence keeps it."""
        return {**vars(self), "conditions": {name: one.to_json() for name, one in self.conditions.items()}, "traffic": list(self.traffic)}


@dataclass(frozen=True)
class Revision:
    """One revision as it reports itself; `wanted` and `there` are pods, -1 where its autoscaler has not said yet.

    `activator_in_path` tells whether requests go by way of the activator.
    """

    name: str
    conditions: Mapping[str, Condition]
    wanted: int
    there: int
    activator_in_path: bool

    @property
    def ready(self) -> Condition:
        """The condition that sums up the others."""
        return self.conditions.get("Ready", NOT_SAID)

    def to_json(self) -> dict[str, Any]:
        """Return the revision as evidence keeps it."""
        return {**vars(self), "conditions": {name: one.to_json() for name, one in self.conditions.items()}}


@dataclass(frozen=True)
class KnativeClient:
    """Knative as a check sees it, through the API server only."""

    kube: Kube
    timeouts: Timeouts

    def await_ready(self, namespace: str, name: str) -> Function:
        """Return a function once it is ready to be called from where it says, its newest specification being the one that serves.

        Raises:
            TimedOut: it is not; the message gives its conditions.

        """
        self.kube.await_condition(SERVICE, name, "Ready", namespace, within=self.timeouts.function_ready)
        return self.function(namespace, name)

    def function(self, namespace: str, name: str) -> Function:
        """Return a function as it reports itself; raises NotFound."""
        found = self.kube.get(SERVICE, name, namespace)
        status = found.get("status") or {}
        return Function(
            name, status.get("observedGeneration", -1) == found["metadata"]["generation"], status.get("url", ""),
            status.get("latestCreatedRevisionName", ""), status.get("latestReadyRevisionName", ""), conditions_of(status),
            tuple(_target(one) for one in status.get("traffic") or ()),
        )

    def revisions(self, namespace: str, service: str) -> list[str]:
        """Return the names of a function's revisions, oldest first."""
        found = self.kube.list(REVISION, namespace, f"{OF_SERVICE}={service}")
        return [one["metadata"]["name"] for one in sorted(found, key=lambda one: int(one["metadata"]["labels"]["serving.knative.dev/configurationGeneration"]))]

    def revision(self, namespace: str, name: str) -> Revision:
        """Return a revision as it reports itself; raises NotFound."""
        conditions = conditions_of(self.kube.get(REVISION, name, namespace).get("status") or {})
        autoscalers = self.kube.list(POD_AUTOSCALER, namespace, f"{OF_REVISION}={name}")
        status = (autoscalers[0].get("status") or {}) if autoscalers else {}
        ways = self.kube.list(SERVERLESS_SERVICE, namespace, f"{OF_REVISION}={name}")
        mode = ways[0]["spec"].get("mode", "") if ways else ""
        return Revision(name, conditions, status.get("desiredScale", -1), status.get("actualScale", -1), mode == "Proxy")

    def inactive_since(self, namespace: str, revision: str) -> float | None:
        """Return when a revision's autoscaler last found that nobody calls it (whole seconds since 1970); None while somebody does."""
        return self._since(POD_AUTOSCALER, namespace, revision, "Active", "False")

    def proxied_since(self, namespace: str, revision: str) -> float | None:
        """Return since when callers of a revision are led to the activator (whole seconds since 1970); None while they are not."""
        return self._since(SERVERLESS_SERVICE, namespace, revision, "ActivatorEndpointsPopulated", "True")

    def _since(self, kind: str, namespace: str, revision: str, condition: str, status: str) -> float | None:
        for found in self.kube.list(kind, namespace, f"{OF_REVISION}={revision}"):
            for one in (found.get("status") or {}).get("conditions") or ():
                if one["type"] == condition and one["status"] == status:
                    return datetime.fromisoformat(one["lastTransitionTime"]).timestamp()
        return None

    def pods(self, namespace: str, revision: str) -> Resources:
        """Return the pods of a revision that are not on their way out."""
        return [pod for pod in self.kube.pods(namespace, f"{OF_REVISION}={revision}") if not pod["metadata"].get("deletionTimestamp")]

    def ingress(self) -> str:
        """Return what programs the mesh for functions, as --knative-ingress calls it, or else Knative's class of it.

        `unknown` where these credentials may not read it. Where none is set it is upstream's default (knative.dev/networking, pkg/config).
        """
        try:
            told = self.kube.get("ConfigMap", "config-network", NAMESPACE).get("data") or {}
        except ApiRefused:
            return "unknown"
        chosen = told.get("ingress-class") or told.get("ingress.class") or ISTIO.ingress_class
        return next((one.name for one in INGRESSES.values() if one.ingress_class == chosen), chosen)

    def own_pods(self, name: str) -> list[str]:
        """Return the pods of one of Knative's own Deployments (ACTIVATOR, AUTOSCALER) that are not on their way out."""
        found = self.kube.pods(NAMESPACE, f"app={name}")
        return [str(pod["metadata"]["name"]) for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def await_own(self, name: str) -> None:
        """Return once one of Knative's own Deployments has all its pods; raises what `Kube.wait_deployment` raises."""
        self.kube.wait_deployment(NAMESPACE, name, self.timeouts.deployment_available)


def local_host(name: str, namespace: str, *, tag: str = "") -> str:
    """Return the host by which callers inside the cluster know a function, or the revision that bears a tag of it."""
    return f"{tag + '-' if tag else ''}{name}.{namespace}.svc.cluster.local"


def conditions_of(status: Mapping[str, Any]) -> dict[str, Condition]:
    """Return the conditions of an object's status by their type."""
    return {
        one["type"]: Condition(str(one.get("status", "Unknown")), str(one.get("reason") or ""), str(one.get("message") or ""))
        for one in status.get("conditions") or ()
    }


def _target(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "revision": told.get("revisionName", ""), "percent": int(told.get("percent") or 0), "tag": told.get("tag", ""),
        "url": told.get("url", ""), "latest": bool(told.get("latestRevision")),
    }
