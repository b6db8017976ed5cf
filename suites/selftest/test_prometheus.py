"""Prometheus's manifests as they are applied, and what its clients make of answers, of silence and of a configuration on its way; hermetic."""

import base64
import gzip
import json
from types import SimpleNamespace

import pytest

from clusters.apiserver import NoAnswer, NotFound
from clusters.components.prometheus import manifests
from clusters.components.prometheus.client import AlertmanagerClient, PrometheusClient, barrier, stamp
from clusters.components.prometheus.component import Prometheus
from clusters.components.prometheus.witness import Refused, WitnessMissing
from clusters.components.registry import NAMES
from clusters.images.catalogue import catalogue
from clusters.kube import PodUnreachable, ProxyResponse
from clusters.timeouts import Timeouts
from clusters.versions import versions
from clusters.waiting import TimedOut


def operator(**more):
    container = {
        "name": "prometheus-operator", "image": "upstream/operator:1", "resources": {"limits": {"cpu": "200m", "memory": "200Mi"}},
        "args": ["--kubelet-service=kube-system/kubelet", "--prometheus-config-reloader=upstream/reloader:1", "--kubelet-endpoints=true", "--log-level=info"],
    }
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "prometheus-operator", "namespace": "default", **more},
        "spec": {"template": {"metadata": {"labels": {}}, "spec": {"containers": [container]}}},
    }


def prepared(*bodies):
    return manifests.prepared([*bodies, operator()], version="1.2.3", image="pulled/{}".format)


def container_of(found):
    return next(one for one in found if one["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]


def test_the_operator_and_what_it_adds_to_pods_are_images_of_the_catalogue():
    container = container_of(prepared())

    assert container["image"] == "pulled/prometheus-operator"
    assert [one for one in container["args"] if "reloader=" in one] == ["--prometheus-config-reloader=pulled/prometheus-config-reloader"]


def test_the_operator_keeps_its_own_arguments_and_asks_no_kubelet():
    arguments = container_of(prepared())["args"]

    assert "--log-level=info" in arguments
    assert not [one for one in arguments if one.startswith("--kubelet-")]


def test_no_processor_limit_slows_down_what_notices_a_change():
    container = container_of(prepared())

    assert "--config-reloader-cpu-limit=0" in container["args"]
    assert container["resources"] == {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "200Mi"}}


def test_everything_is_in_one_namespace_and_its_rights_are_of_accounts_there():
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "b"},
        "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": "default"}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "default"}}

    found = {(one["kind"], one["metadata"]["name"]): one for one in prepared(binding, account)}

    assert found["ServiceAccount", "a"]["metadata"]["namespace"] == manifests.NAMESPACE
    assert found["ClusterRoleBinding", "b"]["subjects"][0]["namespace"] == manifests.NAMESPACE
    assert "namespace" not in found["ClusterRoleBinding", "b"]["metadata"]
    assert found["Namespace", manifests.NAMESPACE]["metadata"]["labels"] == {"app.kubernetes.io/version": "1.2.3"}


def test_nothing_is_applied_before_what_it_needs_and_no_monitor_of_the_operator():
    kinds = ("Service", "ClusterRoleBinding", "ServiceMonitor", "CustomResourceDefinition", "ServiceAccount", "ClusterRole")

    found = prepared(*({"apiVersion": "x/v1", "kind": kind, "metadata": {"name": "x"}} for kind in kinds))

    assert [one["kind"] for one in found] == ["CustomResourceDefinition", "Namespace", "ClusterRole", "ServiceAccount", "ClusterRoleBinding", "Service", "Deployment"]


def test_upstream_s_objects_are_left_as_they_were():
    given = operator()

    manifests.prepared([given], version="1", image=str)

    assert given == operator()


def test_upstream_without_an_operator_is_refused():
    with pytest.raises(KeyError, match="no Deployment prometheus-operator"):
        manifests.prepared([], version="1", image=str)


def test_the_shared_instances_run_what_the_catalogue_has_and_leave_what_is_labelled_to_its_own():
    prometheus, alertmanager = manifests.shared(image="pulled/{}".format)

    assert (prometheus["spec"]["image"], alertmanager["spec"]["image"]) == ("pulled/prometheus", "pulled/alertmanager")
    for selector in ("serviceMonitorSelector", "podMonitorSelector", "ruleSelector"):
        assert prometheus["spec"][selector] == {"matchExpressions": [{"key": manifests.OWN, "operator": "DoesNotExist"}]}
    assert "--watched-dir=/etc/prometheus/config" in prometheus["spec"]["containers"][0]["args"]


def test_a_changed_image_is_another_installation():
    def key(image):
        return Prometheus("1", image, lambda *_: None).input_key()

    assert key("a/{}".format) == key("a/{}".format) != key("b/{}".format)


def test_the_component_is_known_and_so_are_its_images():
    assert "prometheus" in NAMES
    assert {one.name for one in catalogue(versions()).select(["prometheus"])} == set(manifests.IMAGES)


# The clients


