"""Jaeger and its operator as they are installed, and what a Jaeger's answers say; hermetic."""

import base64
import json
import re

import pytest
import yaml
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from clusters.apiserver import NoAnswer
from clusters.components.jaeger.client import IDS_AT_ONCE, JaegerClient, JaegerUnreachable, NoSuchTrace, Span, zipkin_span
from clusters.components.jaeger.component import MANIFEST, MAX_TRACES, Jaeger
from clusters.components.jaeger_operator import manifests
from clusters.components.jaeger_operator.client import JaegerOperatorClient
from clusters.components.jaeger_operator.component import JaegerOperator, serving_certificate
from clusters.components.registry import NAMES, components, image_groups
from clusters.images import ImageStore
from clusters.images.catalogue import catalogue
from clusters.kube import NotFound, PodUnreachable, ProxyResponse
from clusters.manifests import load_manifest
from clusters.timeouts import Timeouts
from clusters.versions import versions

TRACE = "0af7651916cd43dd8448eb211c80319c"


def span(span_id, started, *, parent="", process="p1", trace=TRACE, **tags):
    references = [{"refType": "CHILD_OF", "traceID": trace, "spanID": parent}] if parent else []
    listed = [{"key": key, "type": "string", "value": value} for key, value in {"span.kind": "client", **tags}.items()]
    return {
        "traceID": trace, "spanID": span_id, "operationName": "call", "references": references, "startTime": started, "duration": 5, "processID": process, "tags": listed,
    }


def told(*spans, trace=TRACE):
    return {"traceID": trace, "spans": list(spans), "processes": {"p1": {"serviceName": "first.here"}, "p2": {"serviceName": "second.here"}}}


class Cluster:
    """An API server behind which one pod answers everything alike."""

    def __init__(self, answer=None, *, status=200, phase="Running", error=None):
        self.answer, self.status, self.phase, self.error = answer, status, phase, error
        self.asked = []

    def pods(self, namespace, selector=None):
        return [
            {"metadata": {"name": "going", "deletionTimestamp": "now"}, "status": {"phase": "Running"}},
            {"metadata": {"name": "jaeger-1"}, "status": {"phase": self.phase}},
        ] if (namespace, selector) == ("istio-system", "app=jaeger") else []

    def request(self, pod, _namespace, port, method, path, body=None, headers=None):
        self.asked.append((pod, port, method, path, body, headers))
        if self.error:
            raise self.error
        answer = self.answer(path) if callable(self.answer) else self.answer
        return ProxyResponse(self.status, {}, answer if isinstance(answer, bytes) else json.dumps(answer).encode())


def test_a_trace_is_read_with_its_services_kinds_and_parents_in_the_order_of_its_spans():
    cluster = Cluster({"data": [told(span("b", 20, parent="a", process="p2", **{"span.kind": "server"}), span("a", 10, **{"http.status_code": "200"}))]})

    assert JaegerClient(cluster).trace(TRACE) == (
        Span(TRACE, "a", "", "first.here", "call", "client", 10, 5, {"http.status_code": "200"}),
        Span(TRACE, "b", "a", "second.here", "call", "server", 20, 5, {}),
    )
    assert cluster.asked[0][:4] == ("jaeger-1", 16686, "GET", f"/api/traces/{TRACE}?raw=true")


def test_a_span_reads_back_as_it_was_saved():
    (one,) = JaegerClient(Cluster({"data": [told(span("a", 10, error="true"))]})).trace(TRACE)

    assert Span.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_a_span_that_only_follows_another_or_is_of_another_trace_has_no_parent():
    follows = span("b", 1)
    follows["references"] = [{"refType": "FOLLOWS_FROM", "traceID": TRACE, "spanID": "a"}, {"refType": "CHILD_OF", "traceID": "another", "spanID": "a"}]

    assert JaegerClient(Cluster({"data": [told(follows)]})).trace(TRACE)[0].parent_id == ""


