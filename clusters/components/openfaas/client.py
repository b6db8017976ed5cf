"""The questions a check may ask of OpenFaaS: of the gateway's API by whoever reaches it, and of the operator's objects through the API server."""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from clusters.apiserver import ApiRefused, NotFound
from clusters.components.openfaas.manifests import CREDENTIALS, FUNCTIONS, GATEWAY, GATEWAY_PORT, NAMESPACE, OPERATOR, QUEUE, QUEUE_MONITOR
from clusters.errors import UserError
from clusters.kube import Kube, Resource, Resources
from clusters.timeouts import Timeouts
from clusters.waiting import eventually

FUNCTION = "openfaas.com/v1/Function"
# The label by which a function's pods are found, and the annotation in which the operator keeps the specification that it has carried out.
OF_FUNCTION = "faas_function"
CARRIED_OUT = "com.openfaas.function.spec"
MIN, MAX = "com.openfaas.scale.min", "com.openfaas.scale.max"
# Whom a function's proxy sees where the gateway calls.
PRINCIPAL = f"spiffe://cluster.local/ns/{NAMESPACE}/sa/openfaas-controller"
URL = f"http://{GATEWAY}.{NAMESPACE}.svc.cluster.local:{GATEWAY_PORT}"
# The annotation without which the gateway does not list a namespace, nor keeps secrets in it.
SERVED = "openfaas"
CHANNEL = "faas-request"
ACCEPTED = (200, 201, 202)


@dataclass(frozen=True)
class Credentials:
    """Whom the gateway's API knows; the password stays out of messages and evidence."""

    user: str
    password: str = field(repr=False)

    def header(self) -> tuple[str, str]:
        """Return the header that says so."""
        return "Authorization", "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Answer:
    """What the gateway answered, or did not: `status` is 0 then, and `error` says why."""

    status: int
    body: bytes
    error: str = ""

    def said(self) -> str:
        """Return the answer in one line."""
        return f"{self.status} {' '.join(self.body.decode('utf-8', 'replace').split())[:300]}".strip() if self.status else self.error


class Door(Protocol):
    """A way to the gateway: from inside the cluster, for the API server keeps Authorization for itself."""

    def send(self, method: str, url: str, *, headers: Iterable[tuple[str, str]] = (), body: bytes = b"", timeout_s: float = ...) -> Answer:
        """Send one request, once, and return what came of it."""


class GatewayRefused(UserError):  # noqa: N818  # states what happened
    """The gateway did not do what it was asked; `status` is its answer's, 0 for none."""

    def __init__(self, what: str, *, expected: str, seen: str, hint: str, status: int) -> None:
        self.status = status
        super().__init__(what, expected=expected, seen=seen, hint=hint)