class Pods:
    """Pods that answer with what they are given, in turn; the last one goes on."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def request(self, pod, namespace, port, method, path, body=None, headers=None, timeout=0):
        del headers, timeout
        self.asked.append((f"{namespace}/{pod}:{port}", method, path, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def said(data, status=200):
    return ProxyResponse(status, {}, json.dumps(data).encode())


def success(data):
    return said({"status": "success", "data": data})


def vector(*values):
    return success({"resultType": "vector", "result": [{"metric": {"function": name}, "value": [1.5, value]} for name, value in values]})


def prometheus(*answers):
    pods = Pods(*answers)
    return PrometheusClient(pods, Timeouts(), "here", "metrics"), pods


def test_a_query_is_put_to_the_pod_that_the_operator_makes():
    client, pods = prometheus(vector(("a", "3")))

    (found,) = client.instant('x{a="b"}', at=12.3456)

    assert (found.value, found.at, found.labels) == (3.0, 1.5, {"function": "a"})
    assert pods.asked[0][:3] == ("here/prometheus-metrics-0:9090", "GET", "/api/v1/query?query=x%7Ba%3D%22b%22%7D&time=12.346")


@pytest.mark.parametrize(("text", "kept"), [("NaN", "nan"), ("+Inf", "inf"), ("-Inf", "-inf"), ("2", 2.0)])
def test_a_value_that_json_has_no_word_for_is_kept_as_text(text, kept):
    client, _ = prometheus(vector(("a", text)))

    assert client.instant("x")[0].to_json()["value"] == kept


def test_a_range_is_every_sample_with_the_time_of_its_scrape():
    client, _ = prometheus(success({"resultType": "matrix", "result": [{"metric": {"a": "1"}, "values": [[1.25, "3"], [2.25, "4"]]}]}))

    assert [(one.at, one.value) for one in client.instant("x[1m]")] == [(1.25, 3.0), (2.25, 4.0)]


def test_no_result_is_an_empty_list_and_no_error():
    client, _ = prometheus(vector())

    assert client.instant("x") == []


@pytest.mark.parametrize("silence", [PodUnreachable("connection refused"), NoAnswer("15 s of silence"), NotFound("pod", expected="a pod", seen="none", hint="", status=404, reason="NotFound"), said("", 503)])
def test_silence_is_told_from_having_no_result_with_what_was_said_last(silence):
    client, _ = prometheus(vector(("a", "3")), silence)
    client.instant("up")

    with pytest.raises(WitnessMissing, match=r"^Prometheus here/prometheus-metrics-0: expected an answer to /api/v1/query, seen .* \(last, 0\.\d s ago: up = .* 3\)") as raised:
        client.instant("up")
    assert "\n" not in str(raised.value)


def test_a_witness_that_has_never_answered_says_so():
    client, _ = prometheus(PodUnreachable("no pod"))

    with pytest.raises(WitnessMissing, match="it has never answered"):
        client.targets()


def test_a_wrong_question_is_the_asker_s_fault():
    client, _ = prometheus(said({"status": "error", "error": "parse error"}, 400))

    with pytest.raises(Refused, match=r"400.*parse error"):
        client.instant("((")


def test_targets_and_rules_are_read_as_they_stand():
    target = {"scrapePool": "p", "scrapeUrl": "http://1/metrics", "scrapeInterval": "30s", "health": "down", "lastError": "503", "lastScrape": "2026-01-02T03:04:05.123456789Z", "labels": {"service": "a"}}
    alert = {"labels": {"alertname": "A"}, "annotations": {"s": "t"}, "state": "pending", "activeAt": "2026-01-02T03:04:05Z", "value": "6e+00"}
    group = {"name": "g", "rules": [{"name": "A", "state": "pending", "health": "ok", "lastEvaluation": "0001-01-01T00:00:00Z", "alerts": [alert]}]}
    client, _ = prometheus(success({"activeTargets": [target]}), success({"groups": [group]}))

    (found,), (rule,) = client.targets(), client.rules()

    assert (found.health, found.error, found.interval, round(found.last, 3)) == ("down", "503", "30s", 1767323045.123)
    assert (rule.state, rule.evaluated, rule.alerts[0].state, rule.alerts[0].value) == ("pending", 0.0, "pending", "6e+00")
    assert json.dumps([found.to_json(), rule.to_json()])


def test_exemplars_lead_from_a_series_to_a_request():
    told = [{"seriesLabels": {"function": "a"}, "exemplars": [{"labels": {"request_id": "r"}, "value": "1", "timestamp": 5.5}]}]
    client, pods = prometheus(success(told))

    (found,) = client.exemplars("x", since=1, until=2)

    assert (found.labels, found.at, found.series) == ({"request_id": "r"}, 5.5, {"function": "a"})
    assert pods.asked[0][2] == "/api/v1/query_exemplars?query=x&start=1.000&end=2.000"


def test_go_s_time_that_never_was_is_none():
    assert stamp("0001-01-01T00:00:00Z") == 0.0


# A configuration on its way


class Cluster(Pods):
    """An API server whose operator makes a barrier into the configuration, and whose kubelet shows it to Prometheus when the pod is touched."""

    def __init__(self, *, made=True, remounts=True):
        super().__init__(None)
        self.makes, self.remounts = made, remounts
        self.marker = ""
        self.made = self.held = ""
        self.touched = 0

    def apply(self, docs, _namespace):
        self.marker = json.dumps(docs)
        if self.makes:
            self.made = self.marker

    def get(self, kind, _name, _namespace):
        if kind == "Secret":
            return {"data": {"prometheus.yaml.gz": base64.b64encode(gzip.compress(self.made.encode())).decode()}}
        return {"data": {"rules.yaml": self.made}}

    def annotate(self, kind, name, annotations, namespace):
        assert (kind, name, namespace, list(annotations)) == ("Pod", "prometheus-metrics-0", "here", ["faasmesh.dev/touched"])
        self.touched += 1
        if self.remounts:
            self.held = self.made

    def request(self, *_asked, **_more):
        return success({"yaml": self.held, "groups": [self.held]})


@pytest.mark.parametrize("kinds", [["ServiceMonitor"], ["PodMonitor"], ["PrometheusRule"], ["ServiceMonitor", "PrometheusRule", "Deployment"]])
def test_a_configuration_is_loaded_when_its_barrier_is_and_the_kubelet_is_asked_to_look(kinds):
    cluster = Cluster()

    waited = PrometheusClient(cluster, Timeouts(), "here", "metrics").await_loaded(kinds)

    assert cluster.touched == 1
    assert waited.attempts == 2


@pytest.mark.parametrize(("cluster", "said_"), [(Cluster(made=False), "the operator has not made ServiceMonitor"), (Cluster(remounts=False), "it has not loaded ServiceMonitor")])
def test_whoever_has_not_noticed_a_configuration_is_named(cluster, said_):
    client = PrometheusClient(cluster, Timeouts().scaled(0.005), "here", "metrics")

    with pytest.raises(TimedOut, match=f"Prometheus here/metrics works by an earlier configuration .*{said_}"):
        client.await_loaded(["ServiceMonitor"])


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor", "PrometheusRule"])
def test_a_barrier_is_taken_by_one_instance_alone_and_selects_nothing(kind):
    body = barrier(kind, "marker", "mine")

    assert body["metadata"]["labels"] == {manifests.OWN: "mine"}
    assert "marker" in json.dumps(body["spec"])
    assert body["spec"].get("selector", {"matchLabels": {}}) != {}


# The Alertmanager


def alertmanager(*answers):
    pods = Pods(*answers)
    return AlertmanagerClient(pods, Timeouts(), "here", "alerts"), pods


def test_a_silence_is_made_for_a_time_and_ended():
    client, pods = alertmanager(said({"silenceID": "s-1"}), ProxyResponse(200, {}, b""))

    identity = client.silence({"alertname": "A"}, seconds=60, why="a check")
    client.expire(identity)

    where, method, path, body = pods.asked[0]
    sent = json.loads(body)
    assert (where, method, path, identity) == ("here/alertmanager-alerts-0:9093", "POST", "/api/v2/silences", "s-1")
    assert sent["matchers"] == [{"name": "alertname", "value": "A", "isRegex": False, "isEqual": True}]
    assert stamp(sent["endsAt"]) - stamp(sent["startsAt"]) == pytest.approx(60, abs=0.01)
    assert pods.asked[1][1:3] == ("DELETE", "/api/v2/silence/s-1")


def test_alerts_are_read_with_what_holds_them_back():
    told = {
        "labels": {"alertname": "A"}, "annotations": {}, "receivers": [{"name": "r"}], "startsAt": "2026-01-02T03:04:05.5Z", "endsAt": "2026-01-02T03:05:05Z",
        "status": {"state": "suppressed", "silencedBy": ["s-1"], "inhibitedBy": []},
    }
    client, _ = alertmanager(said([told]))

    (found,) = client.alerts()

    assert (found["state"], found["silenced_by"], found["receivers"], found["ends_at"] - found["starts_at"]) == ("suppressed", ["s-1"], ["r"], 59.5)


def test_a_lost_alertmanager_is_named_with_the_alerts_it_had():
    client, _ = alertmanager(said([]), PodUnreachable("gone"))
    client.alerts()

    with pytest.raises(WitnessMissing, match=r"Alertmanager here/alertmanager-alerts-0: .* ago: alerts none"):
        client.alerts()


def test_an_instance_that_does_not_come_up_is_named_with_its_pod():
    pods = Pods(PodUnreachable("no endpoint"))
    pods.get = lambda *_: {"metadata": {"name": "p"}, "status": {"phase": "Pending"}}
    client = AlertmanagerClient(pods, SimpleNamespace(deployment_available=0.0), "here", "alerts")

    with pytest.raises(TimedOut, match=r"Alertmanager here/alerts not ready .* no endpoint .*; pod p: Pending"):
        client.await_ready()


@pytest.mark.parametrize(("instance", "labels"), [("shared", {}), ("metrics", {"faasmesh.dev/prometheus": "metrics"})])
def test_a_barrier_is_taken_by_the_instance_that_it_is_meant_for(instance, labels):
    assert barrier("ServiceMonitor", "barrier1", instance)["metadata"] == {"name": f"faasmesh-barrier-{instance}", "labels": labels}
