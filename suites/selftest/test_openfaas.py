"""OpenFaaS's manifests as they are applied, its API's client, and what its objects say of themselves; hermetic."""

import base64
import json

import pytest

from clusters.apiserver import ApiRefused, NotFound
from clusters.components.openfaas import manifests
from clusters.components.openfaas.client import (
    CARRIED_OUT,
    Answer,
    Api,
    Credentials,
    GatewayRefused,
    OpenFaasClient,
    function_url,
    local_url,
)
from clusters.components.openfaas.component import OpenFaas, _credentials
from clusters.components.openfaas.manifests import DEPLOYMENTS, FIRST, IMAGES
from clusters.images.catalogue import catalogue
from clusters.kube import ProxyResponse
from clusters.timeouts import Timeouts
from clusters.versions import versions
from clusters.waiting import TimedOut


def container(name, image, **more):
    return {"name": name, "image": f"{image}:0.1", "imagePullPolicy": "Always", "env": [{"name": "kept", "value": "yes"}], **more}


def deployment(name, *containers, **metadata):
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": list(containers), "volumes": []}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "openfaas", **metadata}, "spec": {"template": template}}


GATEWAY = deployment(
    "gateway",
    container("gateway", "ghcr.io/openfaas/gateway", env=[{"name": "direct_functions", "value": "false"}, {"name": "kept", "value": "yes"}]),
    container("faas-netes", "ghcr.io/openfaas/faas-netes", command=["./faas-netes", "-operator=false"]),
)
UPSTREAM = (
    GATEWAY,
    deployment("nats", container("nats", "nats-streaming", args=["--store", "memory"])),
    deployment("queue-worker", container("queue-worker", "ghcr.io/openfaas/queue-worker")),
    deployment("basic-auth-plugin", container("basic-auth-plugin", "ghcr.io/openfaas/basic-auth")),
    deployment("prometheus", container("prometheus", "prom/prometheus", command=["prometheus", "--config.file=x"])),
    deployment("alertmanager", container("alertmanager", "prom/alertmanager", command=["alertmanager"], volumeMounts=[])),
)


def thing(kind, name, **more):
    return {"apiVersion": "x/v1", "kind": kind, "metadata": {"name": name, "namespace": "openfaas-fn"}, **more}


def prepared(*bodies):
    found = manifests.prepared([*UPSTREAM, *bodies], image="pulled/{}".format)
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def containers(*bodies):
    return {
        (name, one["name"]): one for (kind, name), body in prepared(*bodies).items() if kind == "Deployment" for one in body["spec"]["template"]["spec"]["containers"]
    }


def test_every_image_is_the_catalogue_s_whatever_its_tag():
    found = containers()

    assert {key: one["image"] for key, one in found.items()} == {
        ("gateway", "gateway"): "pulled/openfaas-gateway", ("gateway", "faas-netes"): "pulled/openfaas-operator", ("nats", "nats"): "pulled/nats-streaming",
        ("queue-worker", "queue-worker"): "pulled/openfaas-queue-worker", ("basic-auth-plugin", "basic-auth-plugin"): "pulled/openfaas-basic-auth",
        ("prometheus", "prometheus"): "pulled/prometheus", ("alertmanager", "alertmanager"): "pulled/alertmanager",
    }
    assert {one["imagePullPolicy"] for one in found.values()} == {"IfNotPresent"}


def test_every_image_that_is_named_is_in_the_catalogue_and_in_the_group():
    known = catalogue(versions()).images

    assert {name: "openfaas" in known[name].groups for name in IMAGES.values()} == dict.fromkeys(IMAGES.values(), True)


def test_a_program_without_an_image_is_refused():
    with pytest.raises(KeyError, match="some/other"):
        prepared(deployment("other", container("other", "some/other")))


def test_settings_take_the_place_of_upstream_s_and_leave_the_others():
    told = {one["name"]: one["value"] for one in containers()["gateway", "gateway"]["env"]}

    assert told == {"kept": "yes", **manifests.SETTINGS["gateway", "gateway"]}
    assert told["direct_functions"] == "true"


