"""The questions a check may ask of a Jaeger, of either generation: which spans has a trace, which traces a service, which services are there."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self
from urllib.parse import urlencode

from clusters.kube import NotFound, ProxyResponse

NAMESPACE = "istio-system"
SELECTOR = "app=jaeger"
QUERY_PORT = 16686
ZIPKIN_PORT = 9411
OK, ACCEPTED, NOT_FOUND = 200, 202, 404
# More than this many ids make a query too long for the way through the API server.
IDS_AT_ONCE = 100
# As it was reported: without it Jaeger leaves out spans that it takes for repetitions, and shifts clocks.
RAW = "raw=true"
# Of what Zipkin, OTLP and Envoy call the two sides of a call.
CLIENT, SERVER = "client", "server"


class JaegerUnreachable(ConnectionError):  # noqa: N818  # states what happened
    """Jaeger gave no answer, or none that is one: this says nothing about traces. May be "not yet"."""


class NoSuchTrace(LookupError):  # noqa: N818  # states what happened
    """Jaeger answers and does not have the trace: not yet, not any more, or never sent."""


class Cluster(Protocol):
    """What asking needs of `clusters.kube.Kube`."""

    def pods(self, namespace: str, selector: str | None = None) -> list[dict[str, Any]]:
        """Return the pods of a namespace."""

    def request(  # as Kube has it
        self, pod: str, namespace: str, port: int, method: str, path: str,
        body: bytes | None = None, headers: Mapping[str, str] | None = None,
    ) -> ProxyResponse:
        """Return the pod's answer, whatever its status."""


@dataclass(frozen=True)
class Span:
    """One side of one call as a proxy reported it; times in whole microseconds, `started_us` since 1970.

    `parent_id` is empty for a span without a parent, which does not say that a parent was reported. `kind` is client, server or whatever else
    the span says; `tags` are as Jaeger keeps them, their values text, numbers or truth values.
    """

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    operation: str
    kind: str
    started_us: int
    duration_us: int
    tags: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the span as evidence keeps it."""
        return {**vars(self), "tags": dict(self.tags)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises TypeError on anything else."""
        return cls(**plain)


Trace = tuple[Span, ...]