@dataclass(frozen=True)
class Api:
    """The gateway's API, through a door, as somebody; functions are those of one namespace.

    Every method raises GatewayRefused, with one line that says what was asked, what came back and what to try.
    """

    door: Door
    namespace: str
    credentials: Credentials | None = None
    url: str = URL

    def deploy(self, specification: Mapping[str, Any]) -> None:
        """Deploy a function: `service`, `image`, and what else the gateway's API takes."""
        self._ask("POST", "/system/functions", {**specification, "namespace": self.namespace}, what=f"deploy of function {specification.get('service')}")

    def update(self, specification: Mapping[str, Any]) -> None:
        """Replace a function's specification, by the same words."""
        self._ask("PUT", "/system/functions", {**specification, "namespace": self.namespace}, what=f"update of function {specification.get('service')}")

    def delete(self, name: str) -> None:
        """Delete a function."""
        self._ask("DELETE", self._named("/system/functions"), {"functionName": name}, what=f"deletion of function {name}")

    def functions(self) -> list[dict[str, Any]]:
        """Return the functions of the namespace as the gateway tells them.

        Finding: with a function to list and no Prometheus to ask for its calls, the gateway ends the connection without an answer, both in
        this version and in the last one of 2023 (metrics/add_metrics.go: the count of an answer that never came is read all the same).
        """
        found: list[dict[str, Any]] = self._told(self._named("/system/functions"), what="list of functions") or []
        return found

    def function(self, name: str) -> dict[str, Any]:
        """Return one function as the gateway tells it, with its replicas."""
        found: dict[str, Any] = self._told(self._named(f"/system/function/{quote(name)}"), what=f"function {name}")
        return found

    def scale(self, name: str, replicas: int) -> None:
        """Ask for that many pods, whatever the function's own bounds are."""
        asked = {"serviceName": name, "replicas": replicas}
        self._ask("POST", self._named(f"/system/scale-function/{quote(name)}"), asked, what=f"scale of function {name} to {replicas}")

    def alert(self, name: str, *, firing: bool) -> None:
        """Tell the gateway what Alertmanager would: that a function's calls are many, or no longer so."""
        status = "firing" if firing else "resolved"
        alert = {"status": status, "labels": {"alertname": "APIHighInvocationRate", "function_name": f"{name}.{self.namespace}"}}
        self._ask("POST", "/system/alert", {"receiver": "scale-up", "status": status, "alerts": [alert]}, what=f"alert of function {name}, {status}")

    def create_secret(self, name: str, value: str) -> None:
        """Keep a secret for the functions that name it; the value stays out of messages."""
        self._ask("POST", "/system/secrets", {"name": name, "namespace": self.namespace, "value": value}, what=f"secret {name}")

    def update_secret(self, name: str, value: str) -> None:
        """Replace a secret's value."""
        self._ask("PUT", "/system/secrets", {"name": name, "namespace": self.namespace, "value": value}, what=f"secret {name}")

    def delete_secret(self, name: str) -> None:
        """Delete a secret."""
        self._ask("DELETE", "/system/secrets", {"name": name, "namespace": self.namespace}, what=f"deletion of secret {name}")

    def secrets(self) -> list[dict[str, Any]]:
        """Return the secrets of the namespace by name; the gateway tells no value."""
        found: list[dict[str, Any]] = self._told(self._named("/system/secrets"), what="list of secrets") or []
        return found

    def call(self, method: str, path: str, asked: Mapping[str, Any] | None = None) -> Answer:
        """Send a request of the API and return what came of it, whatever it is."""
        headers = [("Content-Type", "application/json"), *([self.credentials.header()] if self.credentials else [])]
        return self.door.send(method, self.url + path, headers=headers, body=json.dumps(asked).encode() if asked is not None else b"")

    def _named(self, path: str) -> str:
        return f"{path}?{urlencode({'namespace': self.namespace})}"

    def _told(self, path: str, *, what: str) -> Any:  # noqa: ANN401  # JSON
        answer = self._ask("GET", path, what=what)
        try:
            return json.loads(answer.body)
        except ValueError:
            raise self._refused(what, "JSON", answer) from None

    def _ask(self, method: str, path: str, asked: Mapping[str, Any] | None = None, *, what: str) -> Answer:
        answer = self.call(method, path, asked)
        if answer.status not in ACCEPTED:
            raise self._refused(what, "200 or 202", answer)
        return answer

    def _refused(self, what: str, expected: str, answer: Answer) -> GatewayRefused:
        hint = _HINTS.get(answer.status, f"look at the log of pod {NAMESPACE}/{GATEWAY}, containers {GATEWAY} and {OPERATOR}")
        seen = answer.said() or "no answer"
        return GatewayRefused(f"{what} in {self.namespace} by OpenFaaS's gateway", expected=expected, seen=seen, hint=hint, status=answer.status)


_HINTS = {
    0: "is the gateway there, and may this caller reach it?",
    400: "correct what the answer names",
    401: f"use the credentials of Secret {CREDENTIALS} in {NAMESPACE}",
    404: "deploy it first, or name another namespace",
    502: "the gateway does not reach the operator beside it",
}


def function_url(name: str, namespace: str = FUNCTIONS, *, asynchronous: bool = False, url: str = URL) -> str:
    """Return where the gateway takes calls of a function."""
    return f"{url}/{'async-' if asynchronous else ''}function/{name}.{namespace}"


def local_url(name: str, namespace: str = FUNCTIONS) -> str:
    """Return where the mesh takes calls of a function, past the gateway."""
    return f"http://{name}.{namespace}.svc.cluster.local:8080"


