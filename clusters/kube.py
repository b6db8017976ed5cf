"""Kube: what the testbed asks of a Kubernetes API server, over the official client."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient, LazyDiscoverer
from kubernetes.dynamic.exceptions import ResourceNotFoundError, ResourceNotUniqueError, ServiceUnavailableError
from kubernetes.dynamic.resource import ResourceInstance
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL

from clusters.apiserver import ANSWER_SECONDS, CONNECT_SECONDS, ApiRefused, ApiServer, NotFound, Unreachable, status_of
from clusters.errors import UserError
from clusters.manifests import Document, load_manifest
from clusters.pods import Prognosis, describe
from clusters.waiting import CLOCK, Clock, GiveUp, TimedOut, eventually
from clusters.watching import Watch

__all__ = ["ApiRefused", "Applied", "ExecFailed", "Kube", "NotFound", "PodUnreachable", "ProxyResponse", "Unreachable"]

FIELD_MANAGER = "faasmesh"
RUN_LABEL = "faasmesh.dev/run"
# A CRD is served a moment after it is stored; its objects may follow in the same manifest.
CRD_SERVED_SECONDS = 30.0

# The kinds a bare name means, where Knative and others have a kind of the same name.
_BARE_KINDS = {
    "v1": "ConfigMap Endpoints Event Namespace Node PersistentVolume PersistentVolumeClaim Pod ResourceQuota Secret Service ServiceAccount",
    "apps/v1": "DaemonSet Deployment ReplicaSet StatefulSet",
    "batch/v1": "CronJob Job",
    "networking.k8s.io/v1": "Ingress NetworkPolicy",
    "rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding Role RoleBinding",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition",
    "admissionregistration.k8s.io/v1": "MutatingWebhookConfiguration ValidatingWebhookConfiguration",
    "gateway.networking.k8s.io/v1": "GatewayClass HTTPRoute",
    "networking.istio.io/v1": "DestinationRule Gateway ServiceEntry Sidecar VirtualService",
}
_API_VERSION_OF = {kind: version for version, kinds in _BARE_KINDS.items() for kind in kinds.split()}


Resource = dict[str, Any]
# Named here because inside Kube, `list` is a method.
Resources = list[Resource]
Names = list[str]


@dataclass(frozen=True)
class Applied:
    """An object as the API server stored it."""

    kind: str
    name: str
    namespace: str | None
    resource_version: str


@dataclass(frozen=True)
class ProxyResponse:
    """A pod's HTTP answer, whatever its status; header names in lower case, repeated headers joined by a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PodUnreachable(ConnectionError):  # noqa: N818  # reads as the others
    """The API server could not reach a pod's port: nothing listens, or no such route. May be "not yet"."""


class ExecFailed(Exception):  # noqa: N818  # reads as the others: TimedOut, NotFound
    """A command in a container did not run, or ended with another status than 0 (`exit_code` None: it never ended)."""

    def __init__(
        self, where: str, argv: Sequence[str], *, exit_code: int | None, stdout: str = "", stderr: str = "", why: str = ""
    ) -> None:
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
        ended = why or f"exited {exit_code}"
        said = " ".join((stderr or stdout).split())[-800:]
        super().__init__(f"{where}: {shlex.join(argv)} {ended}" + (f": {said}" if said else ""))


Stored = list[Applied]