def test_the_controller_becomes_an_operator_for_every_namespace():
    operator = containers()["gateway", "faas-netes"]
    found = prepared(
        thing("Role", "openfaas-controller", rules=[{"apiGroups": [""], "resources": ["services"], "verbs": ["get"]}]),
        thing("RoleBinding", "openfaas-controller", roleRef={"kind": "Role", "name": "openfaas-controller"}, subjects=[]),
        thing("Role", "openfaas-profiles", rules=[]),
    )

    assert operator["command"] == ["./faas-netes", "-operator=true"]
    assert {"name": "cluster_role", "value": "true"} in operator["env"]
    role, binding = found["ClusterRole", "openfaas-controller"], found["ClusterRoleBinding", "openfaas-controller"]
    assert "namespace" not in role["metadata"]
    assert [rule["resources"] for rule in role["rules"]] == [["services"], ["functions", "profiles"], ["events"]]
    assert binding["roleRef"]["kind"] == "ClusterRole"
    assert found["Role", "openfaas-profiles"]["metadata"]["namespace"] == "openfaas-fn"


def test_programs_alone_are_told_their_paths_and_their_folders():
    found = prepared()["Deployment", "alertmanager"]["spec"]["template"]["spec"]

    assert found["containers"][0]["command"] == ["/bin/alertmanager"]
    assert found["containers"][0]["volumeMounts"] == [{"name": "written", "mountPath": "/alertmanager"}]
    assert found["volumes"] == [{"name": "written", "emptyDir": {}}]
    assert containers()["prometheus", "prometheus"]["command"] == ["/bin/prometheus", "--config.file=x"]
    assert containers()["nats", "nats"]["args"][:2] == ["--store", "memory"]
    assert "8222" in containers()["nats", "nats"]["args"]


def test_everything_asks_for_little_and_is_bounded():
    for one in containers().values():
        assert one["resources"]["requests"]["cpu"] == "10m"
        assert set(one["resources"]["limits"]) == {"memory"}


def test_what_upstream_no_longer_has_is_said():
    with pytest.raises(KeyError, match="no container alertmanager/alertmanager"):
        manifests.prepared(UPSTREAM[:-1], image=str)
    changed = deployment("gateway", GATEWAY["spec"]["template"]["spec"]["containers"][0], container("faas-netes", "ghcr.io/openfaas/faas-netes", command=["./faas-netes"]))
    with pytest.raises(KeyError, match="does not say -operator=false to gateway/faas-netes"):
        manifests.prepared([changed, *UPSTREAM[1:]], image=str)


def test_upstream_s_objects_are_left_as_they_were():
    before = json.dumps(UPSTREAM)

    prepared()

    assert json.dumps(UPSTREAM) == before


def test_the_first_of_several_of_one_name_is_taken_and_a_port_of_the_node_is_not():
    first, second = thing("CustomResourceDefinition", "f", spec=1, status={}), thing("CustomResourceDefinition", "f", spec=2)
    first["metadata"]["creationTimestamp"] = None
    found = prepared(first, second, thing("Service", "gateway-external"), thing("Service", "gateway"))

    assert found["CustomResourceDefinition", "f"] == thing("CustomResourceDefinition", "f", spec=1)
    assert ("Service", "gateway") in found
    assert ("Service", "gateway-external") not in found


def test_nothing_is_applied_before_what_it_needs_and_the_queue_comes_before_who_gives_up_without_it():
    kinds = ["Service", "ConfigMap", "RoleBinding", "ServiceAccount", "Namespace", "CustomResourceDefinition"]
    found = manifests.prepared([*UPSTREAM, *(thing(kind, "a") for kind in kinds)], image=str)
    first, late = manifests.split(found)

    assert list(dict.fromkeys(one["kind"] for one in found)) == [*reversed(kinds), "Deployment"]
    assert {one["metadata"]["name"] for one in first if one["kind"] == "Deployment"} == set(FIRST)
    assert {one["metadata"]["name"] for one in late} | set(FIRST) == set(DEPLOYMENTS)


