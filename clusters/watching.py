"""Watching objects change: what an API server tells of them, with the moment at which each change was heard of here."""

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import urllib3

from clusters.apiserver import CONNECT_SECONDS, ApiServer, Unreachable

# The server sends a bookmark about once a minute; a silence of this length means that the connection is dead.
SILENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Change:
    """One change of one object: `at` in seconds since 1970 by this machine's clock, `kind` is ADDED, MODIFIED or DELETED."""

    at: float
    kind: str
    body: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.body["metadata"]["name"])


@dataclass
class Watch:
    """The changes of the objects of one path since `since` (a list's resourceVersion), for as long as the block lasts.

    Conditions and time stamps of Kubernetes' own are whole seconds; when a change is heard of here is known to milliseconds, and
    later than it happened by what the API server and a thread of this process need to pass it on.
    """

    server: ApiServer
    path: str
    since: str
    _heard: list[Change] = field(default_factory=list)
    _failure: Unreachable | None = None
    _response: Any = None
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._listen, name=f"watch {self.path}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        response = self._response
        if response is not None:
            # Wakes the thread, which is reading.
            with suppress(OSError, RuntimeError, ValueError):
                response.shutdown()
        if self._thread is not None:
            self._thread.join(CONNECT_SECONDS)

    def changes(self) -> list[Change]:
        """Return what was heard so far, in order.

        Raises:
            Unreachable: the watch ended before its time, so that changes may be missing.

        """
        if self._failure is not None:
            raise self._failure
        return list(self._heard)

    def _listen(self) -> None:
        # A connection of its own: a pool is for one thread.
        server = ApiServer.open(self.server.origin.kubeconfig, self.server.origin.context)
        try:
            while not self._over.is_set():
                self._listen_once(server)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, RuntimeError) as error:
            if not self._over.is_set():
                self._failure = self._lost(str(error) or type(error).__name__)
        finally:
            server.close()

    def _listen_once(self, server: ApiServer) -> None:
        """Listen until the server ends its answer, which it does once in a while; the next one goes on where this one ended."""
        query = [("watch", "true"), ("resourceVersion", self.since), ("allowWatchBookmarks", "true")]
        _, url, headers, _, _ = server.client.param_serialize("GET", self.path, query_params=query, auth_settings=["BearerToken"])
        response = self._response = server.client.rest_client.pool_manager.request(
            "GET", url, headers=headers, timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=SILENCE_SECONDS), retries=False, preload_content=False,
        )
        try:
            if response.status != 200:  # noqa: PLR2004  # HTTP's own word
                raise ValueError(f"status {response.status}: {response.read()[:200]!r}")
            rest = b""
            for chunk in response.stream(1 << 16):
                at = time.time()
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._hear(at, json.loads(line))
        finally:
            response.release_conn()

    def _hear(self, at: float, told: Mapping[str, Any]) -> None:
        kind, body = str(told["type"]), told["object"]
        if kind == "ERROR":
            # 410 Gone: what happened since is no longer known.
            raise ValueError(str(body.get("message", body)))
        self.since = str(body["metadata"]["resourceVersion"])
        if kind != "BOOKMARK":
            self._heard.append(Change(at, kind, body))

    def _lost(self, seen: str) -> Unreachable:
        return Unreachable(
            f"watch of {self.path}", expected="every change, until it is closed", seen=seen, hint=f"is the API server well? {self.server.origin.kubectl} get --raw /readyz",
        )
