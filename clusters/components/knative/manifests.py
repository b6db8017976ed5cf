"""Upstream's manifests as this testbed applies them: a pure transformation of what the pinned modules hold.

Nothing of upstream's is kept here. Its modules are written for `ko`, which replaces an import path by an image when it applies them;
the rest is what a small cluster with a mesh needs to be told.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

NAMESPACE = "knative-serving"
# RFC 6761 reserves `test`: no function's address can be somebody's.
DOMAIN = "functions.faasmesh.test"

KO = "ko://"
# Which image of the catalogue holds the program of an import path; those of an ingress are its own.
IMAGES = {f"knative.dev/serving/cmd/{program}": f"knative-{program}" for program in ("activator", "autoscaler", "controller", "webhook", "queue")}


@dataclass(frozen=True)
class Source:
    """Manifests in one Go module: the set that locks it, and globs below its root."""

    gomod: str
    module: str
    files: tuple[str, ...]


# Some files of Serving are symbolic links upstream, which a module cannot hold: they come from the modules they point to.
SOURCES = (
    Source("knative", "knative.dev/networking", ("config/*.yaml",)),
    Source("knative", "knative.dev/caching", ("config/*.yaml",)),
    Source("knative", "knative.dev/serving", ("config/core/**/*.yaml",)),
)

# What is told to Knative beyond its defaults, by ConfigMap; an ingress adds to it.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "config-domain": {DOMAIN: ""},
    "config-network": {
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


@dataclass(frozen=True)
class Ingress:
    """A controller that programs the mesh for Knative's functions, of which one is installed.

    `name` is what --knative-ingress calls it, `ingress_class` what Knative does, `software` its version's name in versions.toml.
    `images` and `settings` are what it adds to IMAGES and SETTINGS, `gateways` those of its Gateways that report themselves programmed,
    `unasked` those of its webhooks that are asked only about what bears the label ASK, which is nothing.
    """

    name: str
    ingress_class: str
    software: str
    sources: tuple[Source, ...]
    images: Mapping[str, str]
    deployments: tuple[str, ...]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    gateways: tuple[str, ...] = ()
    unasked: frozenset[str] = frozenset()


# Either leads to the ingress gateway that Istio's own installation made, by two ways: its Service, which the host reaches, and
# `knative-local-gateway`, to which callers inside the cluster are led.
GATEWAY_API = Ingress(
    name="gateway-api", ingress_class="gateway-api.ingress.networking.knative.dev", software="knative-gateway",
    sources=(
        Source("knative-gateway", "sigs.k8s.io/gateway-api", ("config/crd/standard/*.yaml",)),
        # A Gateway that names an existing Service needs no LoadBalancer to give it an address.
        Source("knative-gateway", "knative.dev/net-gateway-api", ("config/*.yaml", "third_party/istio/*.yaml")),
    ),
    images={f"knative.dev/net-gateway-api/cmd/{program}": f"knative-gateway-{program}" for program in ("controller", "webhook")},
    deployments=("net-gateway-api-controller", "net-gateway-api-webhook"), gateways=("knative-gateway", "knative-local-gateway"),
)
ISTIO = Ingress(
    name="istio", ingress_class="istio.ingress.networking.knative.dev", software="knative-istio",
    # Serving's third_party has a newer manifest, for programs that answer probes and flags which these do not know.
    sources=(Source("knative-istio", "knative.dev/net-istio", ("config/*.yaml",)),),
    images={f"knative.dev/net-istio/cmd/{program}": f"knative-istio-{program}" for program in ("controller", "webhook")},
    deployments=("net-istio-controller", "net-istio-webhook"),
    settings={"config-istio": {
        f"gateway.{NAMESPACE}.knative-ingress-gateway": "istio-ingressgateway.istio-system.svc.cluster.local",
        f"local-gateway.{NAMESPACE}.knative-local-gateway": "knative-local-gateway.istio-system.svc.cluster.local",
    }},
    # Finding: it gives functions' Deployments the labels of Istio's canonical service, and refuses what Kubernetes 1.23 did not know: since 1.35
    # a Deployment's status tells `terminatingReplicas`, so that its status is never written and no function becomes ready.
    unasked=frozenset({"webhook.istio.networking.internal.knative.dev"}),
)
INGRESSES: Mapping[str, Ingress] = {one.name: one for one in (GATEWAY_API, ISTIO)}

# Who speaks with functions needs an identity in the mesh. The others speak with the API server only, which has none itself.
IN_THE_MESH = frozenset({"activator", "autoscaler"})
ASK = "networking.faasmesh.dev/ask"
# An API server that is told to use a webhook must find it: applied last, and taken away first.
WEBHOOKS = frozenset({"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"})
# One replica of each is all that is wanted, and nothing here measures the pods for an autoscaler of theirs.
_UNWANTED = frozenset({"HorizontalPodAutoscaler", "PodDisruptionBudget"})
# An installation that another one replaces leaves these: others may have objects of such a kind, or in such a namespace.
_LEFT = frozenset({"CustomResourceDefinition", "Namespace"})
_ORDER = ("CustomResourceDefinition", "Namespace", "ClusterRole", "ServiceAccount", "Role", "ClusterRoleBinding", "RoleBinding", "ConfigMap", "Secret")
_CPU, _MEMORY = "20m", "60Mi"

Body = dict[str, Any]


def sources(ingress: Ingress) -> tuple[Source, ...]:
    """Return where all the manifests of an installation are, the ingress's last."""
    return (*SOURCES, *ingress.sources)


