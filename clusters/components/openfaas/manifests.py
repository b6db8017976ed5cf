"""Upstream's manifests as this testbed applies them: a pure transformation of what the pinned module of faas-netes holds.

Nothing of upstream's is kept here. The module's plain manifests install a controller; what makes an operator of it, and what a small cluster
with a mesh needs to be told, is said here.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

NAMESPACE = "openfaas"
# Where functions are that name no namespace of their own.
FUNCTIONS = "openfaas-fn"
GOMOD, MODULE = "openfaas-operator", "github.com/openfaas/faas-netes"
FILES = ("namespaces.yml", "artifacts/crds/*.yaml", "yaml/*.yml")
GATEWAY, OPERATOR, QUEUE, WORKER, AUTH = "gateway", "faas-netes", "nats", "queue-worker", "basic-auth-plugin"
# What the gateway must find when it starts, and the worker: either gives up where the queue does not answer.
FIRST = (QUEUE, AUTH)
DEPLOYMENTS = (*FIRST, GATEWAY, WORKER, "prometheus", "alertmanager")
# The account under which the gateway and the operator, containers of one pod, are known to Kubernetes and to the mesh.
ACCOUNT = "openfaas-controller"
# Where the gateway, the operator and the queue are asked; the last two by nobody but their neighbours and a check.
GATEWAY_PORT, PROVIDER_PORT, QUEUE_MONITOR = 8080, 8081, 8222
CREDENTIALS = "basic-auth"

# Which image of the catalogue stands for one that upstream's manifests name, whatever tag they give it.
IMAGES: Mapping[str, str] = {
    "ghcr.io/openfaas/gateway": "openfaas-gateway", "ghcr.io/openfaas/faas-netes": "openfaas-operator",
    "ghcr.io/openfaas/queue-worker": "openfaas-queue-worker", "ghcr.io/openfaas/basic-auth": "openfaas-basic-auth",
    "nats-streaming": "nats-streaming", "prom/prometheus": "prometheus", "prom/alertmanager": "alertmanager",
}

# What is told to a container beyond upstream's settings, by the names of its Deployment and its own.
SETTINGS: Mapping[tuple[str, str], Mapping[str, str]] = {
    (GATEWAY, "gateway"): {
        # By default the operator calls a function's pod by its address. That is no host of the mesh, so it is called in plain text, which
        # STRICT refuses; by its Service it is called with the gateway's certificate.
        "direct_functions": "true",
        # Upstream's 60 s, and 65 s for what is around it: nobody here waits for so long.
        "upstream_timeout": "10s", "read_timeout": "15s", "write_timeout": "15s",
    },
    (GATEWAY, OPERATOR): {
        # Functions in the namespaces of a run, not in one for all of them.
        "cluster_role": "true",
        # What is pulled is named with its digest.
        "image_pull_policy": "IfNotPresent",
        # A cold start waits for the first look that succeeds; upstream looks after 2 s, and every 2 s.
        "readiness_probe_initial_delay_seconds": "0", "readiness_probe_period_seconds": "1",
        # A function that two busy cores keep waiting is not dead; upstream gives it three looks of a second.
        "liveness_probe_period_seconds": "10", "liveness_probe_timeout_seconds": "5",
    },
    # Longer than any call may take (the gateway's timeout), or a message that is being worked on would be handed out again. Upstream's is 60 s.
    (WORKER, WORKER): {"ack_wait": "20s"},
}
# What is told on the command line beyond upstream's.
ARGUMENTS: Mapping[tuple[str, str], tuple[str, ...]] = {
    # To notice sooner that a worker is gone (by default after five minutes), so that what it had in hand is handed to another one, and to answer
    # questions of what is in the queue.
    (QUEUE, QUEUE): ("--hb_interval", "5s", "--hb_timeout", "2s", "--hb_fail_count", "2", "-m", str(QUEUE_MONITOR)),
    ("prometheus", "prometheus"): ("--storage.tsdb.path=/prometheus/data", "--storage.tsdb.retention.time=2h"),
}
# Where a program writes: its image here is the program alone, without upstream's folders.
FOLDERS: Mapping[tuple[str, str], str] = {("alertmanager", "alertmanager"): "/alertmanager"}
COMMANDS: Mapping[tuple[str, str], Mapping[str, str]] = {
    (GATEWAY, OPERATOR): {"-operator=false": "-operator=true"},
    # Images of one program have no PATH.
    ("prometheus", "prometheus"): {"prometheus": "/bin/prometheus"},
    ("alertmanager", "alertmanager"): {"alertmanager": "/bin/alertmanager"},
}
# What an operator may do beside a controller, as the module's chart grants it.
RIGHTS: tuple[Mapping[str, Any], ...] = (
    {"apiGroups": ["openfaas.com"], "resources": ["functions", "profiles"], "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]},
)

# A port of the node that nobody here asks for.
_UNWANTED = frozenset({("Service", "gateway-external")})
_ORDER = ("CustomResourceDefinition", "Namespace", "ClusterRole", "ServiceAccount", "Role", "ClusterRoleBinding", "RoleBinding", "ConfigMap", "Secret", "Service")
_CPU = "10m"
# Requests and limits; upstream asks for 120 MiB each, and 512 for Prometheus. The queue keeps its messages in memory.
_MEMORY = {"prometheus": ("96Mi", "512Mi"), OPERATOR: ("32Mi", "256Mi"), QUEUE: ("24Mi", "512Mi")}
_LITTLE = ("24Mi", "128Mi")

Body = dict[str, Any]


def prepared(bodies: Iterable[Mapping[str, Any]], *, image: Callable[[str], str]) -> list[Body]:
    """Return upstream's objects as they are to be applied, in an order in which none needs a later one; the first of several of one name.

    `image` returns what a node pulls for an image of the catalogue. Raises KeyError for an image that stands for none of the catalogue's, and
    for a container or argument that is to be told something and that upstream does not have.
    """
    found: dict[tuple[str, str, str], Body] = {}
    for body in bodies:
        if (body["kind"], body["metadata"]["name"]) not in _UNWANTED:
            found.setdefault((body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]), deepcopy(dict(body)))
    changed = [_prepared(body, image) for body in found.values()]
    told = {(body["metadata"]["name"], one["name"]) for body in changed if body["kind"] == "Deployment" for one in body["spec"]["template"]["spec"]["containers"]}
    if missing := (SETTINGS.keys() | ARGUMENTS.keys() | COMMANDS.keys() | FOLDERS.keys()) - told:
        raise KeyError(f"upstream has no container {'/'.join(min(missing))}")
    return sorted(changed, key=_place)


def split(bodies: Iterable[Body]) -> tuple[list[Body], list[Body]]:
    """Return what may be applied at once, and the Deployments that find the others at work when they start."""
    bodies = list(bodies)
    late = [body for body in bodies if body["kind"] == "Deployment" and body["metadata"]["name"] not in FIRST]
    return [body for body in bodies if body not in late], late


def _place(body: Mapping[str, Any]) -> int:
    kind = str(body["kind"])
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _prepared(body: Body, image: Callable[[str], str]) -> Body:
    name = body["metadata"]["name"]
    if body["kind"] == "CustomResourceDefinition":
        # The generator's blanks: the API server fills them in.
        body.pop("status", None)
        body["metadata"].pop("creationTimestamp", None)
    elif body["kind"] in {"Role", "RoleBinding"} and name == ACCOUNT:
        _everywhere(body)
    elif body["kind"] == "Deployment":
        pod = body["spec"]["template"]["spec"]
        for container in pod["containers"]:
            _tell(container, (name, container["name"]), image)
            if folder := FOLDERS.get((name, container["name"])):
                container["volumeMounts"].append({"name": "written", "mountPath": folder})
                pod["volumes"].append({"name": "written", "emptyDir": {}})
    return body


def _everywhere(body: Body) -> None:
    """Make of a right in one namespace, or of its grant, one in all of them."""
    body["kind"] = f"Cluster{body['kind']}"
    body["metadata"].pop("namespace")
    if "rules" in body:
        body["rules"] += [deepcopy(dict(right)) for right in RIGHTS]
    else:
        body["roleRef"]["kind"] = "ClusterRole"


def _tell(container: Body, who: tuple[str, str], image: Callable[[str], str]) -> None:
    container["image"] = image(IMAGES[str(container["image"]).rpartition(":")[0]])
    container["imagePullPolicy"] = "IfNotPresent"
    settings = SETTINGS.get(who, {})
    if settings:
        kept = [one for one in container["env"] if one["name"] not in settings]
        container["env"] = [*kept, *({"name": name, "value": value} for name, value in settings.items())]
    if who in ARGUMENTS:
        container["args"] = [*container.get("args", ()), *ARGUMENTS[who]]
    for before, after in COMMANDS.get(who, {}).items():
        if before not in container["command"]:
            raise KeyError(f"upstream does not say {before} to {'/'.join(who)}")
        container["command"] = [after if word == before else word for word in container["command"]]
    least, most = _MEMORY.get(container["name"], _LITTLE)
    container["resources"] = {"requests": {"cpu": _CPU, "memory": least}, "limits": {"memory": most}}