def test_manifests_are_read_in_the_module_that_the_set_locks(tmp_path):
    asked = []
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "one.yml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: one}\n")
    (tmp_path / "namespaces.yml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: openfaas}\n")

    def module(gomod, name):
        asked.append((gomod, name))
        return tmp_path

    found = list(OpenFaas("1", str, module)._upstream())

    assert asked == [("openfaas-operator", "github.com/openfaas/faas-netes")]
    assert [one["kind"] for one in found] == ["Namespace", "Service"]


def test_a_kept_cluster_is_installed_again_when_an_image_or_a_version_changed():
    def key(version="1", image="{}@sha256:1"):
        return OpenFaas(version, image.format, lambda _gomod, _module: None).input_key()

    assert key() == key()
    assert len({key(), key(version="2"), key(image="{}@sha256:2")}) == 3


def test_every_installation_has_a_password_of_its_own():
    first, second = (base64.b64decode(_credentials()["data"]["basic-auth-password"]) for _ in range(2))

    assert first != second
    assert len(first) >= 32
    assert base64.b64decode(_credentials()["data"]["basic-auth-user"]) == b"admin"


class Told:
    """An API server that knows what it is given."""

    def __init__(self, *objects, answer=None):
        self.objects, self.answer, self.asked = objects, answer, []

    def get(self, kind, name, _namespace=None):
        found = [one for one in self.objects if kind.endswith(one["kind"]) and one["metadata"]["name"] == name]
        if not found:
            raise NotFound(name, expected="it", seen="nothing", hint="", status=404, reason="NotFound")
        return found[0]

    def list(self, kind, _namespace=None, _selector=""):
        return [one for one in self.objects if kind.endswith(one["kind"])]

    def pods(self, namespace, selector=None):
        return self.list("Pod", namespace, selector)

    def request(self, pod, namespace, port, method, path):
        self.asked.append((pod, namespace, port, method, path))
        return self.answer


@pytest.mark.parametrize(("image", "version"), [("ghcr.io/openfaas/gateway:0.25.4@sha256:1", "0.25.4"), ("x/gateway:2", "2"), ("gateway", "unknown")])
def test_the_version_is_that_of_the_gateway_whoever_installed_it(image, version):
    component = OpenFaas("1", str, lambda _gomod, _module: None)

    assert component.detect(Told(deployment("gateway", {"name": "other", "image": "o:1"}, {"name": "gateway", "image": image}))) == version
    assert component.detect(Told()) is None


def faas(*objects, **more):
    return OpenFaasClient(Told(*objects, **more), Timeouts())


def test_credentials_are_read_and_stay_out_of_messages():
    found = faas({"kind": "Secret", "metadata": {"name": "basic-auth"}, "data": {"basic-auth-user": "YWRtaW4=", "basic-auth-password": "c2VjcmV0"}}).credentials()

    assert found.header() == ("Authorization", "Basic YWRtaW46c2VjcmV0")
    assert "secret" not in repr(found)
    assert faas().credentials() is None


@pytest.mark.parametrize(("value", "everywhere"), [("true", True), ("false", False), (None, False)])
def test_an_operator_of_one_namespace_is_told_from_one_of_all(value, everywhere):
    env = [{"name": "cluster_role", "value": value}] if value else []

    assert faas(deployment("gateway", {"name": "faas-netes", "env": env})).everywhere() is everywhere
    assert faas().everywhere() is False


FUNCTION = {"kind": "Function", "metadata": {"name": "f"}, "spec": {"name": "f", "image": "i:1", "labels": {"a": "b"}}}


def carried_out(**spec):
    return {"kind": "Deployment", "metadata": {"name": "f", "annotations": {CARRIED_OUT: json.dumps(spec)}}, "spec": {"replicas": 3}}


