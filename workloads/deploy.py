"""Deploying: objects are applied and their Deployments awaited, all of them side by side."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from clusters.waiting import CLOCK, Clock


class Cluster(Protocol):
    """What deploying needs of `clusters.kube.Kube`."""

    def apply(self, docs: Iterable[Mapping[str, Any]], namespace: str | None = None) -> object:
        """Apply objects in order."""

    def wait_deployment(self, namespace: str, name: str, within: float) -> object:
        """Return once all replicas are available; gives up at once when they cannot come up."""


def deploy(kube: Cluster, namespace: str, objects: Iterable[Mapping[str, Any]], *, within: float, clock: Clock = CLOCK) -> list[str]:
    """Apply `objects` to `namespace` and wait until every Deployment among them is available; return their names.

    `within` is seconds for all of them together. Raises what `Kube.apply` and `Kube.wait_deployment` raise: UserError for an
    object that is refused, NeverReached for a pod that cannot come up, TimedOut.
    """
    # Several functions bring the same ServiceAccount along.
    distinct = list({json.dumps(one, sort_keys=True): one for one in objects}.values())
    kube.apply(distinct, namespace)
    names = [str(one["metadata"]["name"]) for one in distinct if one["kind"] == "Deployment"]
    deadline = clock.monotonic() + within
    for name in names:
        kube.wait_deployment(namespace, name, max(deadline - clock.monotonic(), 1.0))
    return names