@dataclass(frozen=True)
class JaegerClient:
    """A Jaeger as a check sees it, through the API server only; by default the testbed's own.

    Every question raises JaegerUnreachable, with one line that names the Jaeger and says why, where no answer can be had.
    """

    kube: Cluster
    namespace: str = NAMESPACE
    selector: str = SELECTOR

    @property
    def where(self) -> str:
        """Which Jaeger this is, as messages say it."""
        return f"Jaeger {self.namespace}/{self.selector}"

    def trace(self, trace_id: str) -> Trace:
        """Return the spans of a trace in the order of their start; raises NoSuchTrace."""
        status, told = self._ask(f"/api/traces/{trace_id}?{RAW}")
        traces = _traces(told, self.where) if status == OK else []
        if not traces:
            raise NoSuchTrace(f"{self.where} has no trace {trace_id}")
        return traces[0]

    def traces_by_id(self, trace_ids: Iterable[str]) -> dict[str, Trace]:
        """Return those of some traces that are there, by the ids they were asked for."""
        wanted = list(dict.fromkeys(trace_ids))
        found: dict[str, Trace] = {}
        for at in range(0, len(wanted), IDS_AT_ONCE):
            part = wanted[at : at + IDS_AT_ONCE]
            # Of several ids, those that are missing are named among errors beside the traces that are there.
            status, told = self._ask(f"/api/traces?{urlencode([('traceID', one) for one in part])}&{RAW}")
            found |= {trace[0].trace_id: trace for trace in (_traces(told, self.where) if status == OK else ())}
        return {one: found[_plain_id(one)] for one in wanted if _plain_id(one) in found}

    def traces(self, service: str, *, since: float, tags: Mapping[str, str] | None = None, most: int = 2000) -> list[Trace]:
        """Return the newest `most` traces that have a span of a service, which began at `since` (seconds since 1970) or later and bears the `tags`.

        A Jaeger that keeps fewer than `most` in memory refuses such a question.
        """
        query = {"service": service, "start": str(int(since * 1e6)), "limit": str(most), **({"tags": json.dumps(dict(tags))} if tags else {})}
        status, told = self._ask(f"/api/traces?{urlencode(query)}&{RAW}")
        return _traces(told, self.where) if status == OK else []

    def services(self) -> list[str]:
        """Return the names of the services of which spans have come, in alphabetical order."""
        _, told = self._ask("/api/services")
        return sorted(told.get("data") or ())

    def send(self, spans: Sequence[Mapping[str, Any]]) -> None:
        """Hand over spans in Zipkin's second JSON form, as a proxy does; they are there when this returns."""
        answer = self._request(ZIPKIN_PORT, "POST", "/api/v2/spans", json.dumps(list(spans)).encode())
        if answer.status not in (OK, ACCEPTED):
            raise JaegerUnreachable(f"{self.where} answered {answer.status} to {len(spans)} spans: {answer.body[:200]!r}")

    def pod(self) -> str:
        """Return the pod that is asked."""
        found = [pod for pod in self.kube.pods(self.namespace, self.selector) if not pod["metadata"].get("deletionTimestamp")]
        running = [str(pod["metadata"]["name"]) for pod in found if (pod.get("status") or {}).get("phase") == "Running"]
        if not running:
            raise JaegerUnreachable(f"{self.where} has no running pod, of {len(found)}")
        return running[0]

    def _ask(self, path: str) -> tuple[int, Mapping[str, Any]]:
        answer = self._request(QUERY_PORT, "GET", path)
        try:
            told = json.loads(answer.body)
        except ValueError:
            told = None
        if answer.status not in (OK, NOT_FOUND) or not isinstance(told, dict):
            raise JaegerUnreachable(f"{self.where} answered {answer.status}: {answer.body[:200]!r}")
        return answer.status, told

    def _request(self, port: int, method: str, path: str, body: bytes | None = None) -> ProxyResponse:
        headers = {"content-type": "application/json"} if body is not None else None
        try:
            return self.kube.request(self.pod(), self.namespace, port, method, path, body, headers)
        except JaegerUnreachable:
            raise
        # The pod is gone, its port does not answer, or it answers too late.
        except (ConnectionError, TimeoutError, NotFound) as error:
            raise JaegerUnreachable(f"{self.where} does not answer: {' '.join(str(error).split())}") from error


def zipkin_span(trace_id: str, *, service: str, name: str, started_us: int, duration_us: int = 1000) -> dict[str, Any]:
    """Return a span without a parent in Zipkin's second JSON form, for `JaegerClient.send`."""
    return {
        "traceId": trace_id, "id": uuid.uuid4().hex[:16], "name": name, "kind": "SERVER", "timestamp": started_us, "duration": duration_us,
        "localEndpoint": {"serviceName": service},
    }


def _plain_id(trace_id: str) -> str:
    """Return a trace's id as Jaeger answers it: 16 digits where they are enough, else 32."""
    number = int(trace_id, 16)
    return f"{number:016x}" if number < 1 << 64 else f"{number:032x}"


def _traces(told: Mapping[str, Any], where: str) -> list[Trace]:
    try:
        return [spans for one in told.get("data") or () if (spans := _spans(one))]
    except (KeyError, TypeError, ValueError) as error:
        raise JaegerUnreachable(f"{where} answered with something that is no trace: {error!r}") from error


def _spans(trace: Mapping[str, Any]) -> Trace:
    services = {key: str(process.get("serviceName", "")) for key, process in trace["processes"].items()}
    return tuple(sorted((_span(one, services) for one in trace["spans"]), key=lambda span: (span.started_us, span.span_id)))


def _span(told: Mapping[str, Any], services: Mapping[str, str]) -> Span:
    tags = {str(tag["key"]): tag["value"] for tag in told.get("tags") or ()}
    parents = [str(one["spanID"]) for one in told.get("references") or () if one["refType"] == "CHILD_OF" and one["traceID"] == told["traceID"]]
    return Span(
        str(told["traceID"]), str(told["spanID"]), parents[0] if parents else "", services[told["processID"]], str(told["operationName"]),
        str(tags.pop("span.kind", "")), int(told["startTime"]), int(told["duration"]), tags,
    )
