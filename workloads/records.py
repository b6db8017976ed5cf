"""What one call and one draw of calls leave behind: the evidence that judges read."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

NO_ANSWER = 0
SERVER_ERROR = 500


class RecordError(ValueError):
    """A document that is not a record or a draw, said with the field that is missing, unknown or of the wrong type."""


@dataclass(frozen=True)
class CallRecord:
    """One HTTP call as its caller saw it.

    `status` is 0 when no complete HTTP answer came; `error` then says in which phase and why ("read: connection reset by
    peer") and is empty otherwise. Times are in milliseconds: `latency_ms` from the moment the caller turned to the call
    (connecting included, resolving the name not) to the last byte of the answer, `started_ms` since the draw began.
    `version` and `pod` are the function's own word (`x-version`, `x-pod`), empty where something else answered.
    `seen` are the request headers as the function received them; `headers` those of the answer; both with lower-case names.
    `connection` is the local address of the TCP connection, so equal values mean one connection.
    `flags` are Envoy's response flags, joined from its access log; empty until then.
    A call that was due at a time (workloads.load.OpenProfile) counts `started_ms` and `latency_ms` from then, whenever it began: `late_ms`
    after. `stage` names the stretch of the load it was part of. `body` is that of the answer in base64 where the draw asked for it, else empty.
    """

    index: int
    status: int
    error: str
    latency_ms: float
    started_ms: float
    version: str = ""
    pod: str = ""
    request_id: str = ""
    headers: dict[str, list[str]] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)
    connection: str = ""
    flags: str = ""
    late_ms: float = 0.0
    stage: str = ""
    body: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CallRecord:
        """Read a record; `RecordError` where a field is missing, unknown or of another type."""
        return cls(**_checked(document, CALL_FIELDS, required=CALL_REQUIRED, what="call record"))

    @property
    def failed(self) -> bool:
        """Tell whether the call got no answer or a server's error (5xx)."""
        return self.status == NO_ANSWER or self.status >= SERVER_ERROR

    def content(self) -> bytes:
        """Return the answer's body, empty where it was not kept."""
        return base64.b64decode(self.body)


@dataclass(frozen=True)
class Draw:
    """A number of calls made at one request: drawn once, never topped up.

    `count` and `concurrency` are what was asked, `began` is ISO 8601 in UTC by the caller's clock, `seconds` the time from the
    first call's start to the last one's end. `saturated` says what the generator could not keep up with, if anything: such a draw
    supports no claim. `warm_up` calls were made before and are not among the records.
    """

    url: str
    method: str
    count: int
    concurrency: int
    records: tuple[CallRecord, ...]
    began: str
    seconds: float
    saturated: str = ""
    warm_up: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the draw as JSON types, as evidence files keep it."""
        # asdict() copies every nested header value; records are frozen, so 2 000 of them need no such copy.
        document: dict[str, Any] = {name: getattr(self, name) for name in DRAW_FIELDS}
        document["records"] = [{name: getattr(record, name) for name in CALL_FIELDS} for record in self.records]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Draw:
        """Read a draw back from evidence; `RecordError` where it is not one."""
        read = _checked(document, DRAW_FIELDS, required=DRAW_REQUIRED, what="draw")
        read["records"] = tuple(CallRecord.from_json(record) for record in read["records"])
        return cls(**read)

    def statuses(self) -> Counter[int]:
        """Count the answers by status; 0 counts the calls without one."""
        return Counter(record.status for record in self.records)

    def versions(self) -> Counter[str]:
        """Count the answers by the version that gave them; an empty version counts answers that no function gave."""
        return Counter(record.version for record in self.records)

    def pods(self) -> Counter[str]:
        """Count the answers by pod."""
        return Counter(record.pod for record in self.records)

    @property
    def failures(self) -> tuple[CallRecord, ...]:
        """Return the calls without an answer or with a 5xx one, in order."""
        return tuple(record for record in self.records if record.failed)


def with_flags(draw: Draw, entries: Sequence[Mapping[str, Any]]) -> Draw:
    """Return the draw with Envoy's response flags from the access log of the caller's own proxy, joined by request id.

    A call without an entry keeps what it has; "-" is Envoy's word for an entry without a flag.
    """
    logged = {join_key(str(entry.get("request_id") or "")): str(entry.get("response_flags") or "-") for entry in entries}
    return replace(draw, records=tuple(
        replace(record, flags=logged[key]) if record.request_id and (key := join_key(record.request_id)) in logged else record
        for record in draw.records
    ))


def join_key(request_id: str) -> str:
    """Return what a request id has in common before and after a proxy.

    Where tracing is on, Envoy writes its decision into one character of an id that is a UUID: the version's.
    """
    return request_id[:14] + request_id[15:]


Types = type | tuple[type, ...]
CALL_FIELDS: dict[str, Types] = {
    "index": int,
    "status": int,
    "error": str,
    "latency_ms": (int, float),
    "started_ms": (int, float),
    "version": str,
    "pod": str,
    "request_id": str,
    "headers": dict,
    "seen": dict,
    "connection": str,
    "flags": str,
    "late_ms": (int, float),
    "stage": str,
    "body": str,
}
CALL_REQUIRED = frozenset({"index", "status", "error", "latency_ms", "started_ms"})
DRAW_FIELDS: dict[str, Types] = {
    "url": str,
    "method": str,
    "count": int,
    "concurrency": int,
    "records": (list, tuple),
    "began": str,
    "seconds": (int, float),
    "saturated": str,
    "warm_up": int,
}
DRAW_REQUIRED = frozenset(DRAW_FIELDS) - {"saturated", "warm_up"}

# A field added to a class and forgotten in its table would be dropped from evidence in silence.
if [f.name for f in fields(CallRecord)] != list(CALL_FIELDS) or {f.name for f in fields(Draw)} != set(DRAW_FIELDS):
    raise TypeError("the tables of fields and the classes in workloads/records.py disagree")


def _checked(document: Mapping[str, Any], known: Mapping[str, Types], *, required: frozenset[str], what: str) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise RecordError(f"{what}: expected an object, seen {type(document).__name__}")
    if missing := sorted(required - document.keys()):
        raise RecordError(f"{what}: lacks {_listed(missing)}")
    if unknown := sorted(document.keys() - known.keys()):
        raise RecordError(f"{what}: does not know {_listed(unknown)}")
    for name, value in document.items():
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise RecordError(f"{what}: {name} is {value!r}, a {type(value).__name__}")
    return dict(document)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
