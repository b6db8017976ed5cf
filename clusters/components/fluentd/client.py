"""The questions a check may ask of a Fluentd, the node's own or one that it brings: does it read, what waits, what did it say; and what it is made from."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.apiserver import ApiRefused, NoAnswer
from clusters.kube import Kube, PodUnreachable, Resource
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

NAMESPACE = "logging"
NAME = "fluentd"
MONITOR = 24220
ETC = Path(__file__).parent / "etc"


@dataclass(frozen=True)
class Backlog:
    """How far a collector is: lines that it has read since it started, bytes of them that are not delivered, and how often the store has refused the oldest."""

    read: int
    size: int
    retries: int

    def to_json(self) -> dict[str, int]:
        """Return the backlog as evidence keeps it."""
        return dict(vars(self))


@dataclass(frozen=True)
class FluentdClient:
    """Collectors as a check sees them, through the API server only; `image` is what a node pulls for one."""

    kube: Kube
    timeouts: Timeouts
    image: str

    def furnish(self, namespace: str) -> None:
        """Apply to a namespace what every collector there starts from: the configuration, and an account that may ask for pods of this namespace."""
        metadata = {"name": NAME}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}
        self.kube.apply([
            configuration(),
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
             "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata, "roleRef": role,
             "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]},
        ], namespace)

    def await_reading(self, namespace: str, name: str = NAME, *, besides: Collection[str] = ()) -> list[str]:
        """Return the pods of a DaemonSet once they are of its current template, one for each node, and read; those of `besides` do not count.

        Raises TimedOut with how many do.
        """

        def reads() -> list[str]:
            found = self.kube.get("DaemonSet", name, namespace)
            said = not_yet(found)
            assert not said, said
            # Its status is behind where a pod has just ended.
            pods = [pod["metadata"]["name"] for pod in self._pods(namespace, name) if is_ready(pod) and pod["metadata"]["name"] not in besides]
            assert len(pods) == found["status"]["desiredNumberScheduled"], f"{len(pods)} pods beside {', '.join(besides) or 'none'} are ready"
            return pods

        return eventually(reads, within=self.timeouts.deployment_available, every=0.2, subject=f"DaemonSet {namespace}/{name} does not read")

    def pods(self, namespace: str, name: str = NAME) -> list[str]:
        """Return the collectors that are not on their way out."""
        return [str(pod["metadata"]["name"]) for pod in self._pods(namespace, name)]

    def kill(self, namespace: str, name: str = NAME) -> list[str]:
        """End the collectors without notice and return their names; others take their place by themselves."""
        killed = self.pods(namespace, name)
        for pod in killed:
            self.kube.delete_one("Pod", pod, namespace, grace_s=0)
        return killed

    def said(self, namespace: str, name: str = NAME) -> str:
        """Return what the collectors say of themselves."""
        return "\n".join(self.kube.logs(pod, namespace) for pod in self.pods(namespace, name))

    def backlog(self, namespace: str, name: str = NAME) -> Backlog | None:
        """Return what the collectors have yet to deliver, all of them together; None where one cannot be asked."""
        seen = [self._backlog(namespace, pod) for pod in self.pods(namespace, name)]
        told = [one for one in seen if one is not None]
        if not told or len(told) != len(seen):
            return None
        return Backlog(sum(one.read for one in told), sum(one.size for one in told), sum(one.retries for one in told))

    def _pods(self, namespace: str, name: str) -> list[Resource]:
        return [pod for pod in self.kube.pods(namespace, f"app={name}") if not pod["metadata"].get("deletionTimestamp")]

    def _backlog(self, namespace: str, pod: str) -> Backlog | None:
        try:
            answer = self.kube.request(pod, namespace, MONITOR, "GET", "/api/plugins.json")
        except (PodUnreachable, NoAnswer, ApiRefused):
            return None
        return backlog_of(json.loads(answer.body))


def backlog_of(plugins: dict[str, Any]) -> Backlog:
    """Read what Fluentd's monitor says of its outputs that have a buffer."""
    outputs = [one for one in plugins["plugins"] if "buffer_total_queued_size" in one]
    return Backlog(*(sum(int(one.get(key) or 0) for one in outputs) for key in ("emit_records", "buffer_total_queued_size", "retry_count")))


def is_ready(pod: Resource) -> bool:
    """Tell whether a pod says of itself that it is ready."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in (pod.get("status") or {}).get("conditions") or ())


def configuration() -> Resource:
    """Return the ConfigMap with the configuration and the plugin that every collector mounts."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {file.name: file.read_text() for file in sorted(ETC.iterdir())}}


def configuration_key() -> str:
    """Return a digest of the configuration, by which a DaemonSet's template tells one from the next."""
    return hashlib.sha256(json.dumps(configuration()["data"]).encode()).hexdigest()[:16]


def not_yet(found: Resource) -> str:
    """Return what a DaemonSet lacks until every node has a pod of its current template that is ready; empty when nothing."""
    status = found.get("status") or {}
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return "its controller has not seen it"
    wanted, updated, ready = (int(status.get(key) or 0) for key in ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady"))
    return "" if 0 < wanted == updated == ready else f"{ready} of {wanted} pods read, {updated} of the current template"
