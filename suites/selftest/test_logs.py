"""What is said of log lines: lost, again, under whom; and what the store and Fluentd say of themselves. Hermetic."""

import json
import re
from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusters.apiserver import NoAnswer
from clusters.components.fluentd.client import ETC, Backlog, FluentdClient, backlog_of, configuration, not_yet
from clusters.components.fluentd.component import MANIFEST, Fluentd
from clusters.components.store.client import INDICES, TEMPLATE, Line, StoreClient, StoreUnreachable
from clusters.components.store.component import Store
from clusters.kube import PodUnreachable, ProxyResponse
from clusters.paths import CHECKOUT
from clusters.timeouts import Timeouts
from suites.support import logs

AREA = CHECKOUT / "suites" / "logging"


# Counting


@given(st.integers(1, 60), st.lists(st.integers(-3, 70), max_size=200))
def test_every_line_that_was_found_is_once_again_or_foreign(written, found):
    seen = logs.tally(written, map(str, found))

    assert seen["once"] + seen["again"] + seen["foreign"] == len(found)
    assert seen["once"] + seen["lost"] == written


@given(st.integers(1, 60), st.data())
def test_what_is_taken_away_is_lost_and_what_is_added_is_there_again(written, data):
    numbers = list(range(written))
    gone = data.draw(st.sets(st.sampled_from(numbers)))
    twice = data.draw(st.lists(st.sampled_from(numbers)).map(lambda chosen: [one for one in chosen if one not in gone]))

    seen = logs.tally(written, data.draw(st.permutations([str(one) for one in [*(set(numbers) - gone), *twice]])))

    assert (seen["lost"], seen["again"], seen["foreign"]) == (len(gone), len(twice), 0)
    assert seen["first_lost"] == sorted(gone)[:logs.NAMED]


@pytest.mark.parametrize(("found", "lost", "again"), [
    ("012", True, True), ("01", False, True), ("0122", True, False), ("0123", True, False), ("", False, None),
])
def test_lost_and_again_are_claims_of_their_own(found, lost, again):
    seen = logs.tally(3, found)

    assert logs.none_lost("lost", seen).held is lost
    assert logs.none_again("again", seen).held is again


def test_too_few_lines_settle_nothing():
    assert logs.none_lost("lost", logs.tally(3, "012"), least=4).held is None


def test_a_line_without_a_number_is_nobody_s():
    seen = logs.tally(2, ["0", "1", ""])

    assert seen["foreign"] == 1
    assert logs.none_again("again", seen).held is False


LINE = {"namespace": "ns", "pod": "p", "container": "c", "stream": "stdout", "labels": {"app": "f", "tier": "gold"}}


@pytest.mark.parametrize(("found", "held"), [
    ([LINE], True), ([], False), ([LINE, LINE], False), ([{**LINE, "pod": "q"}], False), ([{**LINE, "labels": {}}], False), ([{**LINE, "stream": "stderr"}], False),
])
def test_a_line_is_found_once_and_under_whom_wrote_it(found, held):
    assert logs.found_once("found", found, {"namespace": "ns", "pod": "p", "stream": "stdout"}, {"tier": "gold"}).held is held


@pytest.mark.parametrize(("found", "written", "held"), [([], True, True), ([], False, None), ([LINE], True, False), ([LINE], False, False)])
def test_absence_counts_only_of_what_was_written(found, written, held):
    assert logs.absent("absent", found, where="there", written=written).held is held


@pytest.mark.parametrize(("message", "number"), [('{"event":"line","n":7}', "7"), ("at a.b", ""), ("[7]", ""), ('{"m":7}', ""), ("7", "")])
def test_the_number_of_a_line_that_is_text(message, number):
    assert logs.number_of(message) == number


def line(name="1", at="2026-01-01T00:00:00.5+00:00"):
    return Line(name, "ns", "p", "c", "stdout", at, "{}", {}, {})


def test_delays_are_from_the_runtime_s_clock_to_the_first_finding():
    epoch = 1767225600.0  # 2026-01-01
    seen = logs.Watched([line("1"), line("2")], {"1": epoch + 1.5, "2": epoch + 2.5}).delays()

    assert seen == {"lines": 2, "median_s": 1.5, "p95_s": pytest.approx(1.95, abs=0.06), "longest_s": 2.0}
    assert logs.Watched([], {}).delays() == {"lines": 0}


def test_watching_ends_with_the_lines_and_keeps_when_each_came_first():
    answers = iter([[line("1")], [line("1"), line("2")]])

    seen = logs.watched_while(lambda: None, lambda: next(answers), 2, within=5.0)

    assert set(seen.found_at) == {"1", "2"}
    assert seen.found_at["1"] < seen.found_at["2"]


def test_a_writer_that_fails_is_not_waited_for():
    def fails():
        raise ConnectionError("no function")

    with pytest.raises(ConnectionError, match="no function"):
        logs.watched_while(fails, list, 1, within=0.1)


