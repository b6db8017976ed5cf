"""A witness: a program that is asked over the API server, and the difference between its silence and its having nothing to say."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

from clusters.apiserver import ApiRefused, NoAnswer
from clusters.errors import UserError
from clusters.kube import PodUnreachable, ProxyResponse

OK = 200
# A question about a few hundred series is answered in milliseconds; what takes this long is not going to be.
ANSWER_SECONDS = 15.0

Parameters = Mapping[str, str | list[str]]


class Cluster(Protocol):
    """What a witness needs of `clusters.kube.Kube`."""

    def request(  # as Kube has it
        self, pod: str, namespace: str, port: int, method: str, path: str,
        body: bytes | None = None, headers: Mapping[str, str] | None = None, timeout: float = ...,
    ) -> ProxyResponse:
        """Return the pod's answer, whatever its status."""


class WitnessMissing(UserError):  # noqa: N818  # states what happened
    """A witness gave no answer, so that nothing is known: neither that there was something, nor that there was nothing."""


class Refused(Exception):  # noqa: N818  # states what happened
    """A witness answered that the question is wrong; its own words."""


@dataclass
class Witness:
    """One pod's HTTP API. What it said last is remembered, for the message when it says no more."""

    kube: Cluster
    what: str
    pod: str
    namespace: str
    port: int
    _last: str = field(default="", init=False)
    _last_at: float = field(default=0.0, init=False)

    def ask(self, path: str, parameters: Parameters | None = None, *, method: str = "GET", body: object = None) -> Any:  # noqa: ANN401  # JSON
        """Return the JSON that a question is answered with, None for an answer without words.

        Raises:
            WitnessMissing: there is no such pod, nothing listens, or nothing is said in time; the message gives what it said last.
            Refused: it answered with another status than 200.

        """
        target = f"{path}?{urlencode(parameters, doseq=True)}" if parameters else path
        sent = None if body is None else json.dumps(body).encode()
        headers = None if body is None else {"content-type": "application/json"}
        try:
            answer = self.kube.request(self.pod, self.namespace, self.port, method, target, sent, headers, timeout=ANSWER_SECONDS)
        except (PodUnreachable, NoAnswer, ApiRefused) as silent:
            raise self._missing(path, str(silent)) from silent
        if answer.status >= 500:  # noqa: PLR2004  # HTTP's own
            raise self._missing(path, f"{answer.status} {answer.body[:200]!r}")
        if answer.status != OK:
            raise Refused(f"{self.what} {self.namespace}/{self.pod} answered {method} {path} with {answer.status}: {answer.body[:300]!r}")
        self._last, self._last_at = path, time.monotonic()
        return json.loads(answer.body) if answer.body.strip() else None

    def remember(self, said: str) -> None:
        """Take note of what was made of the last answer, in the words of whoever asked."""
        self._last = said

    def _missing(self, path: str, seen: str) -> WitnessMissing:
        last = f"{time.monotonic() - self._last_at:.1f} s ago: {self._last}" if self._last_at else "it has never answered"
        return WitnessMissing(
            f"{self.what} {self.namespace}/{self.pod}", expected=f"an answer to {path}", seen=f"{seen} (last, {last})",
            hint="it is a witness, so nothing is known without it: look at its pod",
        )
