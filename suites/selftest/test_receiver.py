"""The receiver as its client reads it, and what stands in its manifest."""

import json

import pytest

from clusters.kube import ProxyResponse
from workloads.receiver import receiver
from workloads.receiver.client import Receiver


class Pod:
    """A receiver's control port that has one answer."""

    def __init__(self, body=b"", status=200):
        self.answer = ProxyResponse(status, {}, body)
        self.asked = []

    def request(self, pod, namespace, port, method, path):
        self.asked.append((pod, namespace, port, method, path))
        return self.answer


def test_a_notification_is_read_with_its_time_and_alertmanager_s_words():
    alert = {"status": "firing", "labels": {"alertname": "A"}}
    body = {"status": "firing", "receiver": "steady", "groupLabels": {"severity": "warning"}, "alerts": [alert]}
    pod = Pod(json.dumps([{"inbox": "steady", "at": "2026-01-02T03:04:05.123456789Z", "refused": True, "body": body}]).encode())

    (found,) = Receiver(pod, "here", "receiver-0").notifications()

    assert (found.inbox, round(found.at, 3), found.refused, found.status, found.receiver) == ("steady", 1767323045.123, True, "firing", "steady")
    assert (found.group, found.alerts) == ({"severity": "warning"}, (alert,))
    assert json.dumps(found.to_json())


def test_what_is_no_alertmanager_s_is_a_notification_without_alerts():
    pod = Pod(json.dumps([{"inbox": "x", "at": "2026-01-02T03:04:05Z", "refused": False, "body": {}}]).encode())

    assert Receiver(pod, "here", "receiver-0").notifications()[0].alerts == ()


def test_an_inbox_is_told_to_refuse_and_to_accept():
    pod = Pod()
    one = Receiver(pod, "here", "receiver-0")

    one.refuse("shaky")
    one.accept("shaky")

    assert [asked[3:] for asked in pod.asked] == [("POST", "/_behaviour/refuse/shaky"), ("POST", "/_behaviour/accept/shaky")]


def test_a_receiver_that_answers_otherwise_is_named():
    with pytest.raises(ConnectionError, match="POST /_behaviour/refuse/x of pod here/receiver-0 answered 400"):
        Receiver(Pod(b"neither", 400), "here", "receiver-0").refuse("x")


def test_a_receiver_stays_in_its_service_while_it_refuses_and_beside_the_mesh():
    front, deployment = receiver()
    pod = deployment["spec"]["template"]

    assert front["spec"]["selector"] == {"app": "receiver"}
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert pod["spec"]["containers"][0]["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "http-control"}
