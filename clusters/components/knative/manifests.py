"""Upstream's manifests as this testbed applies them: a pure transformation of what the pinned modules hold.

Nothing of upstream's is kept here. Its modules are written for `ko`, which replaces an import path by an image when it applies them;
the rest is what a small cluster with a mesh needs to be told.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

NAMESPACE = "knative-serving"
# RFC 6761 reserves `test`: no function's address can be somebody's.
DOMAIN = "functions.faasmesh.test"
INGRESS_CLASS = "gateway-api.ingress.networking.knative.dev"

KO = "ko://"
# Which image of the catalogue holds the program of an import path.
IMAGES = {
    **{f"knative.dev/serving/cmd/{program}": f"knative-{program}" for program in ("activator", "autoscaler", "controller", "webhook", "queue")},
    **{f"knative.dev/net-gateway-api/cmd/{program}": f"knative-gateway-{program}" for program in ("controller", "webhook")},
}


@dataclass(frozen=True)
class Source:
    """Manifests in one Go module: the set that locks it, and globs below its root."""

    gomod: str
    module: str
    files: tuple[str, ...]


# Some files of Serving are symbolic links upstream, which a module cannot hold: they come from the modules they point to.
SOURCES = (
    Source("knative-gateway", "sigs.k8s.io/gateway-api", ("config/crd/standard/*.yaml",)),
    Source("knative", "knative.dev/networking", ("config/*.yaml",)),
    Source("knative", "knative.dev/caching", ("config/*.yaml",)),
    Source("knative", "knative.dev/serving", ("config/core/**/*.yaml",)),
    # Both Gateways are those of the ingress gateway that Istio's own installation made: its Service is the one that the host reaches,
    # and a Gateway that names an existing Service needs no LoadBalancer to give it an address.
    Source("knative-gateway", "knative.dev/net-gateway-api", ("config/*.yaml", "third_party/istio/*.yaml")),
)

# What is told to Knative beyond its defaults, by ConfigMap.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "config-domain": {DOMAIN: ""},
    "config-network": {
        "ingress-class": INGRESS_CLASS,
        # A pod's own address is no host of the mesh: what calls it goes out in plain text, which STRICT refuses. Through its
        # Service it is called with the caller's certificate. "auto" finds that out anew for every revision, by failing first.
        "mesh-compatibility-mode": "enabled",
    },
    "config-deployment": {
        # Knative's controller would ask the registry for an image's digest by itself, and these are behind the node's mirror only.
        "registries-skipping-tag-resolving": "faasmesh.test",
        "queue-sidecar-cpu-request": "10m",
    },
    "config-autoscaler": {
        # Only for those that ask for it: a function that has never run is the purest cold start.
        "allow-zero-initial-scale": "true",
    },
}

# Who speaks with functions needs an identity in the mesh. The others speak with the API server only, which has none itself.
IN_THE_MESH = frozenset({"activator", "autoscaler"})
# An API server that is told to use a webhook must find it: applied last, and taken away first.
WEBHOOKS = frozenset({"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"})
# One replica of each is all that is wanted, and nothing here measures the pods for an autoscaler of theirs.
_UNWANTED = frozenset({"HorizontalPodAutoscaler", "PodDisruptionBudget"})
_ORDER = ("CustomResourceDefinition", "Namespace", "ClusterRole", "ServiceAccount", "Role", "ClusterRoleBinding", "RoleBinding", "ConfigMap", "Secret")
_CPU, _MEMORY = "20m", "60Mi"

Body = dict[str, Any]


def prepared(bodies: Iterable[Mapping[str, Any]], *, version: str, image: Callable[[str], str]) -> list[Body]:
    """Return upstream's objects as they are to be applied, in an order in which none needs a later one.

    `image` returns what a node pulls for a name of IMAGES. Raises KeyError for a program that no image of ours holds.
    """
    changed = [_prepared(deepcopy(dict(body)), version, image) for body in bodies if body["kind"] not in _UNWANTED]
    missing = SETTINGS.keys() - {body["metadata"]["name"] for body in changed if body["kind"] == "ConfigMap"}
    if missing:
        raise KeyError(f"upstream has no ConfigMap {min(missing)}")
    return sorted(changed, key=_place)


def split(bodies: Iterable[Body]) -> tuple[list[Body], list[Body]]:
    """Return the objects without the webhooks' configurations, and these."""
    bodies = list(bodies)
    return [body for body in bodies if body["kind"] not in WEBHOOKS], [body for body in bodies if body["kind"] in WEBHOOKS]


def _place(body: Mapping[str, Any]) -> int:
    kind = str(body["kind"])
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER) + (kind in WEBHOOKS)


def _prepared(body: Body, version: str, image: Callable[[str], str]) -> Body:
    body = _with_images(body, image)
    metadata = body["metadata"]
    _name_version(metadata, version)
    if body["kind"] == "Namespace":
        metadata.setdefault("labels", {})["istio-injection"] = "enabled"
    elif body["kind"] == "ConfigMap":
        _set(body)
    elif body["kind"] == "ClusterRole" and "aggregationRule" in body:
        # Filled in by the API server's controller; an empty list applied a second time would take every right away for a moment.
        body.pop("rules", None)
    elif body["kind"] == "Deployment":
        _make_small(body, version)
    return body


def _with_images(value: Any, image: Callable[[str], str]) -> Any:  # noqa: ANN401  # JSON has no narrower type
    """Replace every import path, wherever it stands: in a container, in a ConfigMap, in a resource of Knative's own."""
    if isinstance(value, dict):
        return {name: _with_images(one, image) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_images(one, image) for one in value]
    if isinstance(value, str) and value.startswith(KO):
        return image(IMAGES[value.removeprefix(KO)])
    return value


def _name_version(metadata: Body, version: str) -> None:
    labels = metadata.get("labels") or {}
    if "app.kubernetes.io/version" in labels:
        labels["app.kubernetes.io/version"] = version


def _set(body: Body) -> None:
    # The example is a text for a person who edits the object, and Knative refuses one that was changed; ours are not edited.
    data = {name: value for name, value in (body.get("data") or {}).items() if name != "_example"}
    (body["metadata"].get("annotations") or {}).pop("knative.dev/example-checksum", None)
    body["data"] = {**data, **SETTINGS.get(body["metadata"]["name"], {})}


def _make_small(body: Body, version: str) -> None:
    template = body["spec"]["template"]
    _name_version(template["metadata"], version)
    if body["metadata"]["name"] in IN_THE_MESH:
        template["metadata"].setdefault("annotations", {}).update({
            "sidecar.istio.io/proxyCPU": "10m",
            # Both talk to others as soon as they start, and give up when nobody answers.
            "proxy.istio.io/config": "holdApplicationUntilProxyStarts: true\n",
        })
    else:
        template["metadata"].setdefault("labels", {})["sidecar.istio.io/inject"] = "false"
    for container in template["spec"]["containers"]:
        container["resources"]["requests"] = {"cpu": _CPU, "memory": _MEMORY}