def test_a_trace_that_is_not_there_is_no_fault_of_jaeger_s():
    missing = Cluster({"data": None, "errors": [{"code": 404, "msg": "trace not found"}]}, status=404)

    with pytest.raises(NoSuchTrace, match=f"Jaeger istio-system/app=jaeger has no trace {TRACE}"):
        JaegerClient(missing).trace(TRACE)
    assert JaegerClient(missing).traces_by_id([TRACE]) == {}


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (Cluster({}, phase="Pending"), "Jaeger istio-system/app=jaeger has no running pod, of 1"),
        (Cluster(error=PodUnreachable("GET to pod: connection refused")), "does not answer: GET to pod: connection refused"),
        (Cluster(error=NoAnswer("nothing came\nback")), "does not answer: nothing came back"),
        (Cluster(error=NotFound("pod", expected="it", seen="nothing", hint="", status=404, reason="NotFound")), "does not answer: pod: expected it, seen nothing"),
        (Cluster(b"<html>", status=200), "answered 200: b'<html>'"),
        (Cluster({"errors": ["search depth"]}, status=500), "answered 500"),
        (Cluster({"data": [{"spans": [{}], "processes": {}}]}), "something that is no trace: KeyError"),
        (Cluster([]), "answered 200: b'[]'"),
    ],
    ids=["no pod", "refused", "silent", "pod gone", "a page", "an error", "no trace", "a list"],
)
def test_a_jaeger_that_does_not_answer_is_named_in_one_line(cluster, said):
    with pytest.raises(JaegerUnreachable, match=re.escape(said)) as raised:
        JaegerClient(cluster).trace(TRACE)
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, ConnectionError)


@given(st.lists(st.integers(1, (1 << 128) - 1), unique=True, max_size=2 * IDS_AT_ONCE + 1), st.data())
def test_traces_are_found_by_the_ids_that_were_asked_for_however_jaeger_writes_them(numbers, data):
    """Jaeger leaves out the upper half of an id where that is zero, and answers in an order of its own."""
    there = data.draw(st.lists(st.sampled_from(numbers), unique=True)) if numbers else []
    written = {f"{number:016x}" if number < 1 << 64 else f"{number:032x}" for number in there}

    def answer(path):
        asked = [f"{int(one, 16):016x}" if int(one, 16) < 1 << 64 else one for one in re.findall(r"traceID=([0-9a-f]+)", path)]
        return {"data": [told(span("a", 1, trace=one), trace=one) for one in reversed(asked) if one in written]}

    cluster = Cluster(answer)
    found = JaegerClient(cluster).traces_by_id(f"{number:032x}" for number in numbers)

    assert set(found) == {f"{number:032x}" for number in there}
    assert len(cluster.asked) == -(-len(numbers) // IDS_AT_ONCE)
    assert all(int(trace[0].trace_id, 16) == int(one, 16) for one, trace in found.items())


def test_traces_of_a_service_are_asked_for_by_time_and_tags():
    cluster = Cluster({"data": [told(span("a", 1)), told()]})

    found = JaegerClient(cluster).traces("first.here", since=12.5, tags={"a": "b"}, most=7)

    assert [len(trace) for trace in found] == [1]
    assert cluster.asked[0][3] == "/api/traces?service=first.here&start=12500000&limit=7&tags=%7B%22a%22%3A+%22b%22%7D&raw=true"
    assert JaegerClient(Cluster({"data": ["b", "a"]})).services() == ["a", "b"]
    assert JaegerClient(Cluster({"data": None})).services() == []


def test_spans_are_handed_over_as_a_proxy_does():
    cluster = Cluster(b"", status=202)
    one = zipkin_span(TRACE, service="me", name="it", started_us=5)

    JaegerClient(cluster).send([one])

    assert cluster.asked == [("jaeger-1", 9411, "POST", "/api/v2/spans", json.dumps([one]).encode(), {"content-type": "application/json"})]
    with pytest.raises(JaegerUnreachable, match="answered 400 to 1 spans"):
        JaegerClient(Cluster(b"no", status=400)).send([one])


def test_jaeger_stands_beside_the_mesh_where_the_reference_looks_for_it():
    objects = {(one.kind, one.name): one.body for one in load_manifest(MANIFEST, image="pulled", max_traces="7")}
    pod = objects["Deployment", "jaeger"]["spec"]["template"]
    config = yaml.safe_load(objects["ConfigMap", "jaeger"]["data"]["config.yaml"])
    ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}

    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert pod["spec"]["containers"][0]["image"] == "pulled"
    assert Jaeger(version="1", image=str).namespace == "istio-system"
    assert objects["Service", "zipkin"]["spec"]["ports"] == [{"name": "http-zipkin", "port": 9411, "targetPort": "zipkin"}]
    assert config["extensions"]["jaeger_storage"]["backends"]["newest"]["memory"] == {"max_traces": 7}
    # What listens is what is opened, and every Service leads to such a port.
    assert ports == {"otlp-grpc": 4317, "otlp-http": 4318, "zipkin": 9411, "query": 16686, "health": 13133}
    fronts = [body for (kind, _), body in objects.items() if kind == "Service"]
    assert {one["targetPort"] for front in fronts for one in front["spec"]["ports"]} < ports.keys()
    assert all(front["spec"]["selector"] == {"app": "jaeger"} for front in fronts)


