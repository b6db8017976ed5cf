"""The operator's manifests as this testbed applies them: a pure transformation of what the pinned module holds, and an instance of ours beside it."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.manifests import load_manifest

NAMESPACE = "monitoring"
# The instance for whoever has none of its own: it takes every monitor and rule that does not bear the label OWN.
SHARED = "shared"
OWN = "faasmesh.dev/prometheus"
INSTANCE = Path(__file__).parent / "manifests" / "shared.yaml"

Body = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """Manifests in the operator's module: globs below its root."""

    gomod: str
    module: str
    files: tuple[str, ...]


# What an agent and Thanos are told by is left out with them: a third of the bytes, and a controller of the operator for each.
CRDS = ("alertmanagerconfigs", "alertmanagers", "podmonitors", "probes", "prometheuses", "prometheusrules", "scrapeconfigs", "servicemonitors")
SOURCE = Source(
    "prometheus-operator", "github.com/prometheus-operator/prometheus-operator",
    (
        *(f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml" for kind in CRDS),
        "example/rbac/prometheus-operator/*.yaml",
        # What a Prometheus that looks into every namespace may read.
        "example/rbac/prometheus/prometheus-cluster-role*.yaml", "example/rbac/prometheus/prometheus-service-account.yaml",
    ),
)
IMAGES = ("prometheus-operator", "prometheus-config-reloader", "prometheus", "alertmanager")
# The operator can be scraped, which nobody here does.
_UNWANTED = frozenset({"ServiceMonitor"})
# Services and Endpoints for every kubelet, in a namespace that is not its own: nothing here asks kubelets.
_UNWANTED_FLAGS = ("--kubelet-",)
_ORDER = ("CustomResourceDefinition", "Namespace", "ClusterRole", "ServiceAccount", "ClusterRoleBinding", "Service", "Deployment")
_CPU, _MEMORY = "10m", "32Mi"


def prepared(bodies: Iterable[Mapping[str, Any]], *, version: str, image: Callable[[str], str]) -> list[Body]:
    """Return the operator's objects as they are to be applied, in an order in which none needs a later one.

    `image` returns what a node pulls for an image of the catalogue. Raises KeyError where upstream has no Deployment of the operator.
    """
    changed = [_prepared(deepcopy(dict(body)), image) for body in bodies if body["kind"] not in _UNWANTED]
    if not any(body["kind"] == "Deployment" and body["metadata"]["name"] == "prometheus-operator" for body in changed):
        raise KeyError("upstream has no Deployment prometheus-operator")
    namespace: Body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"app.kubernetes.io/version": version}}}
    return sorted([namespace, *changed], key=lambda body: _ORDER.index(body["kind"]))


def shared(*, image: Callable[[str], str]) -> list[Body]:
    """Return the Prometheus and the Alertmanager that the component brings along."""
    names = {"prometheus_image": image("prometheus"), "alertmanager_image": image("alertmanager"), "namespace": NAMESPACE, "own": OWN}
    return [document.body for document in load_manifest(INSTANCE, **names)]


def _prepared(body: Body, image: Callable[[str], str]) -> Body:
    metadata = body["metadata"]
    # Upstream's example has everything in "default"; who has no namespace in it is applied with ours.
    if "namespace" in metadata:
        metadata["namespace"] = NAMESPACE
    for subject in body.get("subjects") or ():
        subject["namespace"] = NAMESPACE
    if body["kind"] == "Deployment":
        _make_small(body, image)
    return body


def _make_small(body: Body, image: Callable[[str], str]) -> None:
    (container,) = body["spec"]["template"]["spec"]["containers"]
    container["image"] = image("prometheus-operator")
    kept = [one for one in container["args"] if not one.startswith((*_UNWANTED_FLAGS, "--prometheus-config-reloader="))]
    container["args"] = [
        *kept, f"--prometheus-config-reloader={image('prometheus-config-reloader')}",
        # Finding: by default a reloader may use a hundredth of a core and no more, and takes seconds for what it does in one of its bursts.
        "--config-reloader-cpu-request=10m", "--config-reloader-cpu-limit=0", "--config-reloader-memory-request=16Mi", "--config-reloader-memory-limit=64Mi",
    ]
    # No cpu limit: throttling would show as time in which a changed rule is not noticed.
    container["resources"] = {"requests": {"cpu": _CPU, "memory": _MEMORY}, "limits": {"memory": "200Mi"}}