class Kube:
    """One cluster, behind one context of one kubeconfig, which is only read.

    Use one Kube per thread: discovery and the connection pool are shared by its methods without a lock.
    A kind is named bare (`Deployment`) or, where two groups have it, with its version (`serving.knative.dev/v1/Service`).
    Every failure that a person can mend is a UserError: Unreachable, ApiRefused with its `status`, or NotFound.
    """

    def __init__(self, server: ApiServer, clock: Clock = CLOCK) -> None:
        self.server = server
        self._clock = clock
        self._known: DynamicClient | None = None

    @classmethod
    def from_kubeconfig(cls, path: Path | str, context: str | None = None) -> Self:
        """Read `path`; nothing is sent yet. UserError for a missing or invalid file and for an unknown context."""
        return cls(ApiServer.open(Path(path), context))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.server.close()

    # Objects

    def apply(self, docs: Path | Iterable[Document | Mapping[str, Any]], namespace: str | None = None, *, dry_run: bool = False) -> Stored:
        """Apply objects server-side, in their order, as field manager "faasmesh", taking over fields of other managers.

        A path is read by `load_manifest` with `$namespace`. An object without a namespace of its own gets `namespace`.
        Unknown fields are refused. An object whose CRD stands earlier in `docs` waits until that is served.
        Raises ApiRefused, beginning with file, line, kind and name where known; objects before it stay applied.
        """
        promised: set[str] = set()
        applied = []
        for document in _documents(docs, namespace):
            resource = self._resource(_qualified(document.body), document.where, promised)
            place = self._place(resource, document, namespace)
            query = [("fieldManager", FIELD_MANAGER), ("force", "true"), ("fieldValidation", "Strict")]
            if dry_run:
                query.append(("dryRun", "All"))
            stored = self.server.call(
                "PATCH",
                resource.path(name=document.name, namespace=place),
                query=query,
                body=document.body,
                content_type="application/apply-patch+yaml",
                what=document.where,
                expected="a manifest the API server accepts",
            )
            if document.kind == "CustomResourceDefinition":
                promised.add(f"{document.body['spec']['group']}/{document.body['spec']['names']['kind']}")
            applied.append(_applied(stored))
        return applied

    def delete(
        self, docs: Path | Iterable[Document | Mapping[str, Any]], namespace: str | None = None, *, within: float | None = None
    ) -> None:
        """Delete objects in reverse order; what is gone already, or of a kind no longer known, is no error.

        With `within`, wait that many seconds until all of them are gone; raises TimedOut.
        """
        documents = list(reversed(list(_documents(docs, namespace))))
        for document in documents:
            self.delete_one(_qualified(document.body), document.name, document.body["metadata"].get("namespace") or namespace)
        if within is not None:
            deadline = self._clock.monotonic() + within
            for document in documents:
                place = document.body["metadata"].get("namespace") or namespace
                self.await_gone(_qualified(document.body), document.name, place, within=max(0.0, deadline - self._clock.monotonic()))

    def delete_one(self, kind: str, name: str, namespace: str | None = None, *, within: float | None = None, grace_s: int | None = None) -> None:
        """Delete one object with what it owns; no error when it is gone. With `within`, wait that many seconds for its end.

        `grace_s` replaces the time that a pod has to end by itself; 0 kills it.
        """
        try:
            path = self._resource(kind, f"{kind}/{name}").path(name=name, namespace=namespace)
            query = [("propagationPolicy", "Background"), *([] if grace_s is None else [("gracePeriodSeconds", str(grace_s))])]
            self.server.call("DELETE", path, query=query, what=f"delete {kind}/{name}")
        except NotFound:
            return
        if within is not None:
            self.await_gone(kind, name, namespace, within=within)

    def annotate(self, kind: str, name: str, annotations: Mapping[str, str], namespace: str | None = None) -> None:
        """Add annotations to an object, or change them, and leave everything else of it alone; raises NotFound."""
        self.merge(kind, name, {"metadata": {"annotations": dict(annotations)}}, namespace)

    def merge(self, kind: str, name: str, change: Mapping[str, Any], namespace: str | None = None) -> None:
        """Merge a change into an object (RFC 7386: null removes) and leave everything else of it alone; raises NotFound."""
        what = f"change {kind} {_named(namespace, name)}"
        self.server.call(
            "PATCH", self._resource(kind, what).path(name=name, namespace=namespace), query=[("fieldManager", FIELD_MANAGER)],
            body=dict(change), content_type="application/merge-patch+json", what=what,
        )

    def get(self, kind: str, name: str, namespace: str | None = None) -> Resource:
        """Return one object; raises NotFound."""
        what = f"{kind} {_named(namespace, name)}"
        path = self._resource(kind, what).path(name=name, namespace=namespace)
        found: Resource = self.server.call("GET", path, what=what)
        return found

    def list(self, kind: str, namespace: str | None = None, selector: str | None = None, *, fields: str | None = None) -> Resources:
        """Return every object of a kind, in one namespace or in all, by label and field selector."""
        resource = self._resource(kind, kind)
        query = [("limit", "500")]
        query += [("labelSelector", selector)] if selector else []
        query += [("fieldSelector", fields)] if fields else []
        items: Resources = []
        page: Sequence[tuple[str, str]] = ()
        while True:
            answer = self.server.call("GET", resource.path(namespace=namespace), query=[*query, *page], what=f"list {kind}")
            items += answer.get("items") or []
            more = (answer.get("metadata") or {}).get("continue")
            if not more:
                return items
            page = [("continue", more)]

    def watch(self, kind: str, namespace: str) -> Watch:
        """Return a watch of a kind in one namespace from this moment on; it listens as a `with` block."""
        path = self._resource(kind, kind).path(namespace=namespace)
        now = self.server.call("GET", path, query=[("limit", "1")], what=f"list {kind}")["metadata"]["resourceVersion"]
        return Watch(self.server, path, str(now))

    def pods(self, namespace: str, selector: str | None = None) -> Resources:
        """Return the pods of a namespace, by label selector, those that are on their way out included."""
        return self.list("Pod", namespace, selector)

    def events(self, namespace: str) -> Resources:
        """Return the events of a namespace, oldest first."""
        return sorted(self.list("v1/Event", namespace), key=_when)

    # Waiting

    def await_condition(self, kind: str, name: str, condition: str, namespace: str | None = None, *, within: float) -> Resource:
        """Return the object once its status has `condition` (`Available`, or `Available=False`) for its current generation.

        Gives up at once, as NeverReached, when a pod that the object selects cannot come up, or a Job has failed.
        Raises TimedOut with the conditions and the pods' states last seen, after `within` seconds.
        """
        wanted, _, status = condition.partition("=")
        prognosis = Prognosis(self._clock)

        def settled() -> Resource:
            found = self._existing(kind, name, namespace)
            seen = _conditions(found)
            observed = (found.get("status") or {}).get("observedGeneration")
            if observed is not None and observed < found["metadata"].get("generation", 0):
                raise AssertionError(f"its controller has seen generation {observed} of {found['metadata']['generation']}")
            if seen.get(wanted, ("Unknown", ""))[0] == (status or "True"):
                return found
            if found["kind"] == "Job" and wanted == "Complete" and seen.get("Failed", ("",))[0] == "True":
                raise GiveUp(f"the Job failed: {seen['Failed'][1]}")
            raise self._not_yet(found, f"status.conditions lacks {wanted}={status or 'True'} (observed {_said(seen)})", prognosis)

        return eventually(settled, within=within, subject=f"{kind} {_named(namespace, name)} not {condition}", clock=self._clock)

    def wait_deployment(self, namespace: str, name: str, within: float) -> Resource:
        """Return a Deployment once all its replicas are of its current template and available, and no others are left.

        Gives up at once, as NeverReached, when one of its pods cannot come up; TimedOut after `within` seconds.
        """
        prognosis = Prognosis(self._clock)

        def rolled_out() -> Resource:
            found = self._existing("Deployment", name, namespace)
            wanted = found["spec"].get("replicas", 1)
            status = found.get("status") or {}
            updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
            superseded = status.get("replicas", 0) - updated
            current = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
            if current and updated == available == wanted and superseded == 0:
                return found
            seen = _conditions(found)
            if current and seen.get("Progressing", ("",))[0] == "False":
                raise GiveUp(f"Progressing=False {seen['Progressing'][1]}")
            state = f"{available} of {wanted} replicas available, {updated} of the current template, {superseded} of an earlier one"
            if "ReplicaFailure" in seen:
                state += f"; ReplicaFailure {seen['ReplicaFailure'][1]}"
            raise self._not_yet(found, state, prognosis)

        return eventually(rolled_out, within=within, subject=f"Deployment {namespace}/{name} not available", clock=self._clock)

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        """Ask for that many pods of a Deployment; NotFound for a missing one. `wait_deployment` waits for them."""
        path = self._resource("Deployment", f"Deployment/{name}").path(name=name, namespace=namespace)
        self.server.call(
            "PATCH", f"{path}/scale", query=[("fieldManager", FIELD_MANAGER)], body={"spec": {"replicas": replicas}},
            content_type="application/merge-patch+json", what=f"scale Deployment {namespace}/{name}",
        )

    def await_gone(self, kind: str, name: str, namespace: str | None = None, *, within: float) -> None:
        """Return once an object no longer exists; TimedOut names the finalizers that hold it."""

        def gone() -> None:
            try:
                found = self.get(kind, name, namespace)
            except NotFound:
                return
            held = ", ".join(found["metadata"].get("finalizers") or ()) or "no finalizer"
            state = "is being deleted" if "deletionTimestamp" in found["metadata"] else "is not being deleted"
            raise AssertionError(f"it {state}, held by {held}")

        eventually(gone, within=within, subject=f"{kind} {_named(namespace, name)} not gone", clock=self._clock)

    # Pods

    def logs(
        self,
        pod: str,
        namespace: str,
        container: str | None = None,
        *,
        since: float | str | None = None,
        tail: int | None = None,
        previous: bool = False,
        max_bytes: int | None = None,
        stamped: bool = False,
    ) -> str:
        """Return a container's log: of the last `since` seconds or since that time (RFC 3339, the node's clock), the last `tail` lines, the `previous` container; ApiRefused if none.

        With `stamped`, each line begins with the time at which the node's runtime got it (RFC 3339, nanoseconds) and a space.
        """
        query = [("container", container)] if container else []
        if isinstance(since, str):
            query += [("sinceTime", since)]
        elif since is not None:
            query += [("sinceSeconds", str(max(1, round(since))))]
        query += [("tailLines", str(tail))] if tail is not None else []
        query += [("previous", "true")] if previous else []
        query += [("timestamps", "true")] if stamped else []
        query += [("limitBytes", str(max_bytes))] if max_bytes is not None else []
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        return self.server.text("GET", path, query=query, what=f"log of pod {namespace}/{pod} {container or ''}").decode("utf-8", "replace")

    def exec(self, pod: str, namespace: str, container: str, argv: Sequence[str], *, timeout: float = 60.0) -> str:
        """Run a command in a container and return its standard output; no shell unless `argv` names one.

        Raises ExecFailed with its standard error unless it exits 0 within `timeout` seconds; NotFound for a missing pod.
        """
        where = f"pod {namespace}/{pod}, container {container}"
        # Asked first because the websocket has no connect timeout, and says nothing useful about rights.
        self.get("Pod", pod, namespace)
        # A client of its own: `stream` replaces a method of the client it is given while the call lasts.
        core = client.CoreV1Api(client.ApiClient(self.server.client.configuration))
        try:
            socket = stream(
                core.connect_get_namespaced_pod_exec, pod, namespace, container=container, command=[*argv],
                stdout=True, stderr=True, stdin=False, tty=False,
                # Bytes, because a character may be cut in two by a frame.
                binary=True, _preload_content=False,
            )  # fmt: skip
        except ApiException as error:
            raise ExecFailed(where, argv, exit_code=None, why=f"did not start: {_handshake(error)}") from error
        out, err, ended = bytearray(), bytearray(), b""
        deadline = self._clock.monotonic() + timeout
        try:
            while socket.is_open() and self._clock.monotonic() < deadline:
                socket.update(timeout=min(1.0, timeout))
                out += socket.read_stdout(timeout=0)
                err += socket.read_stderr(timeout=0)
            in_time = not socket.is_open()
            ended = socket.read_channel(ERROR_CHANNEL)
        finally:
            socket.close()
            # `close` keeps the descriptor when the other side closed first, which is how every command ends.
            socket.sock.shutdown()
        exit_code, why = _exit_status(ended) if in_time else (None, f"did not end within {timeout:g} s")
        stdout, stderr = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        if exit_code != 0:
            raise ExecFailed(where, argv, exit_code=exit_code, stdout=stdout, stderr=stderr, why=why)
        return stdout

    def request(  # what an HTTP request is made of
        self,
        pod: str,
        namespace: str,
        port: int,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> ProxyResponse:
        """Send one HTTP request to a port of a pod, through the API server, and return the answer whatever its status.

        Never retried and no redirect followed. `path` may carry a query string. The API server cleans paths, keeps
        Authorization for itself and rewrites links in HTML: what depends on these belongs into a caller inside the cluster.
        Raises PodUnreachable (a ConnectionError) when the port does not answer, NoAnswer (a TimeoutError) after `timeout`
        seconds of silence, NotFound for a missing pod, ApiRefused without the right to `pods/proxy`.
        """
        if any(name.lower() == "authorization" for name in headers or ()):
            raise ValueError("Authorization would be taken by the API server; send it from a caller inside the cluster")
        what = f"{method} {path} to pod {namespace}/{pod}:{port}"
        url = f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{quote(path.removeprefix('/'), safe=_URL_SAFE)}"
        answer = self.server.send(method, url, headers=headers, body=body, timeout=timeout)
        refused = status_of(answer)
        if refused is not None:
            if answer.status in {401, 403, 404}:
                raise self.server.refusal(what, answer)
            # 503 when nothing listens, 400 "address not allowed" while the pod has no address.
            raise PodUnreachable(f"{what}: {refused.get('message')}")
        folded: dict[str, str] = {}
        for name, value in answer.headers:
            folded[name.lower()] = f"{folded[name.lower()]}, {value}" if name.lower() in folded else value
        return ProxyResponse(answer.status, folded, answer.body)

    # The cluster

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None) -> Applied:
        """Create a namespace that must not exist yet; ApiRefused with status 409 if it does."""
        metadata = {"name": name, "labels": dict(labels or {}), "annotations": dict(annotations or {})}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        query = [("fieldManager", FIELD_MANAGER)]
        return _applied(self.server.call("POST", "/api/v1/namespaces", query=query, body=body, what=f"namespace {name}"))

    def delete_namespaces(self, selector: str, *, wait: bool = True, within: float = 60.0) -> Names:
        """Delete the namespaces of a run, chosen by the label `faasmesh.dev/run`, and return what remains after `within` seconds.

        Each entry names a namespace and what holds it. With `wait=False` nothing is awaited and the list is empty.
        ValueError for a selector that could match a namespace that no run made.
        """
        if not any(re.fullmatch(rf"\s*{re.escape(RUN_LABEL)}\s*(=.*)?", term) for term in selector.split(",")):
            raise ValueError(f"only namespaces labelled {RUN_LABEL} are ours to delete; got the selector {selector!r}")
        for found in self.list("Namespace", selector=selector):
            if "deletionTimestamp" not in found["metadata"]:
                self.delete_one("Namespace", found["metadata"]["name"])
        if not wait:
            return []

        def gone() -> None:
            remaining = self.list("Namespace", selector=selector)
            assert not remaining, "; ".join(_held(found) for found in remaining)  # a check asserts

        try:
            eventually(gone, within=within, every=1.0, subject=f"namespaces {selector} not gone", clock=self._clock)
        except TimedOut:
            return [_held(found) for found in self.list("Namespace", selector=selector)]
        return []

    def server_version(self) -> str:
        """Return the API server's version, such as `v1.37.2`."""
        return str(self.server.call("GET", "/version", timeout=CONNECT_SECONDS)["gitVersion"])

    def can(self, verb: str, group: str, resource: str, namespace: str | None = None) -> bool:
        """Tell whether these credentials may `verb` a `resource` (`pods`, or `pods/exec`) of an API group ("" is the core)."""
        plural, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": namespace or ""}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {name: value for name, value in attributes.items() if value}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self.server.call("POST", path, body=review, what=f"may I {verb} {resource}?")
        return bool(answer["status"]["allowed"])

    # Discovery

    def _resource(self, kind: str, what: str, promised: Iterable[str] = ()) -> Any:  # noqa: ANN401  # the client publishes no types
        api_version, bare = _split(kind)
        group = api_version.rpartition("/")[0] if api_version else ""
        if f"{group}/{bare}" not in promised:
            return self._discovered(api_version, bare, what)
        return eventually(
            lambda: self._discovered(api_version, bare, what),
            within=CRD_SERVED_SECONDS, ignoring=(NotFound,), subject=f"{what}: its CRD is not served", clock=self._clock,
        )  # fmt: skip

    def _discovered(self, api_version: str | None, kind: str, what: str) -> Any:  # noqa: ANN401  # the client publishes no types
        group, _, version = (api_version or "").rpartition("/")
        wanted = (
            {"kind": kind}
            if not api_version
            else {"prefix": "apis" if group else "api", "group": group, "api_version": version, "kind": kind}
        )
        try:
            if self._known is None:
                self._known = _Dynamic(self.server)
            return self._known.resources.get(**wanted)
        except ResourceNotFoundError:
            raise NotFound(
                what,
                expected=f"a cluster that knows {kind}" + (f" of {api_version}" if api_version else ""),
                seen="no such kind",
                hint="is its component installed, and the apiVersion one that it serves?",
                status=404,
                reason="NotFound",
            ) from None
        except ResourceNotUniqueError as error:
            found = ", ".join(sorted(set(re.findall(r"[\w.-]+/v\w+", str(error)))))
            raise UserError(what, expected="one kind of that name", seen=found, hint=f"write it as apiVersion/{kind}") from None

    def _place(self, resource: Any, document: Document, namespace: str | None) -> str | None:  # noqa: ANN401  # the client publishes no types
        if not resource.namespaced:
            return None
        place = document.body["metadata"].get("namespace") or namespace
        if not place:
            raise UserError(document.where, expected="a namespace", seen="none", hint="apply it with namespace=")
        return str(place)

    def _existing(self, kind: str, name: str, namespace: str | None) -> Resource:
        try:
            return self.get(kind, name, namespace)
        except NotFound as missing:
            raise AssertionError(f"it does not exist: {missing.seen}") from missing

    def _not_yet(self, found: Mapping[str, Any], state: str, prognosis: Prognosis) -> AssertionError:
        """Say what is missing, with its pods' states; raises GiveUp if one of these cannot come up any more."""
        selector = _selector(found)
        if not selector:
            return AssertionError(state)
        place = found["metadata"]["namespace"]
        pods = self.pods(place, selector)
        hopeless = prognosis.hopeless(pods)
        if hopeless and found["kind"] == "Deployment":
            # A broken pod of an earlier template is why this one was applied.
            pods = self._of_current_template(found, pods)
            hopeless = prognosis.hopeless(pods)
        if hopeless:
            raise GiveUp(hopeless)
        described = describe(pods) or ("" if pods else "it has no pod")
        return AssertionError(f"{state}; {described}" if described else state)

    def _of_current_template(self, deployment: Mapping[str, Any], pods: Sequence[Resource]) -> Resources:
        revision = _revision(deployment)
        sets = self.list("ReplicaSet", deployment["metadata"]["namespace"], _selector(deployment))
        current = {found["metadata"]["uid"] for found in sets if _revision(found) == revision}
        return [pod for pod in pods if any(owner["uid"] in current for owner in pod["metadata"].get("ownerReferences") or ())]


