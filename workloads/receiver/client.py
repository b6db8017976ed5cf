"""The receiver's client: asks what came and when, and tells an inbox to refuse."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from clusters.kube import ProxyResponse
from workloads.receiver import CONTROL_PORT

HTTP_OK = 200


class Cluster(Protocol):
    """What a receiver's client needs of `clusters.kube.Kube`."""

    def request(self, pod: str, namespace: str, port: int, method: str, path: str) -> ProxyResponse:
        """Return the pod's answer, whatever its status."""


@dataclass(frozen=True)
class Notification:
    """One notification as it came: `at` by the receiver's clock (seconds since 1970), `refused` where it was answered 503.

    `status`, `receiver`, `group` and `alerts` are Alertmanager's own words: firing or resolved, the name of its receiver, the labels that
    the group has in common, and every alert in it.
    """

    inbox: str
    at: float
    refused: bool
    status: str
    receiver: str
    group: Mapping[str, str]
    alerts: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the notification as evidence keeps it."""
        return {**vars(self), "group": dict(self.group), "alerts": [dict(one) for one in self.alerts]}


class Receiver:
    """One pod of a receiver. Its methods raise ConnectionError for an answer that is not 200."""

    def __init__(self, kube: Cluster, namespace: str, pod: str) -> None:
        self.namespace = namespace
        self.pod = pod
        self._kube = kube

    def notifications(self) -> list[Notification]:
        """Return what came since the pod started, oldest first, refused or not."""
        return [_read(one) for one in json.loads(self._ask("GET", "/_notifications"))]

    def refuse(self, inbox: str) -> None:
        """Answer 503 to what is for an inbox from now on."""
        self._ask("POST", f"/_behaviour/refuse/{inbox}")

    def accept(self, inbox: str) -> None:
        """Answer 200 again."""
        self._ask("POST", f"/_behaviour/accept/{inbox}")

    def _ask(self, method: str, path: str) -> bytes:
        answer = self._kube.request(self.pod, self.namespace, CONTROL_PORT, method, path)
        if answer.status != HTTP_OK:
            raise ConnectionError(f"{method} {path} of pod {self.namespace}/{self.pod} answered {answer.status}: {answer.body[:300]!r}")
        return answer.body


def _read(one: Mapping[str, Any]) -> Notification:
    body = one["body"]
    # Go writes nanoseconds where there are any; Python reads six digits.
    at = datetime.fromisoformat(str(one["at"])).timestamp()
    return Notification(
        str(one["inbox"]), at, bool(one["refused"]), str(body.get("status", "")), str(body.get("receiver", "")),
        dict(body.get("groupLabels") or {}), tuple(body.get("alerts") or ()),
    )
