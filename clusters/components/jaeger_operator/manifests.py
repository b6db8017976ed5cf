"""Upstream's manifests as this testbed applies them: a pure transformation of what the pinned module holds.

Nothing of upstream's is kept here. Its module is written for kustomize, which puts everything into one namespace under one label, and for
cert-manager, which gives the webhooks their certificate; both are done here.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

NAMESPACE = "observability"
OPERATOR = "jaeger-operator"
LABEL = {"name": OPERATOR}
SECRET = "jaeger-operator-service-cert"  # noqa: S105  # a name
WEBHOOK_SERVICE = "jaeger-operator-webhook-service"
WEBHOOK_HOST = f"{WEBHOOK_SERVICE}.{NAMESPACE}.svc"
MODULE = "github.com/jaegertracing/jaeger-operator"
# Without those for cert-manager and Prometheus, and without the proxy that guards the metrics: nobody asks for them here.
FILES = (
    "config/crd/bases/*.yaml",
    *(f"config/rbac/{name}.yaml" for name in ("service_account", "role", "role_binding", "leader_election_role", "leader_election_role_binding")),
    "config/manager/manager.yaml", "config/webhook/service.yaml", "config/webhook/manifests.yaml",
)
# An API server that is told to use a webhook must find it: applied last, and taken away first.
WEBHOOKS = frozenset({"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"})
# It puts an agent beside whatever Deployment asks for one; every Deployment of the cluster would wait for it to be asked.
_UNASKED = frozenset({"deployment.sidecar-injector.jaegertracing.io"})
_OF_THE_CLUSTER = frozenset({"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"}) | WEBHOOKS
_CERTIFICATES = "/tmp/k8s-webhook-server/serving-certs"  # noqa: S108  # the operator's own
# Finding: the operator does not start without a certificate for its webhooks, whether anybody asks them or not.
# Without an election: nobody else wants to be the leader, and a new pod would wait 137 s for the lease of one that was killed.
_ARGUMENTS = ["start", "--health-probe-bind-address=:8081"]

Body = dict[str, Any]


def prepared(bodies: Iterable[Mapping[str, Any]], *, operator: str, all_in_one: str, authority: bytes) -> list[Body]:
    """Return upstream's objects as they are to be applied: the operator's image, the one of what it installs, and by whom its webhooks are known (PEM).

    Custom resources come first and webhooks last. Raises KeyError where upstream's manifests have another shape.
    """
    namespace: Body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    found = [namespace, *(_prepared(deepcopy(dict(body)), operator, all_in_one, b64encode(authority).decode()) for body in bodies)]
    return sorted(found, key=lambda body: (body["kind"] in WEBHOOKS) - (body["kind"] in ("CustomResourceDefinition", "Namespace")))


def split(bodies: Iterable[Body]) -> tuple[list[Body], list[Body]]:
    """Return the objects without the webhooks' configurations, and these."""
    bodies = list(bodies)
    return [body for body in bodies if body["kind"] not in WEBHOOKS], [body for body in bodies if body["kind"] in WEBHOOKS]


def _prepared(body: Body, operator: str, all_in_one: str, bundle: str) -> Body:
    kind, metadata = body["kind"], body["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), **LABEL}
    # Names that are common to all operators of a kind, and are those of this one only with its own in front.
    if not metadata["name"].startswith((OPERATOR, "jaegers.")):
        metadata["name"] = f"{OPERATOR}-{metadata['name']}"
    if kind not in _OF_THE_CLUSTER:
        metadata["namespace"] = NAMESPACE
    if kind in ("ClusterRoleBinding", "RoleBinding"):
        body["roleRef"]["name"] = f"{OPERATOR}-{body['roleRef']['name']}"
        body["subjects"] = [{**subject, "namespace": NAMESPACE} for subject in body["subjects"]]
    elif kind in WEBHOOKS:
        body["webhooks"] = [_asked(hook, bundle) for hook in body["webhooks"] if hook["name"] not in _UNASKED]
    elif kind == "Service":
        body["spec"]["selector"] = LABEL
    elif kind == "Deployment":
        _deployment(body["spec"], operator, all_in_one)
    return body


def _asked(hook: Body, bundle: str) -> Body:
    service = {**hook["clientConfig"]["service"], "name": WEBHOOK_SERVICE, "namespace": NAMESPACE}
    return {**hook, "clientConfig": {"service": service, "caBundle": bundle}}


def _deployment(spec: Body, operator: str, all_in_one: str) -> None:
    spec["selector"] = {"matchLabels": dict(LABEL)}
    # Upstream's is empty, which server-side apply takes for a wish.
    spec.pop("strategy", None)
    template = spec["template"]
    template["metadata"]["labels"] = {**LABEL, "sidecar.istio.io/inject": "false"}
    template["spec"]["volumes"] = [{"name": "cert", "secret": {"secretName": SECRET}}]
    (container,) = template["spec"]["containers"]
    # Upstream's list says the same several times over, which server-side apply refuses.
    variables = {one["name"]: one for one in container["env"]} | {
        "LOG-LEVEL": {"name": "LOG-LEVEL", "value": "INFO"},
        # Finding: what the operator takes by itself is an image of its own version, older than any that can be had as a module.
        "RELATED_IMAGE_JAEGER_ALL_IN_ONE": {"name": "RELATED_IMAGE_JAEGER_ALL_IN_ONE", "value": all_in_one},
    }
    container |= {
        "image": operator, "args": list(_ARGUMENTS), "env": list(variables.values()),
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "ports": [{"name": "webhook-server", "containerPort": 9443}],
        "volumeMounts": [{"name": "cert", "mountPath": _CERTIFICATES, "readOnly": True}],
    }