def test_a_specification_is_carried_out_once_the_operator_has_written_it_down():
    # It writes down what nobody said as well.
    faas(FUNCTION, carried_out(name="f", image="i:1", labels={"a": "b"}, readOnlyRootFilesystem=False)).assert_carried_out("here", "f")
    with pytest.raises(AssertionError, match="image differ"):
        faas(FUNCTION, carried_out(name="f", image="i:0", labels={"a": "b"})).assert_carried_out("here", "f")
    with pytest.raises(AssertionError, match="labels, secrets differ"):
        faas(FUNCTION, carried_out(name="f", image="i:1", secrets=["s"])).assert_carried_out("here", "f")
    with pytest.raises(AssertionError, match="no Deployment"):
        faas(FUNCTION).assert_carried_out("here", "f")


def test_pods_on_their_way_out_are_not_counted():
    pods = [{"kind": "Pod", "metadata": {"name": name, **more}} for name, more in (("a", {}), ("b", {"deletionTimestamp": "now"}))]

    assert [pod["metadata"]["name"] for pod in faas(*pods).pods("here", "f")] == ["a"]
    assert faas(*pods).own_pods("gateway") == ["a"]
    assert faas(carried_out()).wanted("here", "f") == 3


def owned(kind, name, uid, **more):
    return {"kind": kind, "metadata": {"name": name, "labels": {"faas_function": name}, "ownerReferences": [{"kind": "Function", "uid": uid}], **more}}


def test_functions_are_removed_when_nothing_but_pods_on_their_way_out_is_left_of_them():
    there = {"kind": "Function", "metadata": {"name": "g", "uid": "new"}}

    faas(there, owned("Deployment", "g", "new"), owned("Pod", "g", "rs"), owned("Pod", "f", "rs", deletionTimestamp="now")).await_removed("here", within=0)
    for kind, name, uid in (("Deployment", "g", "old"), ("Service", "f", "old"), ("Pod", "f", "rs")):
        with pytest.raises(TimedOut, match=f"{kind.replace('Pod', 'pod')} {name} left"):
            faas(there, owned(kind, name, uid)).await_removed("here", within=0)


def channel(last_seq, *subscriptions):
    told = {"last_seq": last_seq, "subscriptions": [{"last_sent": sent, "pending_count": pending, "client_id": "w"} for sent, pending in subscriptions]}
    return ProxyResponse(200, {}, json.dumps(told).encode())


NATS = {"kind": "Pod", "metadata": {"name": "nats-1"}}


@pytest.mark.parametrize("subscriptions", [[(7, 0)], [(5, 0), (7, 0)]])
def test_a_queue_is_worked_off_when_nothing_waits_and_nobody_has_anything_in_hand(subscriptions):
    client = faas(NATS, answer=channel(7, *subscriptions))

    client.await_worked_off(within=0)

    assert client.kube.asked == [("nats-1", "openfaas", 8222, "GET", "/streaming/channelsz?channel=faas-request&subs=1")]


@pytest.mark.parametrize(("answer", "said"), [
    (channel(7, (6, 0)), "1 wait, 0 are"), (channel(7, (7, 1)), "0 wait, 1 are"), (channel(7), "7 wait"), (ProxyResponse(404, {}, b"no channel"), "answered 404"),
])
def test_a_queue_that_is_not_worked_off_says_what_there_is(answer, said):
    with pytest.raises(TimedOut, match=said):
        faas(NATS, answer=answer).await_worked_off(within=0)


class FakeDoor:
    """A gateway that answers what it is given."""

    def __init__(self, *answers):
        self.answers, self.sent = list(answers), []

    def send(self, method, url, *, headers=(), body=b"", timeout_s=0):
        del timeout_s
        self.sent.append((method, url, dict(headers), json.loads(body) if body else None))
        return self.answers.pop(0)


ADMIN = Credentials("admin", "secret")


def api(*answers, credentials=ADMIN):
    door = FakeDoor(*answers)
    return door, Api(door, "here", credentials)


