"""greeter: the sample function, which says which version and pod of it answered and what it saw of the request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clusters.manifests import load_manifest
from workloads.wiretap import tap

IMAGE = "faasmesh.test/faasmesh/greeter:1"
ADMIN_PORT = 9000
INSTANCE = "app.kubernetes.io/instance"
_MANIFESTS = Path(__file__).parent / "manifests.yaml"


def greeter(
    name: str,
    version: str,
    *,
    service: str | None = None,
    replicas: int = 1,
    service_account: str = "function-sa",
    port: int = 8080,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    drain_s: int = 0,
    wiretap: bool = False,
    inject: bool = True,
) -> list[dict[str, Any]]:
    """Return the ServiceAccount, Service and Deployment of one version of a function.

    The Service `service` (the Deployment's `name` unless given) takes requests on port 80 and is backed by every pod that
    carries its name as label `app`: several versions share a Service by naming the same one. `port` is the container's.
    A pod that is told to end goes on accepting for `drain_s` seconds, so that its callers hear of it before it is gone.
    With `wiretap`, tcpdump writes down what reaches that port; without `inject`, the pods get no sidecar.
    `labels`, `annotations` and `env` are added to those of the pods. Raises ValueError for a label that selects them.
    """
    app = service or name
    selecting = {"app": app, "version": version, INSTANCE: name}
    if taken := sorted(selecting.keys() & (labels or {}).keys()):
        raise ValueError(f"greeter {name}: label {taken[0]} follows from its name, service and version")
    account, front, deployment = (document.body for document in load_manifest(_MANIFESTS))
    account["metadata"]["name"] = service_account
    front["metadata"]["name"] = app
    front["spec"]["selector"] = {"app": app}
    deployment["metadata"]["name"] = name
    deployment["spec"]["replicas"] = replicas
    deployment["spec"]["selector"]["matchLabels"] = {INSTANCE: name}
    template = deployment["spec"]["template"]
    template["metadata"]["labels"] = {**(labels or {}), **selecting}
    template["metadata"]["annotations"] |= annotations or {}
    if not inject:
        template["metadata"]["labels"]["sidecar.istio.io/inject"] = "false"
    pod = template["spec"]
    pod["serviceAccountName"] = service_account
    pod["terminationGracePeriodSeconds"] += drain_s
    container = pod["containers"][0]
    _set_environment(container, {"VERSION": version, "PORT": str(port), "DRAIN_DELAY": f"{drain_s}s", **(env or {})})
    container["ports"][0]["containerPort"] = port
    if wiretap:
        tap(pod, port=port)
    return [account, front, deployment]


def another_front(
    name: str, *, app: str, port: int | str = "http", protocol: str = "http", annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a further Service for the pods whose label `app` is `app`: another host of the mesh, with policies of its own.

    It takes requests on port 80 and sends them to `port` of the pods, by default the one on which they answer; `protocol` is
    what its port's name tells the mesh to speak with them ("http" is HTTP/1.1, "http2" and "grpc" are HTTP/2).
    """
    front = load_manifest(_MANIFESTS)[1].body
    front["metadata"] = {"name": name, "annotations": dict(annotations or {})}
    front["spec"] = {"selector": {"app": app}, "ports": [{**front["spec"]["ports"][0], "name": protocol, "targetPort": port}]}
    return front


def _set_environment(container: dict[str, Any], values: Mapping[str, str]) -> None:
    kept = [entry for entry in container["env"] if entry["name"] not in values]
    container["env"] = [*({"name": name, "value": value} for name, value in values.items()), *kept]
