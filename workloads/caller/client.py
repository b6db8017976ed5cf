"""The caller's client: orders a draw from a caller pod and reads one record per call."""

import base64
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from clusters.kube import ProxyResponse
from clusters.waiting import CLOCK, Clock, TimedOut, eventually
from workloads.caller import CONTROL_PORT
from workloads.caller.tls import ClientTls
from workloads.records import Draw, RecordError, with_flags

HTTP_OK = 200
# The answer's way through the API server, and a busy machine's delay before the first call.
SLACK_SECONDS = 30.0
# Envoy writes its access log out once a second; a busy machine takes longer to pass it on.
LOGGED_WITHIN_S = 15.0


class Cluster(Protocol):
    """What a caller needs of `clusters.kube.Kube`: a request to a pod that is sent once, whatever comes of it."""

    def request(  # as Kube has it
        self, pod: str, namespace: str, port: int, method: str, path: str,
        body: bytes | None = None, headers: Mapping[str, str] | None = None, timeout: float = ...,
    ) -> ProxyResponse:
        """Return the pod's answer, whatever its status."""


class DrawIncomplete(Exception):  # noqa: N818  # states what happened
    """A draw that was not made as ordered: refused by the caller, or with another number of records than calls asked for.

    Such a draw is no evidence; it is neither topped up nor repeated.
    """


class Caller:
    """A pod that makes calls, in the mesh or beside it."""

    def __init__(
        self, kube: Cluster, namespace: str, pod: str, *,
        access_log: Callable[[str], Sequence[Mapping[str, Any]]] | None = None, clock: Clock = CLOCK,
    ) -> None:
        """`access_log` returns the entries of the pod's own proxy since a time (RFC 3339); it is asked after failures, or when flags are wanted."""
        self.namespace = namespace
        self.pod = pod
        self._kube = kube
        self._access_log = access_log
        self._clock = clock

    def draw(
        self,
        url: str,
        *,
        count: int = 1,
        concurrency: int = 1,
        method: str = "GET",
        path: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        timeout_s: float = 10.0,
        fresh_connections: bool = False,
        rate_per_s: float | None = None,
        keep_headers: Sequence[str] | None = None,
        keep_seen: Sequence[str] | None = None,
        flags: bool = False,
        keep_body: bool = False,
        protocol: str = "http/1.1",
        tls: ClientTls | None = None,
    ) -> Draw:
        """Make exactly `count` calls, at most `concurrency` at a time, and return their records in order of index.

        `headers` leave in this order with these names, repeats and empty values included; a `Host` among them replaces the
        url's. The target (`path`, else what follows the url's host) leaves as written: neither escaped nor cleaned. No call
        is retried, no redirect followed. `timeout_s` is per call; a call without an answer is a record of status 0. Each of
        the concurrent callers keeps one connection unless `fresh_connections`; `rate_per_s` paces the calls evenly.
        `keep_headers` and `keep_seen` name the response and request headers that records keep, by default all. Failed calls
        carry the flags of the pod's own proxy; with `flags` all do (what a proxy delayed, say, did not fail). With `keep_body` records
        carry the answers' bodies, of at most 1 MiB each.
        `protocol` is "http/1.1", "h2" (prior knowledge) or "grpc"; the latter calls the method that the target names with the
        messages of the standard health service, and its status is said as the HTTP status that Envoy turns into it.
        An `https://` url is called by TLS from the caller itself, as `tls` says, over HTTP/1.1 only: no sidecar should be in its way.

        Raises DrawIncomplete when the draw was not made as ordered, and what `Kube.request` raises when the pod is out of
        reach; then it is unknown how many calls were made.
        """
        order = {
            # An order that something on the way sends a second time is refused instead of drawn again.
            "id": str(uuid.uuid4()),
            "url": url, "method": method, "path": path or "", "headers": [list(header) for header in headers],
            "body_base64": base64.b64encode(body).decode("ascii"), "count": count, "concurrency": concurrency,
            "timeout_ms": round(timeout_s * 1000), "fresh_connections": fresh_connections, "rate_per_s": rate_per_s or 0,
            "keep_headers": _listed(keep_headers), "keep_seen": _listed(keep_seen), "keep_body": keep_body, "protocol": protocol,
            "tls": tls.order() if tls else None,
        }
        # What the draw takes when every call times out; each call is bounded, so the draw is.
        longest = math.ceil(count / max(concurrency, 1)) * timeout_s + (count / rate_per_s if rate_per_s else 0) + SLACK_SECONDS
        answer = self._kube.request(
            self.pod, self.namespace, CONTROL_PORT, "POST", "/draw",
            json.dumps(order).encode(), {"content-type": "application/json"}, timeout=longest,
        )
        what = f"draw of {count} {method} {url} by pod {self.namespace}/{self.pod}"
        if answer.status != HTTP_OK:
            raise DrawIncomplete(f"{what}: the caller answered {answer.status}: {_reason(answer.body)}")
        return self._explained(_complete(_read(answer.body, what), count, what), every=flags)

    def await_service(self, url: str, *, within: float) -> None:
        """Return once a connection to a new Service is taken, whatever becomes of it; for a caller without a sidecar.

        Finding: kube-proxy hears of a Service a moment after the mesh does, up to a second (its `minSyncPeriod`).

        Raises:
            TimedOut: nothing takes connections there.

        """
        def taken() -> None:
            error = self.draw(url, timeout_s=1).records[0].error
            assert not error.startswith(("connect:", "resolve:")), f"{url}: {error}"

        eventually(taken, within=within, every=0.1, consecutive=2, subject=f"Service at {url} not reachable", clock=self._clock)

    def _explained(self, draw: Draw, *, every: bool) -> Draw:
        """Join the flags of failed calls, or of all, so that a judge can tell a function that died from a route that is wrong."""
        log = self._access_log
        if log is None or not (every or draw.failures):
            return draw
        flagged = draw

        def logged() -> None:
            nonlocal flagged
            flagged = with_flags(draw, log(draw.began))
            wanted = flagged.records if every else flagged.failures
            missing = sum(not record.flags for record in wanted)
            assert not missing, f"{missing} of {len(wanted)} calls have no flags in the proxy's log"

        # What was never logged stays without a flag, which excuses nothing.
        with suppress(TimedOut):
            eventually(logged, within=LOGGED_WITHIN_S, clock=self._clock)
        return flagged


def _complete(draw: Draw, count: int, what: str) -> Draw:
    if draw.count != count or [record.index for record in draw.records] != list(range(count)):
        raise DrawIncomplete(f"{what}: expected one record for each of {count} calls, seen {len(draw.records)}")
    return draw


def _read(body: bytes, what: str) -> Draw:
    try:
        return Draw.from_json(json.loads(body))
    except (ValueError, RecordError) as error:
        raise DrawIncomplete(f"{what}: the answer of {len(body)} bytes is not a draw: {error}") from error


def _reason(body: bytes) -> str:
    try:
        said: Any = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        said = body[:300].decode("utf-8", "replace")
    return str(said)


def _listed(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)
