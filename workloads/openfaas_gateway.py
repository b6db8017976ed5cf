"""OpenFaaS's gateway as a caller in the mesh reaches it: for its API's client, and for who waits until it leads to a function."""

from collections.abc import Iterable
from dataclasses import dataclass

from clusters.components.openfaas.client import Answer
from clusters.waiting import eventually
from workloads.caller.client import Caller

# What the gateway, or a proxy on the way, says where it knows of no pod to call yet.
NOT_YET = frozenset({0, 404, 502, 503})


@dataclass(frozen=True)
class CallerDoor:
    """Sends what the API's client asks by way of a caller's pod, so that the gateway sees a client of the mesh."""

    caller: Caller

    def send(self, method: str, url: str, *, headers: Iterable[tuple[str, str]] = (), body: bytes = b"", timeout_s: float = 20.0) -> Answer:
        """Send one request, once, and return what came of it."""
        draw = self.caller.draw(url, method=method, headers=list(headers), body=body, timeout_s=timeout_s, keep_body=True, fresh_connections=True)
        (record,) = draw.records
        return Answer(record.status, record.content(), record.error)


def await_answered(caller: Caller, *urls: str, within: float) -> None:
    """Return once each url is answered by what is behind it, whatever it says, three times in a row; the answers are thrown away.

    Finding: the gateway waits until Kubernetes calls a pod available and then calls its Service at once; its proxy may hear of the pod a moment
    later, and answers 503 until then.

    Raises:
        TimedOut: the message says which url is answered how.

    """
    def answered() -> None:
        statuses = {url: caller.draw(url, keep_headers=(), keep_seen=()).records[0].status for url in urls}
        waiting = {url: status for url, status in statuses.items() if status in NOT_YET}
        assert not waiting, ", ".join(f"{url} is answered {status}" for url, status in waiting.items())

    eventually(answered, within=within, every=0.2, consecutive=3, subject="functions not answered")
