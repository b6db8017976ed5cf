"""observed: a function that calls on, forwards the trace context, and says of every request what it saw of it, in its log and its metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clusters.manifests import load_manifest
from workloads.observed_python import IMAGE as PYTHON_IMAGE

IMAGE = "faasmesh.test/faasmesh/observed:1"
RUNTIMES = {"go": IMAGE, "python": PYTHON_IMAGE}
CONTROL_PORT = 9000
METRICS_PORT = 9102
# What the Service carries, and the name of its port: by these the reference's ServiceMonitor finds it.
SCRAPED_APP = "serverless-function"
INSTANCE = "app.kubernetes.io/instance"
_MANIFESTS = Path(__file__).parent / "manifests.yaml"


def observed(
    name: str,
    *,
    runtime: str = "go",
    calls: Sequence[str] = (),
    replicas: int = 1,
    service_account: str = "function-sa",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    inject: bool = True,
) -> list[dict[str, Any]]:
    """Return the ServiceAccount, Service and Deployment of one function, for `World.deploy`.

    `runtime` is one of RUNTIMES; a request makes it call each url of `calls` in order. The Service takes requests on port 80, and
    scrapes on 9102. `labels`, `annotations` and `env` are added to those of the pods; without `inject` they get no sidecar.
    Raises ValueError for an unknown runtime, and for a label by which the pods are found.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"observed function {name}: runtime {runtime!r}, expected one of {', '.join(RUNTIMES)}")
    selecting = {"app": name, INSTANCE: name}
    if taken := sorted(selecting.keys() & (labels or {}).keys()):
        raise ValueError(f"observed function {name}: label {taken[0]} follows from its name")
    account, front, deployment = (document.body for document in load_manifest(_MANIFESTS))
    account["metadata"]["name"] = service_account
    front["metadata"]["name"] = name
    front["spec"]["selector"] = {"app": name}
    deployment["metadata"]["name"] = name
    deployment["spec"]["replicas"] = replicas
    deployment["spec"]["selector"]["matchLabels"] = {INSTANCE: name}
    template = deployment["spec"]["template"]
    template["metadata"]["labels"] = {**(labels or {}), **selecting}
    template["metadata"]["annotations"] |= annotations or {}
    if not inject:
        template["metadata"]["labels"]["sidecar.istio.io/inject"] = "false"
    template["spec"]["serviceAccountName"] = service_account
    container = template["spec"]["containers"][0]
    container["image"] = RUNTIMES[runtime]
    container["env"] += [{"name": variable, "value": value} for variable, value in {"NAME": name, "CALLS": ",".join(calls), **(env or {})}.items()]
    return [account, front, deployment]
