"""The media function's client: has it call AWS, by way of a caller in the mesh, and reads what its proxy wrote down."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workloads.caller.client import Caller
from workloads.records import Draw


@dataclass(frozen=True)
class Media:
    """A media function; `access_log` returns the entries of its own proxy since a time (RFC 3339)."""

    caller: Caller
    url: str
    pod: str
    access_log: Callable[[str], Sequence[Mapping[str, Any]]]

    def invoke(
        self, function: str, event: Mapping[str, Any], *, count: int = 1, concurrency: int = 1, headers: Sequence[tuple[str, str]] = (), timeout_s: float = 10.0,
    ) -> Draw:
        """Have it invoke a Lambda function `count` times, at most `concurrency` at a time, with the same event."""
        return self._draw(f"/functions/{function}", json.dumps(event).encode(), count, concurrency, headers, timeout_s)

    def keep(
        self, bucket: str, key: str, content: bytes, *, count: int = 1, headers: Sequence[tuple[str, str]] = (), timeout_s: float = 10.0,
    ) -> Draw:
        """Have it write an object `count` times, one after the other."""
        return self._draw(f"/objects/{bucket}/{key}", content, count, 1, headers, timeout_s)

    def _draw(self, path: str, body: bytes, count: int, concurrency: int, headers: Sequence[tuple[str, str]], timeout_s: float) -> Draw:
        return self.caller.draw(
            self.url, path=path, method="POST", body=body, count=count, concurrency=concurrency, headers=headers, timeout_s=timeout_s, keep_seen=("x-request-id",),
        )
