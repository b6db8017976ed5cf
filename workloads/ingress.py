"""Entering the mesh by its ingress gateway, from the host's loopback or from beside the mesh."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import requests

from workloads.caller.client import Caller
from workloads.records import CallRecord, Draw

# The gateway's Service as its own cluster names it.
GATEWAY_SERVICE = "http://istio-ingressgateway.istio-system.svc.cluster.local"


class Ingress(Protocol):
    """A client of the ingress gateway."""

    def draw(self, host: str, path: str, *, count: int = 1) -> Draw:
        """Make `count` GET requests for `path`, naming `host`."""


@dataclass(frozen=True)
class LoopbackIngress:
    """The gateway as the host's loopback reaches it: small draws, through the kind node's port mapping."""

    base_url: str
    timeout_s: float = 10.0
    concurrency: int = 4

    def draw(self, host: str, path: str, *, count: int = 1) -> Draw:
        """Make `count` GET requests; each is recorded, answered or not."""
        began, start = datetime.now(UTC).isoformat(), time.monotonic()
        url = self.base_url + path
        with requests.Session() as session, ThreadPoolExecutor(self.concurrency) as pool:
            # The environment's proxies are for the world outside; the gateway is next door.
            session.trust_env = False
            records = tuple(pool.map(lambda index: self._call(session, index, url, host, start), range(count)))
        return Draw(url, "GET", count, self.concurrency, records, began, time.monotonic() - start)

    def _call(self, session: requests.Session, index: int, url: str, host: str, start: float) -> CallRecord:
        request_id = str(uuid.uuid4())
        sent = time.monotonic()
        status, error = 0, ""
        headers: dict[str, list[str]] = {}
        seen: dict[str, list[str]] = {}
        try:
            answer = session.get(url, headers={"Host": host, "x-request-id": request_id}, timeout=self.timeout_s, allow_redirects=False)
        except requests.RequestException as failure:
            error = f"{type(failure).__name__}: {failure}"
        else:
            status = answer.status_code
            headers = {name.lower(): [value] for name, value in answer.headers.items()}
            seen = answer.json().get("headers", {}) if "x-version" in headers else {}
        return CallRecord(
            index=index, status=status, error=error, latency_ms=1000 * (time.monotonic() - sent), started_ms=1000 * (sent - start),
            version=headers.get("x-version", [""])[0], pod=headers.get("x-pod", [""])[0], request_id=request_id, headers=headers, seen=seen,
        )


@dataclass(frozen=True)
class InClusterIngress:
    """The gateway as a client inside the cluster and outside the mesh reaches it: where the host has no way in."""

    client: Caller

    def draw(self, host: str, path: str, *, count: int = 1) -> Draw:
        """Make `count` GET requests to the gateway's Service."""
        return self.client.draw(GATEWAY_SERVICE + path, count=count, concurrency=4, headers=[("Host", host)])
