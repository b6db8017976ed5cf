"""The issuer's client: puts documents there, tells it how to behave, asks who fetched them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from clusters.kube import ProxyResponse
from workloads.issuer import CONTROL_PORT
from workloads.issuer.tokens import Issuer

HTTP_OK = 200
DISCOVERY = "/.well-known/openid-configuration"


class Cluster(Protocol):
    """What an issuer's client needs of `clusters.kube.Kube`."""

    def request(  # as Kube has it
        self, pod: str, namespace: str, port: int, method: str, path: str,
        body: bytes | None = None, headers: Mapping[str, str] | None = None, timeout: float = ...,
    ) -> ProxyResponse:
        """Return the pod's answer, whatever its status."""


@dataclass(frozen=True)
class Fetch:
    """How often one peer asked for one document; `agent` is its User-Agent, `peer` its IP address."""

    path: str
    peer: str
    agent: str
    count: int

    def to_json(self) -> dict[str, Any]:
        """Return the fetch as evidence keeps it."""
        return asdict(self)


class IssuerServer:
    """One pod that serves an issuer's public documents. Its methods raise ConnectionError for an answer that is not 200."""

    def __init__(self, kube: Cluster, namespace: str, pod: str, service: str = "issuer") -> None:
        self.namespace = namespace
        self.pod = pod
        # The full name: istiod, which fetches keys, is in another namespace.
        self.url = f"http://{service}.{namespace}.svc.cluster.local"
        self._kube = kube

    def publish(self, issuer: Issuer, path: str = "/jwks") -> str:
        """Serve the issuer's keys at `path`, with the discovery document that leads there; return the address of the keys."""
        address = f"{self.url}{path}"
        self._ask("PUT", f"/_documents{path}", issuer.jwks())
        self._ask("PUT", f"/_documents{DISCOVERY}", json.dumps({"issuer": issuer.name, "jwks_uri": address}))
        return address

    def behave(self, how: str) -> None:
        """Answer, fail (500), hang (no answer at all) or close (connections are refused) from now on."""
        self._ask("POST", f"/_behaviour/{how}")

    def fetches(self) -> list[Fetch]:
        """Return who fetched what since the start or the last reset, answered or not."""
        return self._ask("GET", "/_fetches")

    def reset_fetches(self) -> None:
        """Count fetches from zero."""
        self._ask("POST", "/_fetches/reset")

    def _ask(self, method: str, path: str, body: str | None = None) -> list[Fetch]:
        sent = None if body is None else body.encode()
        answer = self._kube.request(self.pod, self.namespace, CONTROL_PORT, method, path, sent)
        if answer.status != HTTP_OK:
            raise ConnectionError(f"{method} {path} of pod {self.namespace}/{self.pod} answered {answer.status}: {answer.body[:300]!r}")
        return [Fetch(**one) for one in json.loads(answer.body)]