# The store


HIT = {
    "_id": "abc",
    "_source": {
        "@timestamp": "2026-01-01T00:00:00Z", "message": "{}", "stream": "stdout", "fields": {"nonce": "n", "n": 3, "request_id": "r"},
        "kubernetes": {"namespace_name": "ns", "pod_name": "p", "container_name": "c", "labels": {"app": "f", "app.kubernetes.io/name": "g"}},
    },
}


class Answers:
    """A cluster with one pod, or none, of a store that answers in turn."""

    def __init__(self, *answers, pods=1):
        self.answers = list(answers)
        self.there = [{"metadata": {"name": f"store-{number}"}} for number in range(pods)]
        self.asked = []

    def pods(self, namespace, selector=None):
        assert (namespace, selector) == ("logging", "app=store")
        return self.there

    def request(self, pod, namespace, port, method, path, body=None, _headers=None):
        assert (pod, namespace, port) == ("store-0", "logging", 9200)
        self.asked.append((method, path, None if body is None else json.loads(body)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, content = answer
        return ProxyResponse(status, {}, json.dumps(content).encode())


def store(*answers, pods=1):
    kube = Answers(*answers, pods=pods)
    return StoreClient(kube, Timeouts()), kube


def test_a_line_is_read_with_who_wrote_it_and_its_fields():
    client, kube = store((200, {"hits": {"total": {"value": 1}, "hits": [HIT]}}))

    (found,) = client.search(nonce="n", namespace="ns", since="2026-01-01T00:00:00Z")

    assert found == Line("abc", "ns", "p", "c", "stdout", "2026-01-01T00:00:00Z", "{}", HIT["_source"]["kubernetes"]["labels"], HIT["_source"]["fields"])
    assert kube.asked[0][2]["query"]["bool"]["filter"] == [
        {"term": {"fields.nonce": "n"}}, {"term": {"kubernetes.namespace_name": "ns"}}, {"range": {"@timestamp": {"gte": "2026-01-01T00:00:00Z"}}},
    ]


def test_a_line_that_says_nothing_of_its_writer_is_read_too():
    assert Line.of({"_id": "x", "_source": {}}) == Line("x", "", "", "", "", "", "", {}, {})


def test_more_lines_than_were_asked_for_are_not_passed_over():
    client, _ = store((200, {"hits": {"total": {"value": 2}, "hits": [HIT]}}))

    with pytest.raises(Exception, match="at most 1, seen 2"):
        client.search(1, nonce="n")
    with pytest.raises(ValueError, match="10000"):
        client.search(10_001)


def test_values_of_any_number_of_lines_are_read_page_by_page_and_the_scroll_is_closed():
    page = {"_scroll_id": "s", "hits": {"hits": [HIT, {"_id": "y", "_source": {}}]}}
    client, kube = store((200, page), (200, page), (200, {"_scroll_id": "s", "hits": {"hits": []}}), (200, {}))

    assert client.values("n", nonce="n") == ["3", "", "3", ""]
    assert kube.asked[-1][:2] == ("DELETE", "/_search/scroll")


def test_an_access_log_is_what_the_proxy_wrote_and_whose_it_is():
    other = {"_id": "z", "_source": {"message": "started", "fields": {}}}
    client, kube = store((200, {"hits": {"total": {"value": 2}, "hits": [HIT, other]}}))

    (entry,) = client.access_log("ns", "p", 30)

    assert entry["request_id"] == "r"
    assert entry["writer"] == {"namespace": "ns", "pod": "p", "container": "c", "labels": HIT["_source"]["kubernetes"]["labels"]}
    assert {"range": {"@timestamp": {"gte": "now-30000ms"}}} in kube.asked[0][2]["query"]["bool"]["filter"]


@pytest.mark.parametrize(("answer", "pods", "said"), [
    ((200, {}), 0, r"log store logging/store: GET /_cluster/health: expected a pod that answers, seen no pod"),
    (PodUnreachable("nothing listens"), 1, r"log store logging/store: .* seen nothing listens"),
    (NoAnswer("60 s of silence"), 1, r"log store logging/store: .* seen 60 s of silence"),
    ((503, {"error": "no master"}), 1, r"log store logging/store: .* expected status 200, seen 503 .*no master"),
])
def test_a_store_that_is_not_there_is_told_from_an_empty_one(answer, pods, said):
    client, _ = store(answer, pods=pods)

    with pytest.raises(StoreUnreachable, match=said) as told:
        client.health()

    assert "\n" not in str(told.value)


def test_an_empty_store_has_none():
    client, _ = store((200, {"count": 0}), (200, {"hits": {"total": {"value": 0}, "hits": []}}))

    assert client.count(nonce="n") == 0
    assert client.search(nonce="n") == []


def test_only_former_days_are_forgotten():
    indices = [{"index": "logstash-2020.01.01"}, {"index": f"logstash-{datetime.now(UTC):%Y.%m.%d}"}]
    client, kube = store((200, indices), (200, {}))

    client.forget_former_days()

    assert [asked[:2] for asked in kube.asked[1:]] == [("DELETE", "/logstash-2020.01.01")]


def test_labels_are_kept_and_not_indexed():
    mapped = TEMPLATE["template"]["mappings"]["properties"]["kubernetes"]["properties"]

    assert TEMPLATE["index_patterns"] == [INDICES]
    assert mapped["labels"] == {"type": "object", "enabled": False}


# Fluentd


def daemon_set(generation=1, observed=1, wanted=2, updated=2, ready=2):
    return {
        "metadata": {"generation": generation},
        "status": {"observedGeneration": observed, "desiredNumberScheduled": wanted, "updatedNumberScheduled": updated, "numberReady": ready},
    }


@pytest.mark.parametrize(("found", "said"), [
    (daemon_set(), ""), (daemon_set(generation=2), "has not seen it"), (daemon_set(ready=1), "1 of 2 pods read"), (daemon_set(updated=1), "1 of the current template"),
    (daemon_set(wanted=0, updated=0, ready=0), "0 of 0"), ({"metadata": {"generation": 1}}, "has not seen it"),
])
def test_collectors_read_when_every_node_has_one_of_the_current_template(found, said):
    assert said in not_yet(found)
    assert bool(not_yet(found)) is bool(said)


def test_a_backlog_is_that_of_the_outputs_with_a_buffer():
    plugins = {"plugins": [
        {"type": "tail", "emit_records": 900},
        {"type": "elasticsearch", "emit_records": 70, "buffer_total_queued_size": 512, "retry_count": 3},
        {"type": "elasticsearch", "emit_records": None, "buffer_total_queued_size": 1, "retry_count": None},
    ]}

    assert backlog_of(plugins) == Backlog(70, 513, 3)


class Furnished:
    def __init__(self):
        self.applied = []

    def apply(self, docs, namespace=None):
        self.applied += [(one["kind"], namespace) for one in docs]


def test_a_namespace_is_furnished_with_nothing_outside_it():
    kube = Furnished()

    FluentdClient(kube, Timeouts(), "image").furnish("ns")

    assert kube.applied == [("ConfigMap", "ns"), ("ServiceAccount", "ns"), ("Role", "ns"), ("RoleBinding", "ns")]


def variables(text):
    return set(re.findall(r"ENV\['(\w+)'\]", text))


@pytest.mark.parametrize("manifest", [MANIFEST, *sorted(file for file in AREA.glob("*.yaml") if ".mutants" not in file.name and file.name != "reference.yaml")], ids=lambda file: file.name)
def test_every_collector_is_told_all_that_the_configuration_asks_for(manifest):
    documents = list(yaml.safe_load_all(manifest.read_text()))
    (container,) = next(one for one in documents if one["kind"] == "DaemonSet")["spec"]["template"]["spec"]["containers"]

    assert {one["name"] for one in container["env"]} == variables((ETC / "fluent.conf").read_text()) | {"TMPDIR"}


def test_the_configuration_of_a_collector_is_that_of_the_component():
    assert set(configuration()["data"]) == {"fluent.conf", "whole_lines.rb"}


def test_another_configuration_or_image_is_another_installation(monkeypatch):
    keys = {Fluentd("1", image).input_key() for image in (str, "{}@1".format)} | {Store("1", image).input_key() for image in (str, "{}@1".format)}

    assert len(keys) == 4
    before = Fluentd("1", str).input_key()
    monkeypatch.setattr("clusters.components.fluentd.component.configuration_key", lambda: "another")
    assert Fluentd("1", str).input_key() != before


@pytest.mark.parametrize(("component", "kind", "name"), [(Store("1", str), "Deployment", "store"), (Fluentd("1", str), "DaemonSet", "fluentd")])
def test_a_component_is_detected_by_its_image_s_tag(component, kind, name):
    class Listed:
        def __init__(self, *found):
            self.found = found

        def list(self, asked, namespace, *, fields):
            assert (asked, namespace, fields) == (kind, "logging", f"metadata.name={name}")
            return list(self.found)

    there = {"spec": {"template": {"spec": {"containers": [{"image": "docker.io/x/y:2.19.6@sha256:00"}]}}}}

    assert component.detect(Listed(there)) == "2.19.6"
    assert component.detect(Listed()) is None


def test_collectors_of_checks_read_functions_of_their_own_namespace_only():
    for manifest in (file for file in AREA.glob("*.yaml") if ".mutants" not in file.name and file.name != "reference.yaml"):
        paths = re.findall(r"/var/log/containers/[^,\"]+", manifest.read_text())

        assert paths, manifest
        assert all("_${namespace}_" in path for path in paths), manifest