def images(ingress: Ingress) -> dict[str, str]:
    """Return which image of the catalogue holds the program of an import path."""
    return {**IMAGES, **ingress.images}


def settings(ingress: Ingress) -> dict[str, dict[str, str]]:
    """Return what is told by ConfigMap beyond upstream's defaults, to Knative and to the ingress."""
    told = {name: dict(data) for name, data in (*SETTINGS.items(), *ingress.settings.items())}
    told["config-network"]["ingress-class"] = ingress.ingress_class
    return told


def prepared(bodies: Iterable[Mapping[str, Any]], ingress: Ingress, *, version: str, image: Callable[[str], str]) -> list[Body]:
    """Return upstream's objects as they are to be applied, in an order in which none needs a later one.

    `image` returns what a node pulls for an image of the catalogue. Raises KeyError for a program that no image of ours holds, and
    for a setting whose ConfigMap upstream does not have.
    """
    known, told = images(ingress), settings(ingress)
    changed = [_prepared(deepcopy(dict(body)), version, lambda path: image(known[path]), told) for body in bodies if body["kind"] not in _UNWANTED]
    for body in changed:
        if body["kind"] in WEBHOOKS and body["metadata"]["name"] in ingress.unasked:
            _ask_less(body)
    missing = told.keys() - {body["metadata"]["name"] for body in changed if body["kind"] == "ConfigMap"}
    if missing:
        raise KeyError(f"upstream has no ConfigMap {min(missing)}")
    return sorted(changed, key=_place)


def split(bodies: Iterable[Body]) -> tuple[list[Body], list[Body]]:
    """Return the objects without the webhooks' configurations, and these."""
    bodies = list(bodies)
    return [body for body in bodies if body["kind"] not in WEBHOOKS], [body for body in bodies if body["kind"] in WEBHOOKS]


def displaced(theirs: Iterable[Body], ours: Iterable[Body]) -> list[Body]:
    """Return the objects of one ingress's own that are to go when another takes its place; what both of them have stays and is applied over.

    They are deleted in reverse order: webhooks first, or they would refuse what follows, and Deployments last, by which a removal that
    was interrupted is known.
    """
    kept = {_identity(body) for body in ours}
    going = (body for body in theirs if body["kind"] not in _LEFT | _UNWANTED and _identity(body) not in kept)
    return sorted(going, key=lambda body: (body["kind"] in WEBHOOKS) - (body["kind"] == "Deployment"))


def _identity(body: Mapping[str, Any]) -> tuple[str, str, str, str]:
    # Not the version: two may write one object in two versions of its kind.
    metadata = body["metadata"]
    return str(body["apiVersion"]).rpartition("/")[0], str(body["kind"]), str(metadata.get("namespace", "")), str(metadata["name"])


def _place(body: Mapping[str, Any]) -> int:
    kind = str(body["kind"])
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER) + (kind in WEBHOOKS)


def _prepared(body: Body, version: str, image: Callable[[str], str], told: Mapping[str, Mapping[str, str]]) -> Body:
    body = _with_images(body, image)
    metadata = body["metadata"]
    _name_version(metadata, version)
    if body["kind"] == "Namespace":
        metadata.setdefault("labels", {})["istio-injection"] = "enabled"
    elif body["kind"] == "ConfigMap":
        _set(body, told)
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
        return image(value.removeprefix(KO))
    return value


def _name_version(metadata: Body, version: str) -> None:
    labels = metadata.get("labels") or {}
    if "app.kubernetes.io/version" in labels:
        labels["app.kubernetes.io/version"] = version


def _set(body: Body, told: Mapping[str, Mapping[str, str]]) -> None:
    # The example is a text for a person who edits the object, and Knative refuses one that was changed; ours are not edited.
    data = {name: value for name, value in (body.get("data") or {}).items() if name != "_example"}
    (body["metadata"].get("annotations") or {}).pop("knative.dev/example-checksum", None)
    body["data"] = {**data, **told.get(body["metadata"]["name"], {})}


def _ask_less(body: Body) -> None:
    for webhook in body["webhooks"]:
        webhook.setdefault("objectSelector", {}).setdefault("matchExpressions", []).append({"key": ASK, "operator": "Exists"})


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