def test_another_image_or_bound_is_another_jaeger():
    assert MAX_TRACES > 0
    assert Jaeger(version="1", image=str).input_key() == Jaeger(version="1", image=str).input_key()
    assert Jaeger(version="1", image=str).input_key() != Jaeger(version="1", image="x{}".format).input_key()


class Listed:
    """An API server that lists what it is given, by kind."""

    def __init__(self, **objects):
        self.objects = objects

    def list(self, kind, _namespace=None, _selector=None, *, fields=None):
        del fields
        return self.objects.get(kind.rpartition("/")[2], [])

    def get(self, kind, _name, _namespace):
        return self.objects[kind.rpartition("/")[2]][0]


def deployment(image, name="jaeger", component="all-in-one", **container):
    return {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": component}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"image": image, **container}]}}},
    }


@pytest.mark.parametrize("component", [Jaeger(version="1", image=str), JaegerOperator(version="1", image=str, module=lambda _set, _module: None)], ids=["jaeger", "operator"])
def test_what_somebody_installed_is_known_by_its_image(component):
    assert component.requires == ("istio",)
    assert component.detect(Listed(Deployment=[deployment("docker.io/some/thing:2.13.0@sha256:abc")])) == "2.13.0"
    assert component.detect(Listed()) is None


def test_both_are_components_with_images_of_their_own():
    known = components(ImageStore("source"))

    assert set(known) == set(NAMES)
    assert {name: {image.name for image in catalogue(versions()).select(image_groups((name,), knative_ingress="istio"))} for name in ("jaeger", "jaeger-operator")} == {
        "jaeger": {"jaeger"}, "jaeger-operator": {"jaeger-operator", "jaeger-all-in-one"},
    }


# The operator's manifests, in upstream's shape.

