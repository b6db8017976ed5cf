"""The observed function's client: asks a pod what it counted, and has it write lines."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from clusters.kube import ProxyResponse
from workloads.observed import CONTROL_PORT, METRICS_PORT

HTTP_OK = 200
CONTAINER = "observed"
# Beside the time that its lines take at the rate that is asked for.
SLACK_SECONDS = 30.0


class Cluster(Protocol):
    """What asking needs of `clusters.kube.Kube`."""

    def request(
        self, pod: str, namespace: str, port: int, method: str, path: str, body: bytes | None = None, headers: None = None, timeout: float = ...,
    ) -> ProxyResponse:
        """Return the pod's answer, whatever its status."""

    def logs(self, pod: str, namespace: str, container: str | None = None, *, since: float | str | None = None) -> str:
        """Return a container's log."""


@dataclass(frozen=True)
class Counts:
    """What one pod has answered since it started: requests, those answered with 500 or above, and how often each request id came."""

    invocations: int
    errors: int
    by_request_id: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON types, as evidence files keep them."""
        return dict(vars(self))


@dataclass(frozen=True)
class Observed:
    """One pod of an observed function, asked on ports that the mesh leaves alone."""

    kube: Cluster
    namespace: str
    pod: str

    def counts(self) -> Counts:
        """Return what the pod counted; raises ConnectionError when it answers with anything else, or not."""
        said = self._asked("GET", "/counts")
        return Counts(said["invocations"], said["errors"], said["by_request_id"])

    def metrics(self) -> str:
        """Return what a scraper is told, as Prometheus text; raises ConnectionError where scrapes are refused."""
        return self._sent(METRICS_PORT, "GET", "/metrics").decode()

    def write(self, raw: bytes) -> None:
        """Have the container write these bytes to its standard output, at once and as they are; functions in Go only."""
        self._asked("POST", "/write", raw)

    def emit(self, nonce: str, count: int, *, rate_per_s: float, size: int = 0) -> float:
        """Have the container write `count` lines {"event": "line", "nonce", "n", "pad"} evenly paced; return the seconds it took. Functions in Go only.

        `n` counts from 0, `pad` is `size` characters long. Returns when the last line is written.
        """
        wanted = {"nonce": nonce, "count": count, "rate_per_s": rate_per_s, "size": size}
        return float(self._asked("POST", "/emit", json.dumps(wanted).encode(), timeout=count / rate_per_s + SLACK_SECONDS)["seconds"])

    def logged(self, since: str) -> list[dict[str, Any]]:
        """Return what the function itself wrote down of each request since a time (RFC 3339)."""
        lines = self.kube.logs(self.pod, self.namespace, CONTAINER, since=since).splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"event":"request"')]

    def refuse_scrapes(self, *, refused: bool) -> None:
        """Refuse scrapes with 503 from now on, or answer them again."""
        self._asked("POST", "/scrapes", b"refused" if refused else b"answered")

    def _asked(self, method: str, path: str, body: bytes | None = None, *, timeout: float = SLACK_SECONDS) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._sent(CONTROL_PORT, method, path, body, timeout=timeout))
        return said

    def _sent(self, port: int, method: str, path: str, body: bytes | None = None, *, timeout: float = SLACK_SECONDS) -> bytes:
        answer = self.kube.request(self.pod, self.namespace, port, method, path, body, timeout=timeout)
        if answer.status != HTTP_OK:
            raise ConnectionError(f"{method} {path} of pod {self.namespace}/{self.pod} answered {answer.status}: {answer.body[:300]!r}")
        return answer.body