@dataclass(frozen=True)
class OpenFaasClient:
    """OpenFaaS as a check sees it through the API server: what the operator made, and what is in the queue."""

    kube: Kube
    timeouts: Timeouts

    def credentials(self) -> Credentials | None:
        """Return whom the gateway knows; None where these credentials may not read it."""
        try:
            data = self.kube.get("Secret", CREDENTIALS, NAMESPACE)["data"]
        except ApiRefused:
            return None
        return Credentials(*(base64.b64decode(data[f"basic-auth-{name}"]).decode() for name in ("user", "password")))

    def everywhere(self) -> bool:
        """Tell whether the operator looks after functions in any namespace, and not in one of its own."""
        try:
            containers = self.kube.get("Deployment", GATEWAY, NAMESPACE)["spec"]["template"]["spec"]["containers"]
        except ApiRefused:
            return False
        return any(one["name"] == "cluster_role" and one.get("value") == "true" for each in containers for one in each.get("env") or ())

    def serve(self, namespace: str) -> None:
        """Have the gateway list a namespace of the run's own, and keep secrets in it."""
        self.kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "annotations": {SERVED: "1"}}}])

    def await_ready(self, namespace: str, name: str) -> Resource:
        """Return a function's Deployment once its newest specification is carried out and all its pods are there.

        Raises:
            TimedOut, NeverReached: it is not, or cannot be; the message gives its pods' states.

        """
        eventually(partial(self.assert_carried_out, namespace, name), within=self.timeouts.function_ready, every=0.2, subject=f"function {namespace}/{name} not carried out")
        return self.kube.wait_deployment(namespace, name, self.timeouts.function_ready)

    def assert_carried_out(self, namespace: str, name: str) -> None:
        """Return if the operator has made what a function says now; AssertionError until then."""
        wanted = self.kube.get(FUNCTION, name, namespace)["spec"]
        try:
            deployment = self.kube.get("Deployment", name, namespace)
        except NotFound:
            raise AssertionError("there is no Deployment of its name") from None
        done = json.loads((deployment["metadata"].get("annotations") or {}).get(CARRIED_OUT) or "{}")
        differing = [field for field in {*wanted, *done} if _said(wanted, field) != _said(done, field)]
        assert not differing, f"its Deployment is of an earlier specification: {', '.join(sorted(differing))} differ"

    def wanted(self, namespace: str, name: str) -> int:
        """Return how many pods of a function its Deployment asks for; raises NotFound."""
        return int(self.kube.get("Deployment", name, namespace)["spec"]["replicas"])

    def pods(self, namespace: str, name: str) -> Resources:
        """Return the pods of a function that are not on their way out."""
        return [pod for pod in self.kube.pods(namespace, f"{OF_FUNCTION}={name}") if not pod["metadata"].get("deletionTimestamp")]

    def await_removed(self, namespace: str, *, within: float) -> None:
        """Return once nothing is left of functions that are no more, but for pods on their way out.

        Finding: the operator does not try again what failed, and does not watch what it has made. A Function of the name of one that was deleted
        a moment before meets that one's Deployment, which Kubernetes has still to take away, and is given up: it has no pods until the
        operator looks at everything anew, every five minutes.

        Raises:
            TimedOut: the message names what is left.

        """
        def removed() -> None:
            there = {one["metadata"]["uid"]: one["metadata"]["name"] for one in self.kube.list(FUNCTION, namespace)}
            left = [
                f"{kind} {one['metadata']['name']}" for kind in ("Deployment", "Service") for one in self.kube.list(kind, namespace)
                if any(owner["kind"] == "Function" and owner["uid"] not in there for owner in one["metadata"].get("ownerReferences") or ())
            ]
            left += [
                f"pod {pod['metadata']['name']}" for pod in self.kube.pods(namespace, OF_FUNCTION)
                if pod["metadata"]["labels"][OF_FUNCTION] not in there.values() and not pod["metadata"].get("deletionTimestamp")
            ]
            assert not left, f"{', '.join(left)} left"

        eventually(removed, within=within, every=0.2, subject="functions not removed")

    def own_pods(self, name: str) -> list[str]:
        """Return the pods of one of OpenFaaS's own Deployments that are not on their way out."""
        found = self.kube.pods(NAMESPACE, f"app={name}")
        return [str(pod["metadata"]["name"]) for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def await_own(self, name: str) -> None:
        """Return once one of OpenFaaS's own Deployments has all its pods; raises what `Kube.wait_deployment` raises."""
        self.kube.wait_deployment(NAMESPACE, name, self.timeouts.deployment_available)

    def queue(self) -> dict[str, Any]:
        """Return what the queue says of its channel: `last_seq`, and its `subscriptions` with their `pending_count` and `client_id`.

        Raises ConnectionError when it does not answer.
        """
        (pod,) = self.own_pods(QUEUE)
        answer = self.kube.request(pod, NAMESPACE, QUEUE_MONITOR, "GET", f"/streaming/channelsz?channel={CHANNEL}&subs=1")
        if answer.status not in ACCEPTED:
            raise ConnectionError(f"the queue answered {answer.status}: {answer.body[:200]!r}")
        told: dict[str, Any] = json.loads(answer.body)
        return told

    def await_worked_off(self, *, within: float) -> None:
        """Return once no message of the queue waits, and none is in a worker's hand.

        Raises:
            TimedOut: the message says how many there are.

        """
        def worked_off() -> None:
            told = self.queue()
            subscriptions = told.get("subscriptions") or []
            behind = int(told.get("last_seq", 0)) - max((int(one["last_sent"]) for one in subscriptions), default=0)
            pending = sum(int(one["pending_count"]) for one in subscriptions)
            assert (max(behind, 0), pending) == (0, 0), f"{behind} wait, {pending} are in a worker's hand"

        eventually(worked_off, within=within, every=0.5, ignoring=(ConnectionError,), subject="queue not worked off")


def _said(specification: Mapping[str, Any], field: str) -> Any:  # noqa: ANN401  # JSON has no narrower type
    # The operator writes down what nobody said: an empty list, false.
    return specification.get(field) or None