# A path's own characters, with those of a query string and of escapes made already.
_URL_SAFE = "/?&=%:@!$'()*+,;~-._"


class _InMemory(LazyDiscoverer):
    """Discovery that is not shared through a file in the temporary folder.

    That file is named by host and port alone, and a new cluster often stands where an old one stood.
    """

    def __init__(self, dynamic: object, _cache_file: object) -> None:
        # A path that can neither be read nor written, which its base takes in its stride.
        super().__init__(dynamic, "/dev/null/never-a-file")  # type: ignore[no-untyped-call]


class _Dynamic(DynamicClient):
    """The dynamic client, over the bounded connection: its own requests have no timeout."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        super().__init__(server.client, discoverer=_InMemory)  # type: ignore[no-untyped-call]

    def request(self, method: str, path: str, serializer: Any = ResourceInstance, **_: object) -> Any:  # noqa: ANN401  # as its base
        """Answer discovery's questions in the words that discovery understands."""
        try:
            found = self._server.call(method.upper(), f"/{path.lstrip('/')}")
        except NotFound as error:
            raise ResourceNotFoundError(str(error)) from error
        except ApiRefused as error:
            if error.status != 503:  # noqa: PLR2004  # HTTP's own word
                raise
            # One broken aggregated API (a metrics server, say) must not hide all the other kinds.
            broken = ApiException(status=503, reason=str(error))
            raise ServiceUnavailableError(broken) from error  # type: ignore[no-untyped-call]
        if serializer is ResourceInstance and not (isinstance(found, dict) and "kind" in found):
            origin = self._server.origin
            raise UserError(
                f"API server {origin.server}",
                expected="a Kubernetes API server",
                seen=f"something else at {path}",
                hint=f"is this its address? ({origin})",
            )
        return serializer(self, found)


