"""A sample function as a Knative Service: one of the greeters, scaled by Knative between no pod and one."""

from collections.abc import Mapping
from typing import Any

SIDECAR_LABEL = "sidecar.istio.io/inject"


def knative_function(
    name: str,
    image: str,
    *,
    sidecar: bool = True,
    window_s: int = 6,
    timeout_s: int = 60,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    probe: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a function that has never run: no pod until it is asked for, none again once it was idle for `window_s` seconds.

    Its version is its name. Knative takes no window below 6 s; `timeout_s` bounds an answer and, at the activator, the cold start before it.
    `probe` is its readiness probe, without which Knative tries the port. `annotations` and `labels` are those of its pods.
    """
    scaling = {
        "autoscaling.knative.dev/min-scale": "0", "autoscaling.knative.dev/initial-scale": "0", "autoscaling.knative.dev/max-scale": "1",
        "autoscaling.knative.dev/window": f"{window_s}s",
    }
    container: dict[str, Any] = {
        "image": image, "imagePullPolicy": "IfNotPresent", "env": [{"name": "VERSION", "value": name}, {"name": "TARGET", "value": "Serverless World"}],
        "resources": {"requests": {"cpu": "10m", "memory": "24Mi"}},
    }
    if probe is not None:
        container["readinessProbe"] = dict(probe)
    return {
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"template": {
            "metadata": {
                "labels": {**(labels or {}), **({} if sidecar else {SIDECAR_LABEL: "false"})}, "annotations": {**scaling, **(annotations or {})},
            },
            "spec": {"timeoutSeconds": timeout_s, "containers": [container]},
        }},
    }  # fmt: skip
