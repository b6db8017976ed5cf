"""Kube, against a server on the loopback that speaks as much of the API as the case needs."""

import base64
import hashlib
import json
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes
import pytest
import yaml

from clusters.apiserver import NoAnswer
from clusters.errors import UserError
from clusters.kube import ApiRefused, ExecFailed, Kube, NotFound, PodUnreachable, Unreachable
from clusters.manifests import parse
from clusters.waiting import NeverReached, TimedOut
from suites.selftest.clock import FakeClock


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What the server answers; a dict as JSON, bytes as they are."""

    body: Any = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


def refusal(status: int, reason: str, message: str) -> Reply:
    return Reply({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": status}, status)


def resource(kind: str, plural: str, *, namespaced: bool = True) -> dict[str, Any]:
    return {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": ["get"]}


@dataclass
class Api:
    """A test double of the API server: routes by method and path, and what it was asked."""

    routes: dict[tuple[str, str], Reply | Callable[[Asked], Reply]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    frames: tuple[bytes, ...] = ()

    def groups(self, **versions: list[dict[str, Any]]) -> None:
        """Serve API groups: `apps__v1=[...]` is apps/v1."""
        listed = []
        for name, resources in versions.items():
            group, version = name.replace("_dot_", ".").split("__")
            preferred = {"groupVersion": f"{group}/{version}", "version": version}
            listed.append({"name": group, "versions": [preferred], "preferredVersion": preferred})
            self.routes["GET", f"/apis/{group}/{version}"] = Reply({"kind": "APIResourceList", "resources": resources})
        self.routes["GET", "/apis"] = Reply({"kind": "APIGroupList", "groups": listed})

    def of(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    api.routes["GET", "/version"] = Reply({"gitVersion": "v1.37.2"})
    api.routes["GET", "/api/v1"] = Reply(
        {
            "kind": "APIResourceList",
            "resources": [
                resource("Pod", "pods"),
                resource("ConfigMap", "configmaps"),
                resource("Namespace", "namespaces", namespaced=False),
            ],
        }
    )
    api.groups(apps__v1=[resource("Deployment", "deployments"), resource("ReplicaSet", "replicasets")])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body leave in one segment; in two, each answer would wait 40 ms for a delayed acknowledgement.
        wbufsize = -1

        def answer(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            asked = Asked(self.command, parts.path, parse_qs(parts.query), dict(self.headers), self.rfile.read(length))
            api.asked.append(asked)
            if self.headers.get("Upgrade") == "websocket":
                self.upgrade()
                return
            route = api.routes.get((asked.method, asked.path), refusal(404, "NotFound", f"nothing at {asked.path}"))
            reply = route(asked) if callable(route) else route
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            if not isinstance(reply.body, bytes):
                self.send_header("Content-Type", "application/json")
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def upgrade(self) -> None:
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())  # noqa: S324  # RFC 6455
            self.end_headers()
            for frame in api.frames:
                self.wfile.write(b"\x82\x7e" + struct.pack("!H", len(frame)) + frame)
            self.wfile.write(b"\x88\x00")
            self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815  # the base's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        # A connection that a client keeps open must not hold up the end of the test.
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: a client that stopped listening is what some cases are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        api.url = f"http://127.0.0.1:{server.server_port}"
        yield api
        server.shutdown()
        thread.join()


def kubeconfig(folder: Path, url: str, **cluster: object) -> Path:
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": url, **cluster}}],
        "users": [{"name": "u", "user": {"token": "the-token"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
            {"name": "there", "context": {"cluster": "c", "user": "u"}},
        ],
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def kube(api: Api, tmp_path: Path) -> Iterator[Kube]:
    with Kube.from_kubeconfig(kubeconfig(tmp_path, api.url)) as kube:
        kube._clock = FakeClock()
        yield kube


# Kubeconfigs


def test_a_kubeconfig_is_only_read(api: Api, tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, api.url)
    before = path.read_bytes()
    path.chmod(0o400)

    with Kube.from_kubeconfig(path, "there") as kube:
        assert kube.server_version() == "v1.37.2"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_token_goes_with_every_request(api: Api, kube: Kube) -> None:
    kube.server_version()

    assert api.asked[-1].headers["authorization"] == "Bearer the-token"


def test_an_unknown_context_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "https://127.0.0.1:1")

    with pytest.raises(UserError) as caught:
        Kube.from_kubeconfig(path, "elsewhere")
    assert str(caught.value) == f"kubeconfig {path}: expected context elsewhere, seen here, there; hint: pass --context with one of these"


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (None, "No such file"),
        ("a: [", "invalid YAML"),
        ("admin,1,system", "no list of contexts"),
        ("contexts: []", "no context at all"),
        ("contexts: [{name: x}]\ncurrent-context: x", "Invalid kube-config"),
        (b"\xff\xfe\x00", "codec"),
    ],
    ids=["missing", "not yaml", "other file", "empty", "half", "binary"],
)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, content: str | bytes | None, seen: str) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(UserError, match=seen) as caught:
        Kube.from_kubeconfig(path)
    assert str(path) in str(caught.value)


def test_a_dead_server_is_named_with_its_kubeconfig(tmp_path: Path) -> None:
    with closing(socket.socket()) as bound:
        # Bound but not listening: nobody else can take the port, and it refuses.
        bound.bind(("127.0.0.1", 0))
        path = kubeconfig(tmp_path, f"https://127.0.0.1:{bound.getsockname()[1]}")

        with pytest.raises(
            Unreachable,
            match=r"expected an API server that accepts connections, seen .*refused; hint: is the cluster running\? try: kubectl",
        ):
            Kube.from_kubeconfig(path).pods("default")


def test_a_server_that_speaks_no_tls_is_named_as_such(api: Api, tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, api.url.replace("http:", "https:"))

    with pytest.raises(Unreachable, match="TLS connection"):
        Kube.from_kubeconfig(path).pods("default")


def test_a_server_that_says_nothing_is_named_as_silent(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        path = kubeconfig(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")

        with (
            Kube.from_kubeconfig(path) as kube,
            pytest.raises(Unreachable, match=r"expected an answer to GET /version, seen none within 0\.05 s"),
        ):
            kube.server.call("GET", "/version", timeout=0.05)


def test_a_proxy_of_the_environment_is_not_asked_for_the_loopback(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    with Kube.from_kubeconfig(kubeconfig(tmp_path, api.url)) as kube:
        assert kube.server_version() == "v1.37.2"


@pytest.mark.parametrize("body", [b"<html>please log in</html>", b'{"page": 1}', b"[]"], ids=["a page", "other JSON", "a list"])
def test_a_server_that_is_no_api_server_is_named_as_such(api: Api, kube: Kube, body: bytes) -> None:
    api.routes["GET", "/apis"] = Reply(body)

    with pytest.raises(UserError, match=r"expected (JSON from )?a Kubernetes API server"):
        kube.pods("x")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "expected credentials that the API server knows.*renew the credentials"),
        (403, "expected the right to do this.*have it granted"),
    ],
)
def test_missing_rights_are_said_with_the_context(api: Api, kube: Kube, status: int, said: str) -> None:
    api.routes["GET", "/api/v1/namespaces/x/pods"] = refusal(status, "Forbidden", "pods is forbidden")

    with pytest.raises(ApiRefused, match=f"{said}.*context here") as caught:
        kube.pods("x")
    assert caught.value.status == status


# Discovery


def test_discovery_neither_reads_nor_writes_the_clients_shared_cache(
    api: Api, kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    api.routes["GET", "/api/v1/namespaces/x/pods"] = Reply({"items": []})
    # What an earlier cluster on the same host and port would have left.
    stale = tmp_path / f"osrcp-{hashlib.md5(api.url.encode(), usedforsecurity=False).hexdigest()}.json"
    content = json.dumps({"library_version": kubernetes.__version__, "version": {"kubernetes": {"gitVersion": "v0"}}})
    stale.write_text(content)

    assert kube.pods("x") == []
    assert api.of("GET", "/version")
    assert stale.read_text() == content


def test_a_kind_that_appears_later_is_found(api: Api, kube: Kube) -> None:
    with pytest.raises(NotFound, match=r"expected a cluster that knows Widget of example\.com/v1, seen no such kind"):
        kube.get("example.com/v1/Widget", "w", "x")
    api.groups(example_dot_com__v1=[resource("Widget", "widgets")])
    api.routes["GET", "/apis/example.com/v1/namespaces/x/widgets/w"] = Reply({"kind": "Widget"})

    assert kube.get("example.com/v1/Widget", "w", "x") == {"kind": "Widget"}


def test_a_known_kind_costs_one_look_at_its_group(api: Api, kube: Kube) -> None:
    api.routes["GET", "/api/v1/namespaces/x/pods"] = Reply({"items": []})

    for _ in range(3):
        kube.pods("x")

    assert [asked.path for asked in api.asked] == ["/version", "/apis", "/api/v1", *["/api/v1/namespaces/x/pods"] * 3]


def test_a_name_that_two_groups_have_must_be_qualified(api: Api, kube: Kube) -> None:
    api.groups(a_dot_com__v1=[resource("Widget", "widgets")], b_dot_com__v1=[resource("Widget", "widgets")])

    with pytest.raises(UserError, match=r"seen a\.com/v1, b\.com/v1; hint: write it as apiVersion/Widget"):
        kube.get("Widget", "w", "x")


def test_a_broken_aggregated_api_does_not_hide_the_others(api: Api, kube: Kube) -> None:
    api.groups(broken_dot_com__v1=[], example_dot_com__v1=[resource("Widget", "widgets")])
    api.routes["GET", "/apis/broken.com/v1"] = refusal(503, "ServiceUnavailable", "metrics are down")
    api.routes["GET", "/apis/example.com/v1/namespaces/x/widgets/w"] = Reply({"kind": "Widget"})

    assert kube.get("Widget", "w", "x") == {"kind": "Widget"}


# Objects

MANIFEST = """
# a comment
apiVersion: v1
kind: ConfigMap
metadata: {name: one}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: two, namespace: $namespace-other}
"""


def stored(asked: Asked) -> Reply:
    name, place = asked.path.split("/")[-1], asked.path.split("/")[4]
    return Reply({"kind": asked.json["kind"], "metadata": {"name": name, "namespace": place, "resourceVersion": "7"}})


def test_a_manifest_is_applied_server_side(api: Api, kube: Kube, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(MANIFEST)
    for place, name in (("x", "one"), ("x-other", "two")):
        api.routes["PATCH", f"/api/v1/namespaces/{place}/configmaps/{name}"] = stored

    applied = kube.apply(path, "x")

    assert [(one.kind, one.namespace, one.name, one.resource_version) for one in applied] == [
        ("ConfigMap", "x", "one", "7"),
        ("ConfigMap", "x-other", "two", "7"),
    ]
    patches = [asked for asked in api.asked if asked.method == "PATCH"]
    assert patches[0].headers["Content-Type"] == "application/apply-patch+yaml"
    assert patches[0].query == {"fieldManager": ["faasmesh"], "force": ["true"], "fieldValidation": ["Strict"]}
    assert patches[1].json["metadata"] == {"name": "two", "namespace": "x-other"}


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (422, "spec.x: Invalid value", "correct the field"),
        (400, 'strict decoding error: unknown field "spec.y"', "correct the field's name"),
        # What Kubernetes 1.37 answers to a wrong type and to a misspelt field in an apply.
        (500, "failed to create typed patch object (/w): .spec.n: expected numeric, got string", "correct the type"),
        (500, "failed to create typed patch object (/d): .spec.replicaz: field not declared in schema", "correct the field's name"),
        (400, 'admission webhook "validation.istio.io" denied the request: weights', "its message names the field"),
        (500, 'Internal error occurred: failed calling webhook "validation.istio.io"', "await its Deployment"),
    ],
    ids=["invalid", "unknown field", "typed", "undeclared", "webhook says no", "webhook is down"],
)
def test_a_refused_manifest_is_named_by_file_and_line(api: Api, kube: Kube, tmp_path: Path, status: int, message: str, hint: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(MANIFEST)
    api.routes["PATCH", "/api/v1/namespaces/x/configmaps/one"] = stored
    api.routes["PATCH", "/api/v1/namespaces/x-other/configmaps/two"] = refusal(status, "Invalid", message)

    with pytest.raises(ApiRefused) as caught:
        kube.apply(path, "x")

    said = str(caught.value)
    assert said.startswith(f"some.yaml:7 ConfigMap/two: expected a manifest the API server accepts, seen {status} {message}; hint: ")
    assert hint in said
    assert caught.value.status == status


def test_an_object_without_a_namespace_is_refused_before_it_is_sent(api: Api, kube: Kube) -> None:
    with pytest.raises(UserError, match="ConfigMap/one: expected a namespace, seen none"):
        kube.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}])
    assert [asked for asked in api.asked if asked.method == "PATCH"] == []


def test_an_object_waits_until_its_crd_of_the_same_manifest_is_served(api: Api, kube: Kube) -> None:
    crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.com}\nspec: {group: example.com, names: {kind: Widget}}"
    own = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}"
    definitions = resource("CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
    api.groups(apiextensions_dot_k8s_dot_io__v1=[definitions])
    looks = 0

    def later(asked: Asked) -> Reply:
        nonlocal looks
        looks += 1
        if looks == 3:
            api.groups(apiextensions_dot_k8s_dot_io__v1=[definitions], example_dot_com__v1=[resource("Widget", "widgets")])
        return Reply({"gitVersion": "v1.37.2"})

    api.routes["PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com"] = stored
    api.routes["PATCH", "/apis/example.com/v1/namespaces/x/widgets/w"] = stored
    api.routes["GET", "/version"] = later

    assert [one.kind for one in kube.apply(parse(f"{crd}\n---\n{own}", Path("some.yaml")), "x")] == ["CustomResourceDefinition", "Widget"]


def test_a_list_is_read_to_its_last_page(api: Api, kube: Kube) -> None:
    def page(asked: Asked) -> Reply:
        assert asked.query["labelSelector"] == ["app=a"]
        if "continue" in asked.query:
            return Reply({"items": [{"n": 2}], "metadata": {}})
        return Reply({"items": [{"n": 1}], "metadata": {"continue": "more"}})

    api.routes["GET", "/api/v1/namespaces/x/pods"] = page

    assert kube.pods("x", "app=a") == [{"n": 1}, {"n": 2}]


def test_deleting_what_is_gone_is_no_error(api: Api, kube: Kube) -> None:
    kube.delete_one("ConfigMap", "one", "x", within=5)

    assert len(api.of("DELETE", "/api/v1/namespaces/x/configmaps/one")) == 1


def test_an_annotation_is_added_and_nothing_else_of_the_object_sent(api: Api, kube: Kube) -> None:
    path = "/api/v1/namespaces/x/pods/one"
    api.routes["PATCH", path] = Reply({})

    kube.annotate("Pod", "one", {"faasmesh.dev/touched": "1"}, "x")

    (asked,) = api.of("PATCH", path)
    assert asked.json == {"metadata": {"annotations": {"faasmesh.dev/touched": "1"}}}
    assert asked.headers["Content-Type"] == "application/merge-patch+json"


def test_a_pod_is_killed_only_where_it_is_given_no_time(api: Api, kube: Kube) -> None:
    kube.delete_one("Pod", "one", "x", grace_s=0)
    kube.delete_one("Pod", "two", "x")

    killed, ended = api.of("DELETE", "/api/v1/namespaces/x/pods/one")[0], api.of("DELETE", "/api/v1/namespaces/x/pods/two")[0]
    assert killed.query["gracePeriodSeconds"] == ["0"]
    assert "gracePeriodSeconds" not in ended.query


def test_what_does_not_go_is_named_with_what_holds_it(api: Api, kube: Kube) -> None:
    path = "/api/v1/namespaces/x/configmaps/one"
    api.routes["DELETE", path] = Reply({})
    api.routes["GET", path] = Reply({"metadata": {"deletionTimestamp": "now", "finalizers": ["example.com/hold"]}})

    with pytest.raises(TimedOut, match=r"ConfigMap x/one not gone after 5\.0 s.*it is being deleted, held by example\.com/hold"):
        kube.delete_one("ConfigMap", "one", "x", within=5)


@pytest.mark.parametrize(
    "selector", ["", "app=a", "!faasmesh.dev/run", "faasmesh.dev/run!=a", "faasmesh.dev/runner=a", "faasmesh.dev/run notin (a)"]
)
def test_only_namespaces_of_runs_can_be_deleted(api: Api, kube: Kube, selector: str) -> None:
    with pytest.raises(ValueError, match="are ours to delete"):
        kube.delete_namespaces(selector)
    assert api.asked == []


def test_namespaces_that_remain_are_returned_with_what_holds_them(api: Api, kube: Kube) -> None:
    held = {
        "metadata": {"name": "a"},
        "status": {"conditions": [{"type": "X", "status": "True", "message": "pods. has 1 resource instances"}]},
    }
    going = {"metadata": {"name": "b", "deletionTimestamp": "now"}}
    api.routes["GET", "/api/v1/namespaces"] = Reply({"items": [held, going]})
    api.routes["DELETE", "/api/v1/namespaces/a"] = Reply({})

    remaining = kube.delete_namespaces("faasmesh.dev/run=r1,x=y", within=5)

    assert remaining == ["a: pods. has 1 resource instances", "b: still being deleted"]
    assert [asked.path for asked in api.asked if asked.method == "DELETE"] == ["/api/v1/namespaces/a"]


def test_rights_are_asked_of_the_server(api: Api, kube: Kube) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    api.routes["POST", path] = lambda asked: Reply({"status": {"allowed": asked.json["spec"]["resourceAttributes"]["verb"] == "list"}})

    assert kube.can("list", "", "pods", "x")
    assert not kube.can("create", "", "pods/exec")
    assert api.of("POST", path)[1].json["spec"]["resourceAttributes"] == {"verb": "create", "resource": "pods", "subresource": "exec"}


# Waiting

DEPLOYMENT = "/apis/apps/v1/namespaces/x/deployments/d"


def deployment(available: int = 0, **status: object) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "x", "generation": 2, "annotations": {"deployment.kubernetes.io/revision": "2"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}}},
        "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": available, **status},
    }


def pod(waiting: dict[str, str] | None = None, *, owner: str = "new", restarts: int = 0) -> dict[str, Any]:
    status = {"name": "app", "restartCount": restarts, "state": {"waiting": waiting} if waiting else {"running": {}}}
    return {
        "metadata": {"name": f"d-{owner}", "uid": f"pod-{owner}", "ownerReferences": [{"uid": owner}]},
        "spec": {"containers": [{"name": "app", "image": "greeter:1"}]},
        "status": {"phase": "Pending", "containerStatuses": [status]},
    }


def world(api: Api, found: dict[str, Any], *pods: dict[str, Any]) -> None:
    sets = [
        {"metadata": {"uid": uid, "annotations": {"deployment.kubernetes.io/revision": revision}}}
        for uid, revision in (("old", "1"), ("new", "2"))
    ]
    api.routes["GET", DEPLOYMENT] = Reply(found)
    api.routes["GET", "/api/v1/namespaces/x/pods"] = Reply({"items": list(pods)})
    api.routes["GET", "/apis/apps/v1/namespaces/x/replicasets"] = Reply({"items": sets})


NO_IMAGE = {"reason": "ErrImagePull", "message": "manifest for greeter:1 not found"}
WAITS: list[Callable[[Kube], object]] = [
    lambda kube: kube.wait_deployment("x", "d", within=60),
    lambda kube: kube.await_condition("Deployment", "d", "Available", "x", within=60),
]


@pytest.mark.parametrize("wait", WAITS, ids=["wait_deployment", "await_condition"])
def test_an_image_that_cannot_be_pulled_ends_the_wait_at_once(api: Api, kube: Kube, wait: Callable[[Kube], object]) -> None:
    world(api, deployment(), pod(NO_IMAGE))

    with pytest.raises(NeverReached) as caught:
        wait(kube)

    assert caught.value.attempts == 1
    assert (
        "after 0.0 s, 1 attempt, and never will be: pod d-new, container app, image greeter:1: ErrImagePull: manifest for greeter:1 not found; hint: "
        in str(caught.value)
    )


def test_a_broken_pod_of_the_template_before_does_not_end_the_wait(api: Api, kube: Kube) -> None:
    world(api, deployment(), pod(NO_IMAGE, owner="old"), pod({"reason": "ContainerCreating"}))

    with pytest.raises(
        TimedOut, match=r"0 of 1 replicas available, 1 of the current template, 0 of an earlier one; pod d-new: app ContainerCreating$"
    ):
        kube.wait_deployment("x", "d", within=2)


def test_a_rollout_is_over_only_without_pods_of_the_template_before(api: Api, kube: Kube) -> None:
    world(api, deployment(available=1, replicas=2), pod())

    with pytest.raises(TimedOut, match="1 of an earlier one"):
        kube.wait_deployment("x", "d", within=2)


def test_a_status_of_the_generation_before_does_not_count(api: Api, kube: Kube) -> None:
    world(api, deployment(available=1, observedGeneration=1), pod())

    with pytest.raises(TimedOut):
        kube.wait_deployment("x", "d", within=2)
    with pytest.raises(TimedOut, match="its controller has seen generation 1 of 2"):
        kube.await_condition("Deployment", "d", "Available", "x", within=2)


def test_an_available_deployment_is_returned(api: Api, kube: Kube) -> None:
    world(api, deployment(available=1), pod())

    assert kube.wait_deployment("x", "d", within=2)["metadata"]["name"] == "d"


def test_a_rollout_that_its_controller_gave_up_ends_the_wait(api: Api, kube: Kube) -> None:
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "has timed out"}
    world(api, deployment(conditions=[condition]), pod())

    with pytest.raises(NeverReached, match="ProgressDeadlineExceeded: has timed out"):
        kube.wait_deployment("x", "d", within=60)


def test_conditions_seen_are_said(api: Api, kube: Kube) -> None:
    condition = {"type": "Available", "status": "False", "reason": "Minimum", "message": "does not have minimum"}
    world(api, deployment(conditions=[condition]))

    with pytest.raises(TimedOut, match=r"lacks Available=True \(observed Available=False Minimum: does not have minimum\); it has no pod"):
        kube.await_condition("Deployment", "d", "Available", "x", within=1)
    assert kube.await_condition("Deployment", "d", "Available=False", "x", within=1)


def test_an_object_that_does_not_exist_yet_is_awaited(api: Api, kube: Kube) -> None:
    def later(asked: Asked) -> Reply:
        if len(api.of("GET", DEPLOYMENT)) < 3:
            return refusal(404, "NotFound", 'deployments.apps "d" not found')
        return Reply(deployment(available=1))

    api.routes["GET", DEPLOYMENT] = later

    assert kube.wait_deployment("x", "d", within=60)
    assert len(api.of("GET", DEPLOYMENT)) == 3


def test_a_failed_job_ends_the_wait_for_its_completion(api: Api, kube: Kube) -> None:
    api.groups(batch__v1=[resource("Job", "jobs")])
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "no more"}
    api.routes["GET", "/apis/batch/v1/namespaces/x/jobs/j"] = Reply(
        {"kind": "Job", "metadata": {"namespace": "x"}, "status": {"conditions": [failed]}}
    )

    with pytest.raises(NeverReached, match="the Job failed: BackoffLimitExceeded: no more"):
        kube.await_condition("Job", "j", "Complete", "x", within=60)


# Pods

PROXY = "/api/v1/namespaces/x/pods/caller:9000/proxy/draw"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_request_reaches_the_pod_as_it_was_made(api: Api, kube: Kube, method: str) -> None:
    api.routes[method, PROXY] = Reply(b"\x00gone", 418, (("X-Seen", "a"), ("X-Seen", "b"), ("Content-Type", "text/teapot")))

    answer = kube.request(
        "caller", "x", 9000, method, "/draw?count=3&q=a%2Fb&empty=", b'{"a": 1}', {"content-type": "application/x-mine", "X-Own": "1"}
    )

    assert (answer.status, answer.body, answer.headers["x-seen"], answer.headers["content-type"]) == (
        418,
        b"\x00gone",
        "a, b",
        "text/teapot",
    )
    (asked,) = api.asked
    assert (asked.method, asked.path, asked.body) == (method, PROXY, b'{"a": 1}')
    assert asked.query == {"count": ["3"], "q": ["a/b"]}
    sent = {name.lower(): value for name, value in asked.headers.items()}
    assert (sent["content-type"], sent["x-own"], sent["authorization"]) == ("application/x-mine", "1", "Bearer the-token")


def test_a_redirect_of_the_pod_is_its_answer(api: Api, kube: Kube) -> None:
    api.routes["GET", PROXY] = Reply(b"", 302, (("Location", "/elsewhere"),))

    assert kube.request("caller", "x", 9000, "GET", "draw").status == 302
    assert len(api.asked) == 1


def test_a_compressed_answer_stays_as_it_is(api: Api, kube: Kube) -> None:
    api.routes["GET", PROXY] = Reply(b"not gzip at all", 200, (("Content-Encoding", "gzip"),))

    assert kube.request("caller", "x", 9000, "GET", "/draw").body == b"not gzip at all"


@pytest.mark.parametrize(
    ("status", "message"),
    [(503, "error trying to reach service: dial tcp 10.0.0.1:9000: connect: connection refused"), (400, "address not allowed")],
)
def test_a_port_that_does_not_answer_is_a_connection_error(api: Api, kube: Kube, status: int, message: str) -> None:
    api.routes["POST", PROXY] = refusal(status, "X", message)

    with pytest.raises(PodUnreachable, match="POST /draw to pod x/caller:9000") as caught:
        kube.request("caller", "x", 9000, "POST", "/draw")
    assert isinstance(caught.value, ConnectionError)
    assert message in str(caught.value)
    assert len(api.asked) == 1


def test_an_error_of_the_pod_itself_is_its_answer(api: Api, kube: Kube) -> None:
    api.routes["POST", PROXY] = Reply({"error": "overloaded"}, 503)

    assert kube.request("caller", "x", 9000, "POST", "/draw").status == 503


def test_a_missing_pod_is_not_found(kube: Kube) -> None:
    with pytest.raises(NotFound, match="pod x/caller:9000"):
        kube.request("caller", "x", 9000, "POST", "/draw")


def test_a_request_that_is_not_answered_is_not_sent_again(api: Api, kube: Kube) -> None:
    released = threading.Event()

    def hang(asked: Asked) -> Reply:
        released.wait(5)
        return Reply({})

    api.routes["GET", PROXY] = hang

    with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s"):
        kube.request("caller", "x", 9000, "GET", "/draw", timeout=0.05)
    released.set()
    assert len(api.asked) == 1


def test_authorization_cannot_be_sent_to_a_pod(kube: Kube) -> None:
    with pytest.raises(ValueError, match="taken by the API server"):
        kube.request("caller", "x", 9000, "GET", "/", headers={"AUTHORIZATION": "Bearer x"})


def test_a_log_is_asked_for_with_its_bounds(api: Api, kube: Kube) -> None:
    path = "/api/v1/namespaces/x/pods/p/log"
    api.routes["GET", path] = Reply(b"line \xff\n")

    assert kube.logs("p", "x", "app", since=0.2, tail=5, previous=True, max_bytes=9) == "line \ufffd\n"
    assert api.asked[-1].query == {
        "container": ["app"],
        "sinceSeconds": ["1"],
        "tailLines": ["5"],
        "previous": ["true"],
        "limitBytes": ["9"],
    }


# Commands

EXEC = "/api/v1/namespaces/x/pods/p/exec"
SUCCESS = b'\x03{"status":"Success"}'


@pytest.fixture
def running(api: Api) -> Api:
    api.routes["GET", "/api/v1/namespaces/x/pods/p"] = Reply({"kind": "Pod"})
    return api


def test_a_command_returns_its_output_whole(running: Api, kube: Kube) -> None:
    # A character cut in two by a frame, and more than one frame.
    running.frames = (b"\x01caf\xc3", b"\x01\xa9 ", b"\x02a warning", b"\x01end", SUCCESS)

    assert kube.exec("p", "x", "app", ["echo", "a b"]) == "café end"
    (asked,) = running.of("GET", EXEC)
    assert asked.query["command"] == ["echo", "a b"]
    assert asked.query["container"] == ["app"]


def test_a_command_that_fails_says_its_exit_code_and_errors(running: Api, kube: Kube) -> None:
    failure = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}
    running.frames = (b"\x01out", b"\x02no such thing", b"\x03" + json.dumps(failure).encode())

    with pytest.raises(ExecFailed, match=r"pod x/p, container app: cat 'a b' exited 3: no such thing") as caught:
        kube.exec("p", "x", "app", ["cat", "a b"])
    assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (3, "out", "no such thing")


def test_a_command_whose_connection_broke_did_not_succeed(running: Api, kube: Kube) -> None:
    running.frames = (b"\x01half",)

    with pytest.raises(ExecFailed, match="lost its connection") as caught:
        kube.exec("p", "x", "app", ["true"])
    assert caught.value.exit_code is None


def test_a_command_that_cannot_start_says_why(running: Api, kube: Kube) -> None:
    failure = {"status": "Failure", "reason": "InternalError", "message": 'exec: "nope": executable file not found in $PATH'}
    running.frames = (b"\x03" + json.dumps(failure).encode(),)

    with pytest.raises(ExecFailed, match=r"did not run: exec: .*nope.*not found"):
        kube.exec("p", "x", "app", ["nope"])


def test_a_command_in_a_missing_pod_is_not_found(kube: Kube) -> None:
    with pytest.raises(NotFound, match="Pod x/p"):
        kube.exec("p", "x", "app", ["true"])
