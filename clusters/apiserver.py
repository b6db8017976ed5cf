"""The connection to one API server: who is asked, with whose credentials, and what its refusals mean to a person."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from clusters.errors import UserError

# A dead server must be named within 5 s, and a living one accepts a connection in milliseconds.
CONNECT_SECONDS = 4.0
# An apply may pass several admission webhooks, each of which has 10 s by default.
ANSWER_SECONDS = 60.0

# Nothing is asked twice: a POST that was lost half-way may have been carried out, and requests to pods are counted.
_NO_RETRIES = urllib3.Retry(0, redirect=False, status=False, other=0)


class Unreachable(UserError):  # noqa: N818  # states what happened
    """The API server gave no HTTP answer: refused, timed out, or not the server that the kubeconfig's CA vouches for."""


class ApiRefused(UserError):  # noqa: N818  # states what happened
    """The API server answered with an error; `status` is the HTTP one, `reason` Kubernetes' word for it."""

    def __init__(self, what: str, *, expected: str, seen: str, hint: str, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(what, expected=expected, seen=seen, hint=hint)


class NotFound(ApiRefused):
    """The object does not exist (or not yet: name it in `ignoring` to wait for it)."""


class NoAnswer(TimeoutError):  # noqa: N818  # states what happened
    """The request was sent and nothing came back in time; it may or may not have been carried out."""


@dataclass(frozen=True)
class Origin:
    """Where a connection comes from, for messages."""

    kubeconfig: Path
    context: str
    server: str

    def __str__(self) -> str:
        return f"kubeconfig {self.kubeconfig}, context {self.context}, server {self.server}"

    @property
    def kubectl(self) -> str:
        """The kubectl command that talks to the same server."""
        return f"kubectl --kubeconfig {self.kubeconfig} --context {self.context}"


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; header names as sent, looked up without regard to case through `header`."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """Return the first header of that name, or an empty string."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


class ApiServer:
    """One connection pool to one API server. Share it between threads only for reading; better, open one per thread."""

    def __init__(self, api_client: Any, origin: Origin) -> None:  # noqa: ANN401  # the client publishes no types
        self.client = api_client
        self.origin = origin

    @classmethod
    def open(cls, kubeconfig: Path, context: str | None = None) -> "ApiServer":
        """Read a kubeconfig, never write it; nothing is sent yet.

        Raises UserError for a file that is missing or no kubeconfig, and for an unknown context, listing the known ones.
        """
        chosen = _chosen_context(kubeconfig, context)
        configuration = client.Configuration()
        try:
            # persist_config=False: a refreshed token stays in memory.
            config.load_kube_config(str(kubeconfig), chosen, configuration, persist_config=False)  # type: ignore[no-untyped-call]
        except (ConfigException, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise UserError(
                f"kubeconfig {kubeconfig}, context {chosen}",
                expected="a server and credentials that can be loaded",
                seen=str(error) or type(error).__name__,
                hint=f"try: kubectl --kubeconfig {kubeconfig} --context {chosen} version",
            ) from error
        if urlsplit(configuration.host).hostname in {"localhost", "127.0.0.1", "::1"}:
            # As kubectl does: a proxy of the environment cannot know this machine's loopback.
            configuration.proxy = None
        return cls(client.ApiClient(configuration), Origin(kubeconfig, chosen, configuration.host))

    def close(self) -> None:
        """Close the pooled connections."""
        self.client.rest_client.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: object = None,
        content_type: str = "application/json",
        what: str | None = None,
        expected: str | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> Any:  # noqa: ANN401  # JSON
        """Ask the API server itself and return its JSON.

        Raises NotFound, ApiRefused or Unreachable; `what` begins their message and defaults to method and path,
        `expected` is what should have happened instead.
        """
        answer = self.text(method, path, query=query, body=body, content_type=content_type, what=what, expected=expected, timeout=timeout)
        try:
            return json.loads(answer) if answer else {}
        except ValueError as error:
            seen = answer[:80].decode("utf-8", "replace")
            server = f"API server {self.origin.server}"
            raise Unreachable(
                server, expected="JSON from a Kubernetes API server", seen=seen, hint=f"is this its address? ({self.origin})"
            ) from error

    def text(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: object = None,
        content_type: str = "application/json",
        what: str | None = None,
        expected: str | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> bytes:
        """Ask the API server itself and return its answer as it came; raises as `call` does."""
        headers = {"Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = content_type
        encoded = None if body is None else json.dumps(body).encode()
        try:
            answer = self.send(method, path, query=query, headers=headers, body=encoded, timeout=timeout)
        except NoAnswer as silence:
            raise Unreachable(
                f"API server {self.origin.server}",
                expected=f"an answer to {method} {path}",
                seen=f"none within {timeout:g} s",
                hint=f"is it overloaded, or stopped? {self.origin.kubectl} get --raw /readyz",
            ) from silence
        if not 200 <= answer.status < 300:  # noqa: PLR2004  # HTTP's own bounds of success
            raise self.refusal(what or f"{method} {path}", answer, expected)
        return answer.body

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> Answer:
        """Send one request with this connection's credentials and return the answer, whatever its status.

        `timeout` is seconds between two bytes. Nothing is retried, no redirect followed, no body decompressed.
        Raises Unreachable when there is no connection, NoAnswer when there was one but the time is up.
        """
        _, url, own_headers, _, _ = self.client.param_serialize(
            method, path, query_params=list(query) or None, auth_settings=["BearerToken"]
        )
        sent = urllib3.HTTPHeaderDict(own_headers)
        sent.update(headers or {})
        try:
            response = self.client.rest_client.pool_manager.request(
                method,
                url,
                body=body,
                headers=sent,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout),
                retries=_NO_RETRIES,
                decode_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._failure(f"{method} {path}", error, timeout) from error
        return Answer(response.status, tuple(response.headers.items()), response.data)

    def refusal(self, what: str, answer: Answer, expected: str | None = None) -> ApiRefused:
        """Turn an error answer into what the person sees: the server's message and what to do about it."""
        status = status_of(answer) or {}
        reason = str(status.get("reason") or f"HTTP {answer.status}")
        message = str(status.get("message") or answer.body[:500].decode("utf-8", "replace") or reason)
        kind = NotFound if answer.status == 404 else ApiRefused  # noqa: PLR2004  # HTTP's own word
        return kind(
            what,
            expected=expected or _EXPECTED.get(answer.status, "an answer without error from the API server"),
            seen=f"{answer.status} {message}",
            hint=self._hint(answer.status, message),
            status=answer.status,
            reason=reason,
        )

    def _hint(self, status: int, message: str) -> str:
        if "failed calling webhook" in message:
            return "the webhook's own server does not answer; await its Deployment before applying"
        if "denied the request" in message:
            return "an admission webhook refused it; its message names the field"
        if "unknown field" in message or "not declared in schema" in message:
            return "correct the field's name or its indentation"
        if status == 404 and "namespaces" in message:  # noqa: PLR2004
            return "create the namespace first"
        if "typed patch object" in message:
            # Server-side apply answers a value of the wrong type with 500 (seen with Kubernetes 1.37).
            return "correct the type of the value that the message names"
        hints = {
            400: "correct the field that the message names",
            401: f"renew the credentials ({self.origin})",
            403: f"use a context with that right, or have it granted ({self.origin})",
            409: "read the object again: somebody changed it, or it exists already",
            422: "correct the field that the message names",
            429: "the API server is overloaded; give it time",
        }
        return hints.get(status, str(self.origin))

    def _failure(self, what: str, error: Exception, timeout: float) -> Exception:
        cause = getattr(error, "reason", None) or error
        if isinstance(cause, urllib3.exceptions.ReadTimeoutError):
            return NoAnswer(f"{what}: no answer within {timeout:g} s ({self.origin.server})")
        if isinstance(cause, urllib3.exceptions.SSLError) or any(word in str(cause) for word in ("SSL", "PEM", "X509")):
            expected, hint = (
                "a TLS connection that the kubeconfig's certificates allow",
                "does the kubeconfig belong to an earlier cluster?",
            )
        elif isinstance(cause, (urllib3.exceptions.ProtocolError, ConnectionResetError)):
            expected, hint = "an answer", "the connection was closed; is the server restarting?"
        else:
            expected, hint = "an API server that accepts connections", "is the cluster running?"
        # urllib3 begins with the connection's own description, which says nothing beyond `what`.
        seen = re.sub(r"^(<?[\w.]*Connection\w*\([^)]*\)|<[^>]*>): ", "", " ".join(str(cause).split()))
        server = f"API server {self.origin.server}"
        return Unreachable(server, expected=expected, seen=seen, hint=f"{hint} try: {self.origin.kubectl} cluster-info")


def status_of(answer: Answer) -> Mapping[str, Any] | None:
    """Return the Kubernetes `Status` that an answer is, or None when it is something else (a pod's own answer, say)."""
    if "json" not in answer.header("content-type"):
        return None
    try:
        body = json.loads(answer.body)
    except ValueError:
        return None
    if isinstance(body, dict) and body.get("kind") == "Status" and body.get("apiVersion") == "v1":
        return body
    return None


_EXPECTED = {
    400: "a request the API server accepts",
    401: "credentials that the API server knows",
    403: "the right to do this",
    404: "an existing object",
    409: "no conflict",
    422: "a request the API server accepts",
}


def _chosen_context(kubeconfig: Path, context: str | None) -> str:
    try:
        parsed = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"kubeconfig {kubeconfig}",
            expected="a readable file",
            seen=getattr(error, "strerror", None) or str(error),
            hint="pass --kubeconfig",
        ) from error
    except yaml.YAMLError as error:
        raise _no_kubeconfig(kubeconfig, f"invalid YAML: {error}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("contexts"), list):
        raise _no_kubeconfig(kubeconfig, "no list of contexts")
    known = [str(entry.get("name")) for entry in parsed["contexts"] if isinstance(entry, dict)]
    chosen = context or parsed.get("current-context")
    if chosen not in known:
        raise UserError(
            f"kubeconfig {kubeconfig}",
            expected=f"context {chosen}" if chosen else "a current context, or --context",
            seen=_listed(known),
            hint="pass --context with one of these" if known else "is this the right file?",
        )
    return str(chosen)


def _listed(known: Iterable[str]) -> str:
    return ", ".join(sorted(known)) or "no context at all"


def _no_kubeconfig(path: Path, seen: str) -> UserError:
    return UserError(f"kubeconfig {path}", expected="a kubeconfig", seen=seen, hint="kubectl config view shows a valid one")
