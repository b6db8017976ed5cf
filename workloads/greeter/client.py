"""The greeter's client: asks a function's pod what reached it."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from clusters.kube import ProxyResponse
from workloads.greeter import ADMIN_PORT

HTTP_OK = 200
CONTAINER = "greeter"


class Cluster(Protocol):
    """What asking needs of `clusters.kube.Kube`."""

    def request(self, pod: str, namespace: str, port: int, method: str, path: str, body: bytes | None = None) -> ProxyResponse:
        """Return the pod's answer, whatever its status."""

    def logs(self, pod: str, namespace: str, container: str | None = None, *, since: float | str | None = None) -> str:
        """Return a container's log."""


@dataclass(frozen=True)
class Found:
    """Where a container holds a text: names of variables and of files, and how many of each were looked into."""

    environment: tuple[str, ...]
    files: tuple[str, ...]
    variables_searched: int
    files_searched: int

    def to_json(self) -> dict[str, Any]:
        """Return what was found as JSON types, as evidence files keep it."""
        return {**vars(self), "environment": list(self.environment), "files": list(self.files)}


@dataclass(frozen=True)
class Counts:
    """What reached one pod since it started or was last reset, health checks and scrapes left out.

    `by_request_id` knows the last 10 000 ids, `connections` the TCP connections that carried at least one request,
    `most_in_hand` the most requests that were under way at one time.
    """

    total: int
    by_path: dict[str, int]
    by_request_id: dict[str, int]
    connections: int
    most_in_hand: int

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON types, as evidence files keep them."""
        return dict(vars(self))

    def without_ids(self) -> dict[str, Any]:
        """Return the counts as JSON types without the request ids, which a draw's records have already."""
        return {name: value for name, value in vars(self).items() if name != "by_request_id"}


class Greeter:
    """One pod of a function, asked on a port that the mesh leaves alone."""

    def __init__(self, kube: Cluster, namespace: str, pod: str) -> None:
        self.namespace = namespace
        self.pod = pod
        self._kube = kube

    def counts(self) -> Counts:
        """Return the counts. ConnectionError when the pod answers with anything else, or not."""
        return self._ask("GET", "/_counts")

    def reset_counts(self) -> Counts:
        """Count from zero; what arrives meanwhile is counted on one side or the other, never on both."""
        return self._ask("POST", "/_counts/reset")

    def release(self, name: str) -> Counts:
        """Let go every request that `x-greeter-hold: name` holds, now and later; return the counts of that moment."""
        return self._ask("POST", f"/_release/{name}")

    def logged(self, since: str) -> list[dict[str, str]]:
        """Return what the function itself wrote down of each request since a time (RFC 3339): its id, method, path and version."""
        return [json.loads(line) for line in self._kube.logs(self.pod, self.namespace, CONTAINER, since=since).splitlines() if line.startswith('{"request_id"')]

    def search(self, text: str) -> Found:
        """Return where the container's environment and files hold a text; only the names come back, neither the text nor what is around it."""
        said = self._said("POST", "/_search", text.encode())
        return Found(tuple(said["environment"]), tuple(said["files"]), said["variables_searched"], said["files_searched"])

    def _said(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        answer = self._kube.request(self.pod, self.namespace, ADMIN_PORT, method, path, *([] if body is None else [body]))
        if answer.status != HTTP_OK:
            raise ConnectionError(f"{method} {path} of pod {self.namespace}/{self.pod} answered {answer.status}: {answer.body[:300]!r}")
        said: dict[str, Any] = json.loads(answer.body)
        return said

    def _ask(self, method: str, path: str) -> Counts:
        said = self._said(method, path)
        return Counts(said["total"], said["by_path"], said["by_request_id"], said["connections"], said["most_in_hand"])