OPERATOR = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "jaeger-operator", "labels": None},
    "spec": {
        "selector": {"matchLabels": None}, "strategy": {}, "replicas": 1,
        "template": {"metadata": {"labels": None}, "spec": {"serviceAccountName": "jaeger-operator", "containers": [{
            "name": "jaeger-operator", "image": "controller:latest", "args": ["start", "--leader-elect"],
            "env": [{"name": "POD_NAMESPACE", "valueFrom": {}}, {"name": "LOG-LEVEL", "value": "DEBUG"}, {"name": "LOG-LEVEL", "value": "DEBUG"}],
        }]}},
    },
}
WEBHOOK = {
    "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "mutating-webhook-configuration"},
    "webhooks": [
        {"name": "mjaeger.kb.io", "clientConfig": {"service": {"name": "webhook-service", "namespace": "system", "path": "/mutate"}}},
        {"name": "deployment.sidecar-injector.jaegertracing.io", "clientConfig": {"service": {"name": "webhook-service", "namespace": "system", "path": "/all"}}},
    ],
}
BINDING = {"apiVersion": "rbac/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "manager-rolebinding"}, "roleRef": {"name": "manager-role"}, "subjects": [{"kind": "ServiceAccount", "name": "jaeger-operator"}]}
ROLE = {"apiVersion": "rbac/v1", "kind": "ClusterRole", "metadata": {"name": "manager-role"}}
FRONT = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "webhook-service", "namespace": "system"}, "spec": {"ports": [{"port": 443}]}}
CRD = {"apiVersion": "apiextensions/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "jaegers.jaegertracing.io"}}


def prepared(*bodies):
    return {(one["kind"], one["metadata"]["name"]): one for one in manifests.prepared(bodies, operator="op:1", all_in_one="aio:1", authority=b"PEM")}


def test_the_operator_gets_its_images_one_value_a_variable_and_no_election():
    template = prepared(OPERATOR)["Deployment", "jaeger-operator"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    variables = [(one["name"], one.get("value")) for one in container["env"]]

    assert container["image"] == "op:1"
    assert variables == [("POD_NAMESPACE", None), ("LOG-LEVEL", "INFO"), ("RELATED_IMAGE_JAEGER_ALL_IN_ONE", "aio:1")]
    assert "--leader-elect" not in container["args"]
    assert template["metadata"]["labels"] == {"name": "jaeger-operator", "sidecar.istio.io/inject": "false"}
    assert template["spec"]["volumes"][0]["secret"]["secretName"] == manifests.SECRET


def test_everything_of_the_operator_is_in_one_namespace_under_names_of_its_own():
    found = prepared(OPERATOR, WEBHOOK, BINDING, ROLE, FRONT, CRD)

    assert set(found) == {
        ("Namespace", "observability"), ("CustomResourceDefinition", "jaegers.jaegertracing.io"), ("ClusterRole", "jaeger-operator-manager-role"),
        ("ClusterRoleBinding", "jaeger-operator-manager-rolebinding"), ("Service", "jaeger-operator-webhook-service"), ("Deployment", "jaeger-operator"),
        ("MutatingWebhookConfiguration", "jaeger-operator-mutating-webhook-configuration"),
    }
    binding = found["ClusterRoleBinding", "jaeger-operator-manager-rolebinding"]
    assert binding["roleRef"]["name"] == "jaeger-operator-manager-role"
    assert binding["subjects"][0]["namespace"] == "observability"
    assert "namespace" not in binding["metadata"]
    assert found["Service", "jaeger-operator-webhook-service"]["metadata"]["namespace"] == "observability"


def test_its_webhooks_are_believed_by_the_certificate_and_no_deployment_is_asked_about():
    hooks = prepared(WEBHOOK)["MutatingWebhookConfiguration", "jaeger-operator-mutating-webhook-configuration"]["webhooks"]

    assert [hook["name"] for hook in hooks] == ["mjaeger.kb.io"]
    assert hooks[0]["clientConfig"] == {
        "service": {"name": "jaeger-operator-webhook-service", "namespace": "observability", "path": "/mutate"}, "caBundle": base64.b64encode(b"PEM").decode(),
    }


def test_custom_resources_come_first_and_webhooks_last_and_upstream_s_objects_are_left_as_they_were():
    given = [json.loads(json.dumps(one)) for one in (WEBHOOK, OPERATOR, CRD)]
    found = manifests.prepared(given, operator="o", all_in_one="a", authority=b"")

    assert [one["kind"] for one in found] == ["Namespace", "CustomResourceDefinition", "Deployment", "MutatingWebhookConfiguration"]
    assert given == [WEBHOOK, OPERATOR, CRD]
    rest, webhooks = manifests.split(found)
    assert ([one["kind"] for one in webhooks], len(rest)) == (["MutatingWebhookConfiguration"], 3)


def test_the_certificate_is_for_the_webhooks_host_and_known_by_itself():
    pem, key = serving_certificate(manifests.WEBHOOK_HOST)
    certificate = x509.load_pem_x509_certificate(pem)

    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == ["jaeger-operator-webhook-service.observability.svc"]
    certificate.verify_directly_issued_by(certificate)
    assert "PRIVATE KEY" in key


def test_only_what_is_used_is_read_of_the_operator_s_module(tmp_path):
    for name in ("config/crd/bases/a.yaml", "config/rbac/role.yaml", "config/rbac/prometheus_role.yaml", "config/certmanager/certificate.yaml", "config/manager/manager.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Any", "metadata": {"name": name}}))

    found = JaegerOperator(version="1", image=str, module=lambda _set, _module: tmp_path)._upstream()

    assert [one["metadata"]["name"] for one in found] == ["config/crd/bases/a.yaml", "config/rbac/role.yaml", "config/manager/manager.yaml"]


def test_what_a_resource_became_is_read_from_what_bears_its_name():
    cluster = Listed(
        Jaeger=[{"status": {"phase": "Running", "version": "1.65.0"}}], Deployment=[deployment("aio:1", "mine", args=["--a"])],
        HorizontalPodAutoscaler=[{"metadata": {"name": "mine-collector"}}], Service=[{"metadata": {"name": name}} for name in ("b", "a")],
    )
    operator = JaegerOperatorClient(cluster, Timeouts())

    assert operator.instance("here", "mine").to_json() == {
        "phase": "Running", "version": "1.65.0", "autoscalers": ["mine-collector"], "services": ["a", "b"],
        "deployments": {"mine": {"component": "all-in-one", "replicas": 1, "image": "aio:1", "arguments": ["--a"]}},
    }
    assert operator.jaeger("here", "mine").where == "Jaeger here/app.kubernetes.io/instance=mine,app.kubernetes.io/component in (all-in-one,query)"


def test_an_instance_that_nothing_was_made_of_is_empty():
    found = JaegerOperatorClient(Listed(Jaeger=[{}]), Timeouts()).instance("here", "mine")

    assert (found.phase, found.deployments, found.autoscalers) == ("", {}, ())