URL = "http://gateway.openfaas.svc.cluster.local:8080"
ASKED = [
    (lambda a: a.deploy({"service": "f", "image": "i"}), "POST", "/system/functions", {"service": "f", "image": "i", "namespace": "here"}),
    (lambda a: a.update({"service": "f", "image": "i"}), "PUT", "/system/functions", {"service": "f", "image": "i", "namespace": "here"}),
    (lambda a: a.delete("f"), "DELETE", "/system/functions?namespace=here", {"functionName": "f"}),
    (lambda a: a.scale("f", 3), "POST", "/system/scale-function/f?namespace=here", {"serviceName": "f", "replicas": 3}),
    (lambda a: a.create_secret("s", "v"), "POST", "/system/secrets", {"name": "s", "namespace": "here", "value": "v"}),
    (lambda a: a.update_secret("s", "v"), "PUT", "/system/secrets", {"name": "s", "namespace": "here", "value": "v"}),
    (lambda a: a.delete_secret("s"), "DELETE", "/system/secrets", {"name": "s", "namespace": "here"}),
]


@pytest.mark.parametrize(("ask", "method", "path", "body"), ASKED, ids=[f"{method} {path}" for _, method, path, _ in ASKED])
def test_what_is_asked_of_the_api_is_asked_as_somebody(ask, method, path, body):
    door, client = api(Answer(202, b""))

    ask(client)

    assert door.sent == [(method, URL + path, {"Content-Type": "application/json", "Authorization": "Basic YWRtaW46c2VjcmV0"}, body)]


def test_an_alert_names_the_function_as_prometheus_does():
    door, client = api(Answer(200, b""), Answer(200, b""))

    client.alert("f", firing=True)
    client.alert("f", firing=False)

    assert [one[3]["alerts"][0]["status"] for one in door.sent] == ["firing", "resolved"]
    assert door.sent[0][3]["alerts"][0]["labels"]["function_name"] == "f.here"


def test_lists_are_read_and_nothing_is_an_empty_one():
    _, client = api(Answer(200, b'[{"name": "f"}]'), Answer(200, b"null"), Answer(200, b'{"name": "f"}'))

    assert client.functions() == [{"name": "f"}]
    assert client.secrets() == []
    assert client.function("f") == {"name": "f"}


@pytest.mark.parametrize(("answer", "said"), [
    (Answer(401, b"invalid credentials"), r"401 invalid credentials; hint: use the credentials of Secret basic-auth"),
    (Answer(500, b"one\n two"), r"500 one two; hint: look at the log of pod openfaas/gateway"),
    (Answer(0, b"", "read: closed by the other side"), r"read: closed by the other side; hint: is the gateway there"),
    (Answer(404, b""), r"404; hint: deploy it first"),
])
def test_a_refusal_is_one_line_that_says_what_was_asked(answer, said):
    _, client = api(answer)

    with pytest.raises(GatewayRefused, match=f"^deletion of function f in here by OpenFaaS's gateway: expected 200 or 202, seen {said}") as refused:
        client.delete("f")
    assert (refused.value.status, "\n" in str(refused.value)) == (answer.status, False)


def test_an_answer_that_is_no_json_is_refused():
    _, client = api(Answer(200, b"<html>"))

    with pytest.raises(GatewayRefused, match="expected JSON, seen 200 <html>"):
        client.functions()


def test_nobody_is_nobody():
    door, client = api(Answer(401, b""), credentials=None)

    with pytest.raises(GatewayRefused):
        client.functions()
    assert "Authorization" not in door.sent[0][2]


def test_functions_are_called_by_the_gateway_or_past_it():
    assert function_url("f", "here") == f"{URL}/function/f.here"
    assert function_url("f", "here", asynchronous=True, url="http://g") == "http://g/async-function/f.here"
    assert local_url("f") == "http://f.openfaas-fn.svc.cluster.local:8080"


def test_a_refusal_by_the_api_server_is_no_answer_to_who_may_read_it():
    class Refusing:
        def get(self, *_asked):
            raise ApiRefused("Secret", expected="it", seen="403", hint="", status=403, reason="Forbidden")

    assert OpenFaasClient(Refusing(), Timeouts()).credentials() is None