def _documents(docs: Path | Iterable[Document | Mapping[str, Any]], namespace: str | None) -> Iterator[Document]:
    if isinstance(docs, Path):
        yield from load_manifest(docs, **({"namespace": namespace} if namespace else {}))
        return
    for doc in docs:
        yield doc if isinstance(doc, Document) else Document(dict(doc))


def _qualified(body: Mapping[str, Any]) -> str:
    return f"{body['apiVersion']}/{body['kind']}"


def _split(kind: str) -> tuple[str | None, str]:
    api_version, _, bare = kind.rpartition("/")
    return api_version or _API_VERSION_OF.get(bare), bare


def _named(namespace: str | None, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _applied(stored: Mapping[str, Any]) -> Applied:
    metadata = stored["metadata"]
    return Applied(stored["kind"], metadata["name"], metadata.get("namespace"), str(metadata.get("resourceVersion", "")))


def _conditions(found: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return type -> (status, "reason: message")."""
    listed = (found.get("status") or {}).get("conditions") or ()
    return {c["type"]: (c["status"], ": ".join(filter(None, (c.get("reason"), c.get("message"))))) for c in listed}


def _said(seen: Mapping[str, tuple[str, str]]) -> str:
    # The story belongs to what is not True; reasons of what holds already are noise.
    return ", ".join(f"{kind}={status}" + (f" {why}" if status != "True" and why else "") for kind, (status, why) in seen.items()) or "none"


def _selector(found: Mapping[str, Any]) -> str:
    selector = (found.get("spec") or {}).get("selector")
    labels = selector.get("matchLabels") if isinstance(selector, Mapping) else None
    return ",".join(f"{name}={value}" for name, value in (labels or {}).items())


def _revision(found: Mapping[str, Any]) -> str | None:
    revision: str | None = (found["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision")
    return revision


def _when(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )


def _held(namespace: Mapping[str, Any]) -> str:
    conditions = (namespace.get("status") or {}).get("conditions") or ()
    holding = [str(c.get("message")) for c in conditions if c.get("status") == "True"]
    return f"{namespace['metadata']['name']}: {'; '.join(holding) or 'still being deleted'}"


def _exit_status(ended: bytes) -> tuple[int | None, str]:
    """Read the last channel of an exec: a Status that carries the exit code, or nothing when the connection broke."""
    try:
        status = json.loads(ended)
    except ValueError:
        return None, "lost its connection before it ended"
    if status.get("status") == "Success":
        return 0, ""
    causes = (status.get("details") or {}).get("causes") or ()
    code = next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), None)
    return code, "" if code is not None else f"did not run: {status.get('message')}"


def _handshake(error: ApiException) -> str:
    """Find the API server's message in a refused websocket handshake, which quotes the whole answer."""
    message = re.search(r'"message":"((?:[^"\\]|\\.)*)"', str(error.reason))
    return message[1].replace('\\"', '"') if message else str(error.reason)
